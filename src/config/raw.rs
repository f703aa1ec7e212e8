//! Settings as typed: gathered from defaults, files, environment and credentials, each value with its origin,
//! each checked against the schema. All problems are collected.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::property;
use super::report::{Origin, Report};
use super::schema::{self, File, Kind, PROPERTIES};
use crate::foreign;

/// Prefix of the environment variables; sections and keys are joined by the same two underscores.
pub const PREFIX: &str = "ANOMALY__";

/// Where settings are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Directory of the files; a missing one is an error only if it is `required`.
    pub dir: PathBuf,
    /// Whether the user named the directory.
    pub required: bool,
    /// The role's own file, read after `common.toml`.
    pub file: Option<File>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// systemd's credentials directory.
    pub credentials: Option<PathBuf>,
}

/// One value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Checked against the schema.
    pub value: Value,
    /// Place.
    pub origin: Origin,
}

/// Path of a key to its value; every key of the schema is there.
pub type Entries = BTreeMap<String, Entry>;

/// Gathers and checks everything.
pub fn gather(places: &Places, report: &mut Report) -> Entries {
    let mut entries = Entries::new();
    for key in schema::KEYS {
        let value = DeValue::parse(key.default).ok().and_then(|value| plain(value.get_ref()));
        if let Some(value) = value {
            entries.insert(key.path.to_owned(), Entry { value, origin: Origin::Default });
        }
    }
    for path in files(places, report) {
        file(&path, &mut entries, report);
    }
    environment(&places.env, &mut entries, report);
    if let Some(dir) = &places.credentials {
        credentials(dir, &mut entries, report);
    }
    secret_files(&mut entries, report);
    entries
}

/// The files that exist, in the order of precedence.
fn files(places: &Places, report: &mut Report) -> Vec<PathBuf> {
    if !places.dir.is_dir() {
        if places.required {
            let title = format!("the settings directory {} does not exist", foreign::path(&places.dir));
            report.add(&Origin::Secret(places.dir.clone()), title, "expected a directory", None);
        }
        return Vec::new();
    }
    let mut paths = vec![places.dir.join(File::Common.name())];
    paths.extend(places.file.filter(|file| *file != File::Common).map(|file| places.dir.join(file.name())));
    paths.retain(|path| path.symlink_metadata().is_ok());
    let conf_d = places.dir.join("conf.d");
    if conf_d.is_dir() {
        match std::fs::read_dir(&conf_d) {
            Ok(list) => {
                let mut dropped = list
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .filter(|path| path.extension().is_some_and(|e| e == "toml"))
                    .collect::<Vec<_>>();
                dropped.sort();
                paths.extend(dropped);
            }
            Err(e) => unreadable(&conf_d, &e, report),
        }
    }
    paths
}

fn unreadable(path: &Path, error: &std::io::Error, report: &mut Report) {
    let help = (error.kind() == std::io::ErrorKind::PermissionDenied)
        .then(|| "make it readable for the user that runs this: chgrp anomaly, chmod 0640".to_owned());
    report.add(&Origin::Secret(path.to_owned()), format!("cannot read {}", foreign::path(path)), error, help);
}

fn file(path: &Path, entries: &mut Entries, report: &mut Report) {
    let text: Rc<str> = match std::fs::read_to_string(path) {
        Ok(text) => text.into(),
        Err(e) => return unreadable(path, &e, report),
    };
    let place = Rc::new(path.to_owned());
    let origin = |span: Range<usize>| Origin::File { path: place.clone(), text: text.clone(), span };
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
    origin: &impl Fn(Range<usize>) -> Origin,
    entries: &mut Entries,
    report: &mut Report,
) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let is_section = schema::KEYS.iter().any(|k| k.path.starts_with(&format!("{path}.")));
        let below_properties = path == PROPERTIES || path.starts_with("kafka.properties.");
        match value.get_ref() {
            DeValue::Table(below) if is_section || below_properties => walk(below, &path, origin, entries, report),
            _ if is_section || path == PROPERTIES => {
                let title = format!("`{path}` is a section");
                report.add(&origin(value.span()), title, format!("expected [{path}] and keys below it"), None);
            }
            _ => typed(path, value, key.span(), origin, entries, report),
        }
    }
}

fn typed(
    path: String,
    value: &Spanned<DeValue<'_>>,
    key: Range<usize>,
    origin: &impl Fn(Range<usize>) -> Origin,
    entries: &mut Entries,
    report: &mut Report,
) {
    let here = origin(value.span());
    match plain(value.get_ref()) {
        Some(plain) => put(path, plain, here, Some(origin(key)), entries, report),
        None => {
            report.add(&here, format!("`{path}` is {}", value.get_ref().type_str()), "expected a single value", None);
            report.hide_value();
        }
    }
}

/// A scalar of TOML, or an array of scalars, as JSON's; `None` for tables and dates.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Boolean(b) => Some(Value::Bool(*b)),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()).ok().map(Value::from),
        DeValue::Array(all) => all.iter().map(|one| plain(one.get_ref())).collect(),
        DeValue::Float(x) => x.as_str().parse::<f64>().ok().filter(|x| x.is_finite()).map(Value::from),
        _ => None,
    }
}

/// Checks one value and keeps it. An unknown key is reported at the key, a wrong value at the value.
fn put(path: String, value: Value, origin: Origin, key: Option<Origin>, entries: &mut Entries, report: &mut Report) {
    if let Some(property) = path.strip_prefix("kafka.properties.") {
        if let Some((_, why)) = property::REFUSED.iter().find(|(name, _)| *name == property) {
            report.add(key.as_ref().unwrap_or(&origin), format!("`{path}` is not for settings to choose"), why, None);
            return;
        }
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if let Some(expected) = property::problem(property, &text) {
            report.add(&origin, format!("`{path}` cannot be used"), expected, None);
            // Perhaps a secret under a wrong name.
            report.hide_value();
            return;
        }
        entries.insert(path, Entry { value: Value::String(text), origin });
        return;
    }
    let Some(known) = schema::find(&path) else {
        let help = nearest(&path).map(|near| format!("did you mean `{near}`?"));
        report.add(key.as_ref().unwrap_or(&origin), format!("unknown key `{path}`"), "no setting has this name", help);
        // Perhaps a secret under a wrong name.
        report.hide_value();
        return;
    };
    match check(known.kind, value) {
        Ok(value) => {
            entries.insert(path, Entry { value, origin });
        }
        Err(expected) => {
            let help = Some(format!("{} Default: {}", known.doc, known.default));
            report.add(&origin, format!("`{path}` has a wrong value"), expected, help);
            if property::is_secret(&path) {
                report.hide_value();
            }
        }
    }
}

/// The value as its kind wants it, or what was expected.
pub fn check(kind: Kind, value: Value) -> Result<Value, String> {
    let expected = match kind {
        Kind::Text | Kind::Secret => "expected a string".to_owned(),
        Kind::OneOf(words) => format!("expected one of: {}", words.join(", ")),
        Kind::Integer(least, i64::MAX) => format!("expected a whole number of at least {least}"),
        Kind::Integer(least, most) => format!("expected a whole number from {least} to {most}"),
        Kind::Float(least, f64::MAX) => format!("expected a number of at least {least}"),
        Kind::Float(least, most) => format!("expected a number from {least} to {most}"),
        Kind::Bool => "expected true or false".to_owned(),
        Kind::Duration(least, most) => format!(
            "expected a time such as \"10s\", from {} to {}",
            humantime::format_duration(std::time::Duration::from_millis(least)),
            humantime::format_duration(std::time::Duration::from_millis(most)),
        ),
        Kind::Listen => "expected an address such as \"127.0.0.1:8501\", or \"off\"".to_owned(),
        Kind::Time => "expected a time such as \"2026-11-23T17:00:00Z\"".to_owned(),
        Kind::Step => "expected a time such as \"10ms\"".to_owned(),
        Kind::List => "expected strings such as [\"a\", \"b\"]".to_owned(),
    };
    let fits = match (kind, &value) {
        (Kind::Text | Kind::Secret, Value::String(_)) => true,
        (Kind::OneOf(words), Value::String(text)) => words.contains(&text.as_str()),
        (Kind::Integer(least, most), Value::Number(n)) => n.as_i64().is_some_and(|n| (least..=most).contains(&n)),
        (Kind::Float(least, most), Value::Number(n)) => n.as_f64().is_some_and(|n| (least..=most).contains(&n)),
        (Kind::Bool, Value::Bool(_)) => true,
        (Kind::Duration(least, most), Value::String(text)) => {
            humantime::parse_duration(text).is_ok_and(|d| (least as u128..=most as u128).contains(&d.as_millis()))
        }
        (Kind::Listen, Value::String(text)) => {
            text.is_empty() || text == "off" || text.parse::<std::net::SocketAddr>().is_ok()
        }
        (Kind::Step, Value::String(text)) => {
            text.is_empty() || humantime::parse_duration(text).is_ok_and(|step| !step.is_zero())
        }
        (Kind::List, Value::Array(all)) => all.iter().all(Value::is_string),
        (Kind::List, Value::String(_)) => true,
        (Kind::Time, Value::String(text)) => text.is_empty() || crate::event::Instant::parse_rfc3339(text).is_some(),
        _ => false,
    };
    match (fits, kind) {
        (false, _) => Err(expected),
        (true, Kind::Float(..)) => Ok(Value::from(value.as_f64())),
        (true, Kind::List) => Ok(listed(value)),
        (true, _) => Ok(value),
    }
}

/// A list as an array, also when it was given as one string.
fn listed(value: Value) -> Value {
    match value {
        Value::String(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect()
        }
        other => other,
    }
}

/// The known path that is most like this one, if any is.
fn nearest(path: &str) -> Option<&'static str> {
    schema::KEYS
        .iter()
        .map(|key| (strsim::damerau_levenshtein(path, key.path), key.path))
        .chain(schema::KEYS.iter().filter_map(|key| {
            // The right name in the wrong section.
            let (name, given) = (key.path.rsplit('.').next()?, path.rsplit('.').next()?);
            (name == given).then_some((2, key.path))
        }))
        .filter(|(distance, near)| *distance <= near.len() / 3)
        .min()
        .map(|(_, near)| near)
}

fn environment(env: &[(String, String)], entries: &mut Entries, report: &mut Report) {
    let mut sorted = env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect::<Vec<_>>();
    sorted.sort();
    for (name, text) in sorted {
        let origin = Origin::Env(name.clone());
        let mut path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        if let Some(property) = path.strip_prefix("kafka.properties.") {
            path = format!("{PROPERTIES}.{}", property.replace('_', "."));
        }
        // `…_FILE` names a file that holds a secret; password_file is a key of its own.
        let target = path.strip_suffix("_file").or_else(|| path.strip_suffix(".file")).map(str::to_owned);
        if let Some(target) = target.filter(|t| schema::find(&path).is_none() && property::is_secret(t)) {
            secret(Path::new(text), target, entries, report);
            continue;
        }
        let value = match schema::find(&path).map(|key| key.kind) {
            Some(Kind::Integer(..)) => text.parse::<i64>().map_or(Value::from(text.as_str()), Value::from),
            Some(Kind::Float(..)) => text.parse::<f64>().map_or(Value::from(text.as_str()), Value::from),
            Some(Kind::Bool) => text.parse::<bool>().map_or(Value::from(text.as_str()), Value::from),
            _ => Value::from(text.as_str()),
        };
        if schema::find(&path).is_none() && !path.starts_with("kafka.properties.") {
            let help =
                nearest(&path).map(|near| format!("did you mean {PREFIX}{}?", near.to_uppercase().replace('.', "__")));
            report.add(&origin, format!("unknown variable {name}"), "no setting has this name", help);
            continue;
        }
        put(path, value, origin, None, entries, report);
    }
}

/// Files of systemd's credentials directory, named by the key: `postgres.password` (or `anomaly_postgres.password`, as a
/// directory loaded under the name `anomaly` gives them).
fn credentials(dir: &Path, entries: &mut Entries, report: &mut Report) {
    let Ok(list) = std::fs::read_dir(dir) else { return };
    let mut paths = list.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>();
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let target = name.strip_prefix("anomaly_").unwrap_or(name).to_owned();
        if target.starts_with('.') || target.eq_ignore_ascii_case("readme") {
            continue;
        }
        if schema::find(&target).is_none() && !target.starts_with("kafka.properties.") {
            let help = Some("a credential is named as its key, such as postgres.password".to_owned());
            report.add(
                &Origin::Secret(path.clone()),
                format!("unknown credential `{name}`"),
                "no setting has this name",
                help,
            );
            continue;
        }
        secret(&path, target, entries, report);
    }
}

/// `password_file` fills `password`, unless that came from somewhere of higher precedence.
fn secret_files(entries: &mut Entries, report: &mut Report) {
    for section in ["postgres", "migrate", "marks"] {
        let (file, target) = (format!("{section}.password_file"), format!("{section}.password"));
        let is_set = entries.get(&target).is_some_and(|e| matches!(e.origin, Origin::Env(_) | Origin::Secret(_)));
        if let Some(path) = entries.get(&file).and_then(|e| e.value.as_str()).filter(|path| !path.is_empty() && !is_set)
        {
            secret(&PathBuf::from(path), target, entries, report);
        }
    }
}

fn secret(path: &Path, target: String, entries: &mut Entries, report: &mut Report) {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
            put(target, Value::from(text), Origin::Secret(path.to_owned()), None, entries, report);
        }
        Err(e) => unreadable(path, &e, report),
    }
}

/// The entries as one tree, for the resolved settings.
pub fn tree(entries: &Entries) -> Value {
    let mut root = Map::new();
    let mut properties = Map::new();
    for (path, entry) in entries {
        if let Some(property) = path.strip_prefix("kafka.properties.") {
            properties.insert(property.to_owned(), entry.value.clone());
        } else if let Some((section, name)) = path.split_once('.') {
            let below = root.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                below.insert(name.to_owned(), entry.value.clone());
            }
        }
    }
    if let Some(Value::Object(kafka)) = root.get_mut("kafka") {
        kafka.insert("properties".into(), Value::Object(properties));
    }
    Value::Object(root)
}
