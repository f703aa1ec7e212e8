//! Settings that a command takes as options: of the same type and range as in the files.

use serde_json::Value;

use super::raw::{self, Places};
use super::report::Report;
use super::resolved::Settings;
use super::schema::{Key, Kind};
use crate::error::{Error, Result};

/// The value that a text means, checked.
///
/// # Errors
/// What was expected.
pub fn value(key: &Key, text: &str) -> Result<Value, String> {
    let value = match key.kind {
        Kind::Integer(..) => text.parse::<i64>().map(Value::from).ok(),
        Kind::Float(..) => text.parse::<f64>().map(Value::from).ok(),
        Kind::Bool => text.parse::<bool>().map(Value::from).ok(),
        _ => None,
    };
    raw::check(key.kind, value.unwrap_or_else(|| text.into()))
}

/// The defaults, with these values in the place of some, by their paths. No file and no variable is read.
///
/// # Errors
/// 70 when a value is not of its setting's type.
pub fn settings(given: impl IntoIterator<Item = (&'static str, Value)>) -> Result<Settings> {
    let mut entries = raw::gather(&Places::default(), None, &mut Report::default());
    for (path, value) in given {
        if let Some(entry) = entries.get_mut(path) {
            entry.value = value;
        }
    }
    serde_json::from_value(raw::tree(&entries))
        .map_err(|e| Error::internal(format_args!("settings and their schema disagree: {e}")))
}
