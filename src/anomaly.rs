//! The record of one anomaly, as topic `anomalies` and `anomaly score` carry it and the table stores it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::Timestamp;

/// Where an event came from. With `kind` it is the anomaly's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordId {
    /// Kafka topic, or a file's name.
    pub topic: String,
    /// 0 for a file.
    pub partition: i32,
    /// Kafka offset, or the zero-based index of the record in its file.
    pub offset: i64,
    /// Counts values within one record.
    pub index: i32,
}

/// The identity of an anomaly: where its event came from, and which kind of anomaly it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnomalyId {
    /// Where the event came from.
    pub source: RecordId,
    /// As [`Anomaly::kind`].
    pub kind: String,
}

/// How far from what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// From the threshold.
    Warning,
    /// From twice the threshold.
    Critical,
}

impl Severity {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// On which side of the expected band.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Above.
    High,
    /// Below.
    Low,
}

impl Direction {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::High => "high",
            Direction::Low => "low",
        }
    }
}

/// Schema version 1. Numbers are finite; times are UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// 1
    pub schema_version: u32,
    /// `point`
    pub kind: String,
    /// Of the event.
    pub device_id: String,
    /// Of the event.
    pub metric_name: Option<String>,
    /// Of the event.
    pub metric_value: f64,
    /// Of the event, or of its record; only a file's row can have none.
    pub timestamp: Option<Timestamp>,
    /// Of the window before the value.
    pub mean: f64,
    /// Population standard deviation of that window, before any floor.
    pub std_dev: f64,
    /// Signed distance in deviations; none when the deviation is 0.
    pub z_score: Option<f64>,
    /// Higher is more abnormal.
    pub score: f64,
    /// In deviations.
    pub threshold: f64,
    /// The value that the method expected.
    pub expected: f64,
    /// Least expected value.
    pub lower: f64,
    /// Greatest expected value.
    pub upper: f64,
    /// Number of values that were judged against.
    pub window_count: u32,
    /// Name of the method.
    pub method: String,
    /// Further numbers of the method by name; empty where mean, deviation and window tell all.
    pub evidence: BTreeMap<String, f64>,
    /// Side.
    pub direction: Direction,
    /// Distance.
    pub severity: Severity,
    /// The producer's header `anomaly-label`.
    pub label: Option<String>,
    /// The most recent values before this one, oldest first.
    pub window: Vec<f64>,
    /// Identity.
    pub source: RecordId,
}

impl Anomaly {
    /// Its identity.
    pub fn id(&self) -> AnomalyId {
        AnomalyId { source: self.source.clone(), kind: self.kind.clone() }
    }
}

/// The columns of an anomaly in the database with their SQL types, in the order of the table: the fields, those of `source` with
/// a prefix, then the time of the detection. The only list of its kind: tests compare it with the fields, the schema, the select
/// lists, COPY, the CSV and the description of the API.
pub const COLUMNS: [(&str, &str); 24] = [
    ("source_topic", "text"),
    ("source_partition", "integer"),
    ("source_offset", "bigint"),
    ("source_index", "integer"),
    ("kind", "text"),
    ("schema_version", "integer"),
    ("device_id", "text"),
    ("metric_name", "text"),
    ("metric_value", "double precision"),
    ("event_time", "timestamptz"),
    ("mean", "double precision"),
    ("std_dev", "double precision"),
    ("z_score", "double precision"),
    ("score", "double precision"),
    ("threshold", "double precision"),
    ("lower", "double precision"),
    ("upper", "double precision"),
    ("window_count", "integer"),
    ("method", "text"),
    ("direction", "text"),
    ("severity", "text"),
    ("label", "text"),
    ("window", "double precision[]"),
    ("detected_at", "timestamptz"),
];

/// The names of the columns, for the tests that compare them with the JSON.
#[cfg(test)]
pub mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names of columns as the JSON has them, those of `source` apart.
    pub fn json_names() -> (BTreeSet<String>, BTreeSet<String>) {
        let names = COLUMNS.iter().map(|(name, _)| if *name == "event_time" { "timestamp" } else { name });
        let (source, own) = names.partition::<Vec<_>, _>(|name| name.starts_with("source_"));
        let source = source.into_iter().map(|name| name.trim_start_matches("source_").to_owned()).collect();
        (own.into_iter().map(str::to_owned).chain(["source".to_owned()]).collect(), source)
    }
}
