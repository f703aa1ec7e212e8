//! The settings `[fields]`: where device, metric, value and time are in a record, and which spellings are accepted.

use serde::{Deserialize, Serialize};

use super::timestamp::TimeUnit;

/// Sources of the four fields: dotted paths in the JSON object. Device, metric and time may also be `$key` or
/// `$header.NAME`. Device and metric may combine several: `{tags.host}/{tags.cpu}`.
///
/// The state topic stores these settings. Settings of an older program lack newer fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fields {
    /// Path or source of `device_id`.
    pub device: String,
    /// Path or source of `metric_name`.
    pub metric: String,
    /// Path of `metric_value`, in the JSON object.
    pub value: String,
    /// Source of `timestamp`; `$timestamp` is the record's own time.
    pub time: String,
    /// Accepts lenient spellings; see [`Forms`](super::Forms).
    #[serde(default)]
    pub lenient: bool,
    /// Unit of times that are epoch numbers.
    #[serde(default)]
    pub time_unit: TimeUnit,
    /// Time zone of times without one.
    #[serde(default)]
    pub time_zone: String,
    /// Patterns of records to ignore: `PATH`, `!PATH`, `PATH=TEXT`, `PATH!=TEXT`.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Treatment of a record with several values of which some are invalid.
    #[serde(default)]
    pub on_partial: OnPartial,
}

/// Treatment of a record with several values of which some are invalid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartial {
    /// The record is rejected, and none of its values is judged.
    #[default]
    Reject,
    /// The valid values are judged. The record becomes a dead letter if it has an invalid one.
    JudgeValid,
}

impl Default for Fields {
    fn default() -> Self {
        let [device, metric, value, time] =
            ["device_id", "metric_name", "metric_value", "timestamp"].map(str::to_owned);
        Fields {
            device,
            metric,
            value,
            time,
            lenient: true,
            time_unit: TimeUnit::Auto,
            time_zone: "UTC".into(),
            ignore: Vec::new(),
            on_partial: OnPartial::Reject,
        }
    }
}

/// Describes an unusable setting of `[fields]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Name of the setting below `fields`.
    pub key: &'static str,
    /// Problem, in a few words.
    pub title: String,
    /// Expected value of the setting, or the remedy.
    pub expected: String,
}

impl FieldProblem {
    pub(super) fn new(key: &'static str, title: impl Into<String>, expected: impl Into<String>) -> Self {
        FieldProblem { key, title: title.into(), expected: expected.into() }
    }
}

impl Fields {
    /// Names of the four settings, in the order that the decoder uses everywhere.
    pub(super) const KEYS: [&'static str; 4] = ["device", "metric", "value", "time"];

    pub(super) fn paths(&self) -> [&str; 4] {
        [&self.device, &self.metric, &self.value, &self.time]
    }

    /// Returns two paths of which one is a prefix of the other, if any.
    pub fn clash(&self) -> Option<(&str, &str)> {
        let paths = self.paths();
        for (i, a) in paths.iter().enumerate() {
            for (j, b) in paths.iter().enumerate() {
                if i != j && begins(a, b) {
                    return Some((a, b));
                }
            }
        }
        None
    }

    /// Returns the first setting to which a producer of JSON cannot write, because it is not a single path.
    pub fn unwritable(&self) -> Option<FieldProblem> {
        let is_writable = |text: &str| !text.contains(['{', '*']) && !text.starts_with("$header.");
        let (key, text) = Self::KEYS.into_iter().zip(self.paths()).find(|(_, text)| !is_writable(text))?;
        let title = format!("`fields.{key}` is `{text}`: the producer writes each field to one path of a JSON object");
        Some(FieldProblem::new(key, title, format!("set another fields.{key} for the producer, in producer.toml")))
    }
}

/// Returns whether one path is a prefix of the other.
pub(super) fn begins(a: &str, b: &str) -> bool {
    b.strip_prefix(a).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns the problem of a path that leads to several fields.
pub(super) fn several(key: &'static str, path: &str) -> Option<FieldProblem> {
    path.contains(',').then(|| {
        FieldProblem::new(
            key,
            format!("`fields.{key}` is `{path}`, which names several fields"),
            "name one path; the values of an array are `metrics[*].value`, and those of an object are `sensors.*`",
        )
    })
}
