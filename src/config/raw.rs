//! Settings as typed, from defaults, files, environment and credentials. Each value has its origin and is checked
//! against the schema. All problems are collected.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::account::{self, Account};
use super::contradiction;
use super::property;
use super::read::{self, unreadable};
use super::report::{SettingOrigin, SettingsReport};
use super::schema::{self, PROPERTIES, ShippedFile};
use super::unread;
use super::value_check::{check, parsed, plain};
use super::values::{SettingValue, SettingValues};
use crate::foreign;

/// Prefix of the environment variables. The same two underscores join sections and keys.
pub const PREFIX: &str = "ANOMALY__";

/// The places that settings are read from.
#[derive(Debug, Clone, Default)]
pub struct SettingFiles {
    /// Directory of the files. A missing directory is an error only if it is `required`.
    pub dir: PathBuf,
    /// Whether the user named the directory.
    pub required: bool,
    /// The file of the role, read after `common.toml`.
    pub file: Option<ShippedFile>,
    /// Environment variables with their values.
    pub env: Vec<(String, String)>,
    /// Credentials directory of systemd. Without it, the directory `credentials` below the directory of the files is
    /// used.
    pub credentials: Option<PathBuf>,
}

/// Collects and checks all settings. It reads the files as `account`, or as the process's own user.
pub fn gather(places: &SettingFiles, account: Option<&Account>, report: &mut SettingsReport) -> SettingValues {
    let mut entries = SettingValues::new();
    for key in schema::keys() {
        let value = DeValue::parse(key.default).ok().and_then(|value| plain(value.get_ref()));
        if let Some(value) = value {
            entries.insert(key.path.to_owned(), SettingValue { value, origin: SettingOrigin::Default });
        }
    }
    for path in files(places, account, report) {
        file(&path, account, &mut entries, report);
    }
    environment(&places.env, account, &mut entries, report);
    credentials(places, &mut entries, report);
    contradiction::secrets(&entries, report);
    secret_files(account, &mut entries, report);
    entries
}

/// Returns the files that exist, in the order of precedence.
fn files(places: &SettingFiles, account: Option<&Account>, report: &mut SettingsReport) -> Vec<PathBuf> {
    let problem = |title: String, report: &mut SettingsReport| {
        report.add(&SettingOrigin::Secret(places.dir.clone()), title, "expected a directory", None);
    };
    match read::metadata(&places.dir, account) {
        Ok(Some(found)) if found.is_dir() => {}
        Ok(Some(_)) => {
            problem(format!("{} is not a directory", foreign::path(&places.dir)), report);
            return Vec::new();
        }
        Ok(None) => {
            if places.required {
                problem(format!("the settings directory {} does not exist", foreign::path(&places.dir)), report);
            }
            return Vec::new();
        }
        Err(e) => {
            unreadable(&places.dir, &e, account, report);
            return Vec::new();
        }
    }
    report.notices.extend(unread::notices(&places.dir, account));
    let mut paths = vec![places.dir.join(ShippedFile::Common.name())];
    paths.extend(places.file.filter(|file| *file != ShippedFile::Common).map(|file| places.dir.join(file.name())));
    let conf_d = places.dir.join("conf.d");
    match read::list(&conf_d, account) {
        Ok(dropped) => {
            let is_read = |path: &PathBuf| {
                let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                !is_hidden && path.extension().is_some_and(|extension| extension == "toml")
            };
            let (dropped, others): (Vec<_>, _) = dropped.unwrap_or_default().into_iter().partition(is_read);
            let others =
                others.iter().map(|path| format!("{} is not read: its name must end in .toml", foreign::path(path)));
            report.notices.extend(others.collect::<Vec<_>>());
            paths.extend(dropped);
        }
        Err(e) => unreadable(&conf_d, &e, account, report),
    }
    paths
}

fn file(path: &Path, account: Option<&Account>, entries: &mut SettingValues, report: &mut SettingsReport) {
    let text: Rc<str> = match read::text(path, account) {
        Ok(Some(text)) => text.into(),
        Ok(None) => return,
        Err(e) => return unreadable(path, &e, account, report),
    };
    let place = Rc::new(path.to_owned());
    let origin = |span: Range<usize>| SettingOrigin::File { path: place.clone(), text: text.clone(), span };
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        report.add(&origin(error.span().unwrap_or(0..0)), "not valid TOML", error.message(), None);
        report.hide_value();
    }
    // A file that is not TOML says nothing reliable about its keys.
    if errors.is_empty() {
        walk(table.get_ref(), "", &origin, entries, report);
    }
}

fn walk(
    table: &DeTable<'_>,
    prefix: &str,
    origin: &impl Fn(Range<usize>) -> SettingOrigin,
    entries: &mut SettingValues,
    report: &mut SettingsReport,
) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let is_section = schema::keys().any(|k| k.path.starts_with(&format!("{path}.")));
        let below_properties = path == PROPERTIES || path.starts_with("kafka.properties.");
        match value.get_ref() {
            _ if schema::TABLES.iter().any(|list| list.path == path) => tables(value, &path, origin, entries, report),
            DeValue::Table(below) if is_section || below_properties => walk(below, &path, origin, entries, report),
            _ if is_section || path == PROPERTIES => {
                let title = format!("`{path}` is a section");
                report.add(&origin(value.span()), title, format!("expected [{path}] and keys below it"), None);
            }
            _ => typed(path, value, key.span(), origin, entries, report),
        }
    }
}

/// Adds the tables of a list, whose numbers continue those of earlier files.
fn tables(
    value: &Spanned<DeValue<'_>>,
    list: &str,
    origin: &impl Fn(Range<usize>) -> SettingOrigin,
    entries: &mut SettingValues,
    report: &mut SettingsReport,
) {
    let wrong = |span, report: &mut SettingsReport| {
        let expected = format!("expected tables below [[{list}]]");
        report.add(&origin(span), format!("`{list}` is a list of tables"), expected, None);
    };
    let DeValue::Array(all) = value.get_ref() else { return wrong(value.span(), report) };
    let numbers = entries.keys().filter_map(|path| schema::in_table(path));
    let first = numbers.filter(|(of, ..)| *of == list).map(|(_, at, _)| at + 1).max().unwrap_or(0);
    for (at, table) in (first..).zip(all) {
        match table.get_ref() {
            DeValue::Table(keys) if keys.is_empty() => {
                report.add(&origin(table.span()), format!("[[{list}]] is empty"), "expected keys below it", None);
            }
            DeValue::Table(keys) => walk(keys, &format!("{list}[{at}]"), origin, entries, report),
            _ => wrong(table.span(), report),
        }
    }
}

fn typed(
    path: String,
    value: &Spanned<DeValue<'_>>,
    key: Range<usize>,
    origin: &impl Fn(Range<usize>) -> SettingOrigin,
    entries: &mut SettingValues,
    report: &mut SettingsReport,
) {
    let here = origin(value.span());
    match plain(value.get_ref()) {
        Some(plain) => put(path, plain, here, Some(origin(key)), entries, report),
        None if schema::find(&path).is_none() && !path.starts_with("kafka.properties.") => {
            unknown(&path, &origin(key), report);
        }
        None => {
            report.add(&here, format!("`{path}` is {}", value.get_ref().type_str()), "expected a single value", None);
            if property::is_secret(&path) {
                report.hide_value();
            }
        }
    }
}

/// Checks one value and stores it. An unknown key is reported at the key, a wrong value at the value.
fn put(
    path: String,
    value: Value,
    origin: SettingOrigin,
    key: Option<SettingOrigin>,
    entries: &mut SettingValues,
    report: &mut SettingsReport,
) {
    if let Some(property) = path.strip_prefix("kafka.properties.") {
        if let Some((_, why)) = property::REFUSED.iter().find(|(name, _)| *name == property) {
            report.add(key.as_ref().unwrap_or(&origin), format!("`{path}` cannot be set by users"), why, None);
            return;
        }
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if let Some(expected) = property::problem(property, &text) {
            report.add(&origin, format!("`{path}` cannot be used"), expected, None);
            // The value may be a secret under a wrong name.
            report.hide_value();
            return;
        }
        return store(path, Value::String(text), origin, entries, report);
    }
    let Some(known) = schema::find(&path) else {
        return unknown(&path, key.as_ref().unwrap_or(&origin), report);
    };
    match check(known.kind, value) {
        Ok(value) => store(path, value, origin, entries, report),
        Err(expected) => {
            let help = Some(format!("{} Default: {}", known.doc, known.default));
            report.add(&origin, format!("`{path}` has a wrong value"), expected, help);
            if property::is_secret(&path) {
                report.hide_value();
            }
        }
    }
}

/// Stores a checked value. Two values from one place, such as `linger.ms` and `"linger.ms"`, contradict each other.
fn store(path: String, value: Value, origin: SettingOrigin, entries: &mut SettingValues, report: &mut SettingsReport) {
    if let Some(earlier) = entries.get(&path).filter(|earlier| earlier.origin.is_rival(&origin)) {
        contradiction::twice(&path, &origin, &earlier.origin, report);
    }
    entries.insert(path, SettingValue { value, origin });
}

fn unknown(path: &str, key: &SettingOrigin, report: &mut SettingsReport) {
    let help = if report.is_full() { None } else { schema::nearest(path) };
    let help = help.map(|near| format!("did you mean `{near}`?"));
    report.add(key, format!("unknown key `{}`", foreign::name(path)), "no setting has this name", help);
    // The value may be a secret under a wrong name.
    report.hide_value();
}

fn environment(
    env: &[(String, String)],
    account: Option<&Account>,
    entries: &mut SettingValues,
    report: &mut SettingsReport,
) {
    let ours = env.iter().filter_map(|(name, text)| Some((variable(name)?, name, text)));
    let mut sorted = ours.collect::<Vec<_>>();
    // Values come before files, so that both for one setting are noticed.
    sorted.sort_by_key(|((_, target), name, _)| (target.is_some(), *name));
    let mut files = BTreeMap::new();
    for ((path, target), name, text) in sorted {
        let origin = SettingOrigin::Env(name.clone());
        if let Some(target) = target {
            let value = entries.get(&target).map(|entry| entry.origin.clone());
            let earlier = files.insert(target.clone(), origin.clone());
            if let Some(earlier) = earlier.or_else(|| value.filter(|value| value.is_rival(&origin))) {
                contradiction::twice(&target, &origin, &earlier, report);
            }
            secret(Path::new(text), account, target, entries, report);
            continue;
        }
        let value = schema::find(&path).map_or_else(|| text.as_str().into(), |key| parsed(key.kind, text));
        if schema::find(&path).is_none() && !path.starts_with("kafka.properties.") {
            let help = schema::nearest(&path)
                .map(|near| format!("did you mean {PREFIX}{}?", near.to_uppercase().replace('.', "__")));
            report.add(&origin, format!("unknown variable {name}"), "no setting has this name", help);
            continue;
        }
        put(path, value, origin, None, entries, report);
    }
}

/// Returns the setting that a variable of this program sets. A variable `…_FILE` names a file that contains a secret;
/// for it, the second part is the setting of that secret. `password_file` is a setting of its own.
fn variable(name: &str) -> Option<(String, Option<String>)> {
    let mut path = name.strip_prefix(PREFIX)?.to_lowercase().replace("__", ".");
    if let Some(property) = path.strip_prefix("kafka.properties.") {
        path = format!("{PROPERTIES}.{}", property.replace('_', "."));
    }
    let target = path.strip_suffix("_file").or_else(|| path.strip_suffix(".file"));
    let target = target.filter(|target| schema::find(&path).is_none() && property::is_secret(target));
    let target = target.map(str::to_owned);
    Some((path, target))
}

/// Reads systemd's credentials. Each file is named by its key: `postgres.password`, or `anomaly_postgres.password` if
/// the directory was loaded under the name `anomaly`. Without systemd's directory, root reads them where they are
/// stored.
fn credentials(places: &SettingFiles, entries: &mut SettingValues, report: &mut SettingsReport) {
    let (dir, is_given) = match &places.credentials {
        Some(given) => (given.clone(), true),
        // Only the defaults are used, without any directory.
        None if places.dir.as_os_str().is_empty() => return,
        None => (places.dir.join("credentials"), false),
    };
    let dir = dir.as_path();
    // systemd reads credentials as root, whichever user the service has.
    let paths = match read::list(dir, None) {
        Ok(paths) => paths.unwrap_or_default(),
        // Only root may read the secrets. A command that another user starts has none of them, and says so.
        Err(e) if !is_given && e.kind() == ErrorKind::PermissionDenied => {
            let user = account::reader(None);
            let dir = foreign::path(dir);
            report.notices.push(format!("the secrets in {dir} are not used: user {user} may not read them, root may"));
            return;
        }
        Err(e) => return unreadable(dir, &e, None, report),
    };
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = name.strip_prefix("anomaly_").unwrap_or(&name).to_owned();
        if target.starts_with('.') || target.eq_ignore_ascii_case("readme") {
            continue;
        }
        if schema::find(&target).is_none() && !target.starts_with("kafka.properties.") {
            let help = Some("a credential is named as its key, such as postgres.password".to_owned());
            let title = format!("unknown credential `{name}`");
            report.add(&SettingOrigin::Secret(path.clone()), title, "no setting has this name", help);
            continue;
        }
        secret(&path, None, target, entries, report);
    }
}

/// Reads `password` from `password_file`, unless `password` was set in a place of higher precedence.
fn secret_files(account: Option<&Account>, entries: &mut SettingValues, report: &mut SettingsReport) {
    for section in ["postgres", "migrate", "reviews"] {
        let (file, target) = (format!("{section}.password_file"), format!("{section}.password"));
        let is_set =
            entries.get(&target).is_some_and(|e| matches!(e.origin, SettingOrigin::Env(_) | SettingOrigin::Secret(_)));
        if let Some(path) = entries.get(&file).and_then(|e| e.value.as_str()).filter(|path| !path.is_empty() && !is_set)
        {
            secret(&PathBuf::from(path), account, target, entries, report);
        }
    }
}

fn secret(
    path: &Path,
    account: Option<&Account>,
    target: String,
    entries: &mut SettingValues,
    report: &mut SettingsReport,
) {
    if let Some(text) = read::secret(path, account, &target, report) {
        put(target, Value::from(text), SettingOrigin::Secret(path.to_owned()), None, entries, report);
    }
}

/// Returns the entries as one tree, from which the typed settings are read.
pub fn tree(entries: &SettingValues) -> Value {
    let mut sections = BTreeMap::<&str, Map<String, Value>>::new();
    let mut properties = Map::new();
    let mut lists = BTreeMap::<&str, BTreeMap<usize, Map<String, Value>>>::new();
    for (path, entry) in entries {
        if let Some(property) = path.strip_prefix("kafka.properties.") {
            properties.insert(property.to_owned(), entry.value.clone());
        } else if let Some((list, at, name)) = schema::in_table(path) {
            let table = lists.entry(list).or_default().entry(at).or_default();
            table.insert(name.to_owned(), entry.value.clone());
        } else if let Some((section, name)) = path.split_once('.') {
            sections.entry(section).or_default().insert(name.to_owned(), entry.value.clone());
        }
    }
    sections.entry("kafka").or_default().insert("properties".into(), Value::Object(properties));
    for (list, tables) in lists {
        if let Some((section, name)) = list.split_once('.') {
            let tables = tables.into_values().map(Value::Object).collect();
            sections.entry(section).or_default().insert(name.to_owned(), tables);
        }
    }
    sections.into_iter().map(|(section, keys)| (section.to_owned(), Value::Object(keys))).collect()
}
