//! Prints the method and the limits that apply to one series, each with the place that sets it.

use std::fmt::Write;

use super::Loaded;

impl Loaded {
    /// Describes the method and the limits of the series, one per line: `key = value  # origin`.
    pub fn describe_policy(&self, device: &str, metric: &str) -> String {
        let policy = self.settings.policy().resolve(device, metric);
        let mut text = String::new();
        for (key, limit) in policy.describe() {
            let entry = self.entries.get(&path(limit.set_by, key));
            let origin = entry.map_or_else(|| "default".to_owned(), |entry| entry.origin.to_string());
            let _ = writeln!(text, "{:<32}  # {origin}", format!("{key} = {}", limit.value));
        }
        text
    }
}

/// Path of a limit: that of an override, by its index, or of all series.
pub(super) fn path(set_by: Option<usize>, key: &str) -> String {
    match set_by {
        Some(at) => format!("detector.override[{at}].{key}"),
        None => format!("detector.{key}"),
    }
}
