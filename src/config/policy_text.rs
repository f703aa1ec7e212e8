//! Prints the method and the limits that apply to one series, each with the place that sets it.

use std::fmt::{Display, Write};

use super::Loaded;
use crate::policy::ResolvedLimit;

impl Loaded {
    /// Describes the method and the limits of the series, one per line: `key = value  # origin`.
    pub fn describe_policy(&self, device: &str, metric: &str) -> String {
        let policy = self.settings.policy().resolve(device, metric);
        let mut text = String::new();
        self.describe_limit(&mut text, "method", policy.method);
        self.describe_limit(&mut text, "window", policy.window);
        self.describe_limit(&mut text, "threshold", policy.threshold);
        self.describe_limit(&mut text, "min_samples", policy.min_samples);
        self.describe_limit(&mut text, "min_std_dev", policy.min_std_dev);
        self.describe_limit(&mut text, "min_relative_std_dev", policy.min_relative_std_dev);
        self.describe_limit(&mut text, "enabled", policy.enabled);
        text
    }

    fn describe_limit<T: Display>(&self, text: &mut String, key: &str, limit: ResolvedLimit<T>) {
        let path = path(limit.set_by, key);
        let origin = self.entries.get(&path).map_or_else(|| "default".to_owned(), |entry| entry.origin.to_string());
        let _ = writeln!(text, "{:<32}  # {origin}", format!("{key} = {}", limit.value));
    }
}

/// Path of a limit: that of an override, by its index, or of all series.
pub(super) fn path(set_by: Option<usize>, key: &str) -> String {
    match set_by {
        Some(at) => format!("detector.override[{at}].{key}"),
        None => format!("detector.{key}"),
    }
}
