//! Settings: raw (as typed) -> checked -> resolved (as used). Precedence: default, `common.toml`, the role's file,
//! `conf.d/*.toml` in order, `ANOMALY__SECTION__KEY`, credentials.

pub mod account;
mod connection;
mod contradiction;
mod dashboard_access;
mod declare;
mod names;
pub mod option;
mod policy_text;
pub mod property;
pub mod raw;
pub mod read;
pub mod report;
pub mod resolved;
pub mod schema;
mod shipped;
mod unread;
mod value_check;
mod values;

use std::fmt::Write;
use std::path::Path;

pub use raw::SettingFiles;
pub use resolved::Settings;
pub use shipped::shipped;

use crate::error::{Error, Result};
use crate::foreign;
use account::Account;
use report::SettingsReport;
use resolved::Delivery;
use schema::ShippedFile;
use values::SettingValues;

/// Directory of the settings in the package.
pub const DIR: &str = "/etc/anomaly";

/// Consistent settings, and the place that each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Settings as the program uses them.
    pub settings: Settings,
    /// Files that exist and are not used; one sentence each.
    pub notices: Vec<String>,
    entries: SettingValues,
}

/// Collects, checks and resolves the settings.
///
/// # Errors
/// 78, with every problem and its place.
pub fn load(places: &SettingFiles) -> Result<Loaded> {
    load_as(places, None)
}

/// Loads the settings as [`load`] does, but reads the files as another user. Only root may do that.
///
/// # Errors
/// As [`load`].
pub fn load_as(places: &SettingFiles, account: Option<&Account>) -> Result<Loaded> {
    let mut report = SettingsReport::default();
    let entries = raw::gather(places, account, &mut report);
    contradiction::aliases(&entries, &mut report);
    contradiction::sources(&entries, &mut report);
    if !report.problems.is_empty() {
        return Err(Error::report(report));
    }
    let settings = serde_json::from_value::<Settings>(raw::tree(&entries))
        .map_err(|e| Error::internal(format_args!("settings and their schema disagree: {e}")))?;
    consistent(&settings, &entries, &mut report);
    if !report.problems.is_empty() {
        return Err(Error::report(report));
    }
    Ok(Loaded { settings, notices: report.notices, entries })
}

#[cfg(test)]
impl Default for Settings {
    fn default() -> Self {
        load(&SettingFiles::default()).unwrap().settings
    }
}

/// Checks the rules between several settings.
fn consistent(settings: &Settings, entries: &SettingValues, report: &mut SettingsReport) {
    limits(settings, entries, report);
    let mut problem = |path: &str, title: String, expected: &str| {
        if let Some(entry) = entries.get(path) {
            report.add(&entry.origin, title, expected, None);
            if property::is_secret(path) {
                report.hide_value();
            }
        }
    };
    let detector = &settings.detector;
    if detector.delivery == Delivery::AtLeastOnce && detector.keeps_state() {
        let title = "`detector.delivery` is \"at_least_once\" and `detector.state` is \"topic\"".to_owned();
        let expected = "windows in a topic need transactions: set detector.state = \"history\"";
        problem("detector.delivery", title, expected);
    }
    if let Some((path, title, expected)) = field_problem(settings) {
        problem(&path, title, &expected);
    }
    for (path, text) in [
        ("kafka.bootstrap_servers", &settings.kafka.bootstrap_servers),
        ("fields.device", &settings.fields.device),
        ("fields.value", &settings.fields.value),
    ] {
        if text.trim().is_empty() {
            problem(path, format!("`{path}` is empty"), "it needs a value");
        }
    }
    let problems = names::problems(settings).into_iter().chain(connection::problems(settings));
    let problems = problems.chain(dashboard_access::problems(&settings.dashboard)).chain(database_problems(settings));
    for (path, title, expected) in problems {
        problem(path, title, expected);
    }
}

/// Returns what is wrong with the paths of the fields: the setting, the problem, and what is expected.
fn field_problem(settings: &Settings) -> Option<(String, String, String)> {
    let fields = &settings.fields;
    let Some((a, b)) = fields.clash() else {
        let wrong = crate::event::Parser::new(fields).err()?;
        return Some((format!("fields.{}", wrong.key), wrong.title, wrong.expected));
    };
    let paths = [
        ("fields.device", &fields.device),
        ("fields.metric", &fields.metric),
        ("fields.value", &fields.value),
        ("fields.time", &fields.time),
    ];
    let named = paths.into_iter().rfind(|(_, value)| *value == a || *value == b);
    let title = format!("the paths `{a}` and `{b}` lead to the same field");
    let path = named.map_or("fields.device", |(path, _)| path);
    Some((path.to_owned(), title, "each field needs a path of its own".to_owned()))
}

/// Returns the problems of the connection to PostgreSQL: the setting, the problem, and what is expected.
fn database_problems(settings: &Settings) -> Vec<(&'static str, String, &'static str)> {
    let (postgres, mut problems) = (&settings.postgres, Vec::new());
    if postgres.sslcert.is_empty() != postgres.sslkey.is_empty() {
        let title = "`postgres.sslcert` and `postgres.sslkey` belong together".to_owned();
        problems.push(("postgres.sslcert", title, "set both, or neither"));
    }
    if postgres.schema.contains(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')) {
        let title = "`postgres.schema` has a character that needs quoting".to_owned();
        problems.push(("postgres.schema", title, "expected a-z, 0-9 and _"));
    }
    problems
}

/// Checks that no series needs more values than its window has, whichever overrides apply to it.
fn limits(settings: &Settings, entries: &SettingValues, report: &mut SettingsReport) {
    let Some(found) = settings.policy().conflict() else { return };
    let place = |set_by: Option<usize>, key: &str| {
        let path = policy_text::path(set_by, key);
        let origin = entries.get(&path).map_or(&report::SettingOrigin::Default, |entry| &entry.origin);
        (path, origin)
    };
    let (samples, window) = (place(found.min_samples.0, "min_samples"), place(found.window.0, "window"));
    let title = format!("`{}` ({}) is more than `{}` ({})", samples.0, found.min_samples.1, window.0, found.window.1);
    // The caret points at the one that the user set; the text names the place of the other.
    let (shown, other) =
        if *samples.1 == report::SettingOrigin::Default { (window, samples) } else { (samples, window) };
    let other = format!("`{}` is from {}", other.0, other.1);
    report.add(shown.1, title, "series to which both apply would never be judged", Some(other));
}

impl Loaded {
    /// Formats all settings, one per line: `path = value  # origin`. Secrets are masked. With `file`, it formats only
    /// those that the role uses.
    pub fn describe(&self, file: Option<ShippedFile>) -> String {
        let is_used = |path: &str| match schema::find(path).map(|key| key.file) {
            None | Some(ShippedFile::Common) => true,
            Some(of) => file.is_none_or(|file| file == of),
        };
        let lines = self.entries.iter().filter(|(path, _)| is_used(path)).map(|(path, entry)| {
            let is_hidden = property::is_secret(path) && entry.value != "";
            let value =
                if is_hidden { "\"***\"".to_owned() } else { foreign::text(&entry.value.to_string()).to_string() };
            (format!("{path} = {value}"), entry.origin.to_string())
        });
        let lines = lines.collect::<Vec<_>>();
        let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or(0).min(60);
        lines.into_iter().fold(String::new(), |mut text, (left, origin)| {
            let _ = writeln!(text, "{left:<width$}  # {origin}");
            text
        })
    }

    /// Returns the settings that name a file or a socket's directory, with that name. With `file`, it returns only
    /// those that the role opens.
    pub fn paths(&self, file: Option<ShippedFile>) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (path, entry) in &self.entries {
            let Some(text) = entry.value.as_str().filter(|text| !text.is_empty()) else { continue };
            let key = schema::find(path);
            let of_role =
                key.is_none_or(|key| key.file == ShippedFile::Common || file.is_none_or(|file| file == key.file));
            // Every role reads the files of secrets.
            let is_foreign = match file {
                Some(ShippedFile::Dashboard) => path.starts_with(schema::PROPERTIES),
                Some(ShippedFile::Producer) => path.starts_with("postgres.") && !path.ends_with("_file"),
                _ => false,
            };
            let names = match key.map(|key| key.kind) {
                _ if is_foreign || !of_role => Vec::new(),
                Some(schema::ValueType::Path) if path.ends_with("password_file") && !self.is_read(path, text) => {
                    Vec::new()
                }
                Some(schema::ValueType::Path) => vec![text],
                None if path.ends_with(".location") && text != "probe" => vec![text],
                _ if path == "postgres.host" => {
                    text.split(',').map(str::trim).filter(|host| host.starts_with('/')).collect()
                }
                _ => Vec::new(),
            };
            found.extend(names.into_iter().map(|name| (path.clone(), name.to_owned())));
        }
        found
    }

    /// Returns whether the secret came from this file, and from no place of higher precedence.
    fn is_read(&self, path: &str, file: &str) -> bool {
        let secret = self.entries.get(path.trim_end_matches("_file")).map(|entry| &entry.origin);
        matches!(secret, Some(report::SettingOrigin::Secret(from)) if from == Path::new(file))
    }

    /// Returns the settings that a role requires and that nothing sets, one phrase each. A default address counts only
    /// if it is written down: a service that is not configured must not wait for a broker that does not exist.
    pub fn missing(&self, file: ShippedFile, dir: &Path) -> Vec<String> {
        let is_set = |path: &str| self.entries.get(path).is_some_and(|e| e.origin != report::SettingOrigin::Default);
        let mut needs = Vec::new();
        if file != ShippedFile::Dashboard && !is_set("kafka.bootstrap_servers") {
            needs.push(format!("kafka.bootstrap_servers in a file such as {}/conf.d/kafka.toml", dir.display()));
        }
        let uses_postgres =
            file == ShippedFile::Dashboard || (file == ShippedFile::Detector && self.settings.sink.enabled);
        if uses_postgres && !is_set("postgres.password") && !is_set("postgres.host") {
            needs.push(format!("the password of PostgreSQL in {}/credentials/postgres.password", dir.display()));
        }
        needs
    }

    /// Returns the paths whose values differ.
    pub fn changed(&self, other: &Loaded) -> Vec<String> {
        let paths = self.entries.keys().chain(other.entries.keys()).collect::<std::collections::BTreeSet<_>>();
        let value = |of: &Loaded, path: &str| of.entries.get(path).map(|e| e.value.clone());
        paths.into_iter().filter(|path| value(self, path) != value(other, path)).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
