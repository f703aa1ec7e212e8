//! Settings that a command accepts as options, with the same type and range as in the files.

use serde_json::Value;

use super::raw::{self, SettingFiles};
use super::report::SettingsReport;
use super::resolved::Settings;
use super::schema::SettingKey;
use super::value_check;
use crate::error::{Error, Result};

/// Parses and checks the text of an option's value.
///
/// # Errors
/// What was expected.
pub fn value(key: &SettingKey, text: &str) -> Result<Value, String> {
    value_check::check(key.kind, value_check::parsed(key.kind, text))
}

/// Returns the defaults with some values replaced, which are given by their paths. No file and no variable is read.
///
/// # Errors
/// 70 when a value is not of its setting's type.
pub fn settings(given: impl IntoIterator<Item = (&'static str, Value)>) -> Result<Settings> {
    let mut entries = raw::gather(&SettingFiles::default(), None, &mut SettingsReport::default());
    for (path, value) in given {
        if let Some(entry) = entries.get_mut(path) {
            entry.value = value;
        }
    }
    serde_json::from_value(raw::tree(&entries))
        .map_err(|e| Error::internal(format_args!("settings and their schema disagree: {e}")))
}
