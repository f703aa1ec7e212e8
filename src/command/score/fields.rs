//! Lists the fields of records, for a message about a missing field.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::foreign;
use crate::source::file::RecordBatch;

/// Number of records to look at.
const RECORDS: usize = 10;
/// Maximum length of a record to look at, in bytes.
const MAX_RECORD_BYTES: usize = 1 << 16;
/// Maximum number of names in the message.
const NAMES: usize = 40;

/// Returns the dotted paths of the values in the first JSON objects of a batch.
pub(crate) fn of(batch: &RecordBatch) -> Vec<String> {
    let mut paths = BTreeSet::new();
    let rows = (0..batch.len().min(RECORDS)).map(|at| batch.row(at).bytes);
    for bytes in rows.filter(|bytes| bytes.len() <= MAX_RECORD_BYTES) {
        if let Ok(Value::Object(object)) = serde_json::from_slice(bytes) {
            gather(&Value::Object(object), "", &mut paths);
        }
    }
    let more = paths.len().saturating_sub(NAMES);
    let mut names = paths.into_iter().take(NAMES).collect::<Vec<_>>();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names
}

fn gather(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, below) in object {
                let key = foreign::name(key);
                let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                gather(below, &path, paths);
            }
        }
        _ if path.is_empty() => {}
        _ => drop(paths.insert(path.to_owned())),
    }
}
