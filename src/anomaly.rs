//! The record of one anomaly: in topic `anomalies`, in the output of `anomaly score`, and in the table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::Timestamp;

/// Generation of a topic of which no earlier topic of the same name is known; also that of a file.
pub const FIRST_GENERATION: i32 = 0;

/// Source of an event. With `kind` it is the anomaly's identity. Its order is that of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId {
    /// Kafka topic, or a file's name.
    pub topic: String,
    /// Which topic of that name, from [`FIRST_GENERATION`] on. The offsets of a topic that was created again begin again,
    /// so this keeps its records apart from the earlier ones. Earlier programs did not write it.
    #[serde(default)]
    pub generation: i32,
    /// Kafka partition; 0 for a file.
    pub partition: i32,
    /// Kafka offset, or the zero-based index of the record in its file.
    pub offset: i64,
    /// Index of the value within its record.
    pub index: i32,
}

/// Identity of an anomaly: the source of its event, and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnomalyId {
    /// Source of the event.
    pub source: RecordId,
    /// Kind of the anomaly, as [`Anomaly::kind`].
    pub kind: String,
}

/// Severity of an anomaly, by its distance from the expected value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The score is beyond the threshold.
    Warning,
    /// The score is at least what the method calls critical.
    Critical,
}

impl Severity {
    /// Returns the stable name of the severity.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Side of the expected range on which the value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The value is above the range.
    High,
    /// The value is below the range.
    Low,
}

impl Direction {
    /// Returns the stable name of the direction.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::High => "high",
            Direction::Low => "low",
        }
    }
}

/// Version of the record that this program writes. Some builds wrote version 1 without `expected` and `evidence`.
pub const SCHEMA_VERSION: u32 = 2;

/// The record of an anomaly in version [`SCHEMA_VERSION`]. Numbers are finite; times are UTC. A number is absent if the
/// method or the kind does not have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Version of the record: [`SCHEMA_VERSION`], or 1 from an earlier program.
    pub schema_version: u32,
    /// Kind of the anomaly, such as `point`.
    pub kind: String,
    /// Device of the event.
    pub device_id: String,
    /// Metric of the event; `None` if it has none.
    pub metric_name: Option<String>,
    /// Value of the event.
    pub metric_value: f64,
    /// Time of the event or of its record; only a file's row can lack both.
    pub timestamp: Option<Timestamp>,
    /// Name of the method.
    pub method: String,
    /// Distance from normal; higher is more abnormal. `f64::MAX` if the deviation is 0.
    pub score: f64,
    /// Threshold in the unit of the score.
    pub threshold: Option<f64>,
    /// The value that the method expected.
    pub expected: Option<f64>,
    /// Lower end of the expected range.
    pub lower: f64,
    /// Upper end of the expected range.
    pub upper: f64,
    /// Mean that the value was compared with.
    pub mean: Option<f64>,
    /// Standard deviation that belongs to the mean, before any floor.
    pub std_dev: Option<f64>,
    /// Signed distance in deviations; also absent if the deviation is 0.
    pub z_score: Option<f64>,
    /// Further numbers of the method by name. Together with the window they suffice to repeat its arithmetic.
    #[serde(default)]
    pub evidence: BTreeMap<String, f64>,
    /// Side of the expected range on which the value is.
    pub direction: Direction,
    /// Severity by the distance from the expected value.
    pub severity: Severity,
    /// Label of the producer, from the header `anomaly-label`.
    pub label: Option<String>,
    /// Number of preceding values that the value was compared with.
    pub window_count: u32,
    /// The most recent values before this one, oldest first.
    pub window: Vec<f64>,
    /// What within the method found the anomaly; `None` if the method has one criterion only.
    #[serde(default)]
    pub reason: Option<String>,
    /// Number of values that pass on average, in this series, until one is at least as abnormal; `None` while unknown.
    #[serde(default)]
    pub return_period_events: Option<f64>,
    /// The same in seconds; `None` while unknown.
    #[serde(default)]
    pub return_period_seconds: Option<f64>,
    /// Source of the event.
    pub source: RecordId,
}

impl Anomaly {
    /// Parses a record of topic `anomalies`. If a record of version 1 has no `expected`, it is the mean, which both
    /// methods of that version expected. If it has no `evidence`, that is empty.
    ///
    /// # Errors
    /// Fails if the JSON is not an anomaly.
    pub fn from_json(json: &[u8]) -> Result<Anomaly, serde_json::Error> {
        let mut anomaly = serde_json::from_slice::<Anomaly>(json)?;
        if anomaly.schema_version < SCHEMA_VERSION && anomaly.expected.is_none() {
            anomaly.expected = anomaly.mean;
        }
        Ok(anomaly)
    }

    /// Returns the identity of the anomaly.
    pub fn id(&self) -> AnomalyId {
        AnomalyId { source: self.source.clone(), kind: self.kind.clone() }
    }

    /// Returns the ratio of the score to its threshold. Without a threshold it is the distance from the middle of the
    /// range, divided by half its width.
    pub fn times_threshold(&self) -> f64 {
        if let Some(threshold) = self.threshold {
            return self.score / threshold;
        }
        let half = self.upper / 2.0 - self.lower / 2.0;
        let distance = (self.metric_value / 2.0 - self.upper / 4.0 - self.lower / 4.0).abs() * 2.0;
        if half > 0.0 { (distance / half).min(f64::MAX) } else { f64::MAX }
    }
}

/// The columns of an anomaly in the database with their SQL types, in the order of the table. They are the fields of
/// `source` with a prefix, the other fields, and the time of the detection. This is the only list of columns. Tests
/// compare it with the fields, the schema, the select lists, COPY, the CSV and the description of the API.
pub const COLUMNS: [(&str, &str); 30] = [
    ("source_topic", "text"),
    ("source_generation", "integer"),
    ("source_partition", "integer"),
    ("source_offset", "bigint"),
    ("source_index", "integer"),
    ("kind", "text"),
    ("schema_version", "integer"),
    ("device_id", "text"),
    ("metric_name", "text"),
    ("metric_value", "double precision"),
    ("event_time", "timestamptz"),
    ("method", "text"),
    ("score", "double precision"),
    ("threshold", "double precision"),
    ("expected", "double precision"),
    ("lower", "double precision"),
    ("upper", "double precision"),
    ("mean", "double precision"),
    ("std_dev", "double precision"),
    ("z_score", "double precision"),
    ("evidence", "json"),
    ("direction", "text"),
    ("severity", "text"),
    ("label", "text"),
    ("window_count", "integer"),
    ("window", "double precision[]"),
    ("reason", "text"),
    ("return_period_events", "double precision"),
    ("return_period_seconds", "double precision"),
    ("detected_at", "timestamptz"),
];

#[cfg(test)]
/// A sample anomaly and the names of the columns, for the tests of other files.
pub mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns a record with plain figures: mean 10, deviation 1.
    pub fn sample(value: f64) -> Anomaly {
        Anomaly {
            schema_version: SCHEMA_VERSION,
            kind: "point".into(),
            device_id: "pump-0042".into(),
            metric_name: Some("temperature".into()),
            metric_value: value,
            timestamp: Timestamp::parse_rfc3339("2026-11-23T17:00:00.123Z"),
            method: "sigma".into(),
            score: (value - 10.0).abs(),
            threshold: Some(3.0),
            expected: Some(10.0),
            lower: 7.0,
            upper: 13.0,
            mean: Some(10.0),
            std_dev: Some(1.0),
            z_score: Some(value - 10.0),
            evidence: std::collections::BTreeMap::new(),
            direction: if value < 10.0 { Direction::Low } else { Direction::High },
            severity: if (value - 10.0).abs() >= 6.0 { Severity::Critical } else { Severity::Warning },
            label: None,
            window_count: 4,
            window: vec![9.0, 11.0, 9.0, 11.0],
            reason: None,
            return_period_events: None,
            return_period_seconds: None,
            source: RecordId { topic: "raw_events".into(), generation: 0, partition: 3, offset: 184_467, index: 0 },
        }
    }

    /// Returns the columns' names as in the JSON: those of the record and, separately, those of `source`.
    pub fn json_names() -> (BTreeSet<String>, BTreeSet<String>) {
        let names = COLUMNS.iter().map(|(name, _)| if *name == "event_time" { "timestamp" } else { name });
        let (source, own) = names.partition::<Vec<_>, _>(|name| name.starts_with("source_"));
        let source = source.into_iter().map(|name| name.trim_start_matches("source_").to_owned()).collect();
        (own.into_iter().map(str::to_owned).chain(["source".to_owned()]).collect(), source)
    }

    fn json(anomaly: &Anomaly) -> serde_json::Value {
        serde_json::to_value(anomaly).unwrap()
    }

    #[test]
    fn the_json_has_these_keys_in_this_order() {
        let text = serde_json::to_string(&sample(18.0)).unwrap();
        let expected = "schema_version kind device_id metric_name metric_value timestamp method score threshold expected lower \
                        upper mean std_dev z_score evidence direction severity label window_count window reason \
                        return_period_events return_period_seconds source";
        let place = |key: &str| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {text}"));
        assert!(expected.split_whitespace().is_sorted_by_key(place), "{text}");
        assert_eq!(expected.split_whitespace().count(), json(&sample(18.0)).as_object().unwrap().len());
    }

    #[test]
    fn a_record_of_version_1_is_read_with_the_mean_as_the_expected_value() {
        let now = sample(18.0);
        let mut old = json(&now);
        old["schema_version"] = 1.into();
        let later = Anomaly { schema_version: 1, ..now.clone() };
        assert_eq!(Anomaly::from_json(old.to_string().as_bytes()).unwrap(), later);
        for absent in ["expected", "evidence"] {
            old.as_object_mut().unwrap().remove(absent);
        }
        assert_eq!(Anomaly::from_json(old.to_string().as_bytes()).unwrap(), later);
        // In version 2 an absent number is not replaced.
        let none = Anomaly { mean: Some(10.0), expected: None, ..now };
        assert_eq!(Anomaly::from_json(json(&none).to_string().as_bytes()).unwrap(), none);
    }

    #[test]
    fn a_record_without_a_generation_is_of_the_first_topic_of_that_name() {
        let mut old = json(&sample(18.0));
        assert_eq!(old["source"].as_object_mut().unwrap().remove("generation"), Some(0.into()));
        assert_eq!(Anomaly::from_json(old.to_string().as_bytes()).unwrap(), sample(18.0));
        let mut later = sample(18.0);
        later.source.generation = 7;
        assert_eq!(Anomaly::from_json(json(&later).to_string().as_bytes()).unwrap(), later);
        assert_ne!(later.id(), sample(18.0).id());
    }

    #[test]
    fn numbers_that_a_method_does_not_have_are_null_and_all_others_keep_every_bit() {
        let evidence =
            [("a", -0.0), ("b", 5e-324), ("c", f64::MAX), ("d", 0.1 + 0.2)].map(|(name, x)| (name.to_owned(), x));
        let anomaly = Anomaly {
            mean: None,
            std_dev: None,
            z_score: None,
            threshold: None,
            evidence: evidence.clone().into(),
            ..sample(18.0)
        };
        assert!(["mean", "std_dev", "z_score", "threshold"].iter().all(|name| json(&anomaly)[name].is_null()));
        let read = Anomaly::from_json(json(&anomaly).to_string().as_bytes()).unwrap();
        assert_eq!(read, anomaly);
        assert!(evidence.iter().all(|(name, x)| read.evidence[name].to_bits() == x.to_bits()));
    }
}
