//! Counts: anomalies by time and name, coverage, and the reports of the detectors.

use crate::event::Timestamp;
use crate::health::{Activity, ConditionSeverity};

/// Number of anomalies per severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Number of anomalies that are critical.
    pub critical: u64,
    /// Number of anomalies that are warnings.
    pub warning: u64,
}

impl Count {
    /// Returns the number of anomalies of both severities.
    pub fn total(self) -> u64 {
        self.critical + self.warning
    }
}

/// Number of anomalies in one bin of time; empty bins are absent.
#[derive(Debug, Clone, PartialEq)]
pub struct BinCount {
    /// Index from the start of the range.
    pub bin: usize,
    /// Number of anomalies in the bin.
    pub count: Count,
}

/// Number of anomalies of one device or of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct NameCount {
    /// Name; `None` stands for events without a metric.
    pub name: Option<String>,
    /// Number of anomalies with this name.
    pub count: Count,
}

/// Number of anomalies of one device in one bin of time.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneCount {
    /// Name of the device.
    pub device: String,
    /// Index of the bin, as in [`BinCount`].
    pub bin: usize,
    /// Number of anomalies in the bin.
    pub count: Count,
}

/// Outcomes in one or more minutes of event time, over all partitions. Minutes without events are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoverageRow {
    /// Start of the first minute.
    pub minute: Timestamp,
    /// Number of values with a verdict.
    pub judged: u64,
    /// Number of values of series with too few preceding values.
    pub learning: u64,
    /// Number of rejected records.
    pub rejected: u64,
    /// Number of values of excluded series.
    pub excluded: u64,
}

/// The last heartbeat of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusRow {
    /// Consumer group of the detector.
    pub group: String,
    /// Topic that the detector reads.
    pub topic: String,
    /// Partition of the input topic.
    pub partition: i32,
    /// Name of the instance that owns the partition.
    pub worker: String,
    /// State of the worker, as it reported it.
    pub state: String,
    /// Offset of the next record to judge.
    pub committed: Option<i64>,
    /// Number of waiting records, including those of open transactions; `None` if unknown.
    pub lag: Option<i64>,
    /// End offset of the partition, including open transactions.
    pub high_watermark: Option<i64>,
    /// Number of values judged since the group was created.
    pub judged: Option<i64>,
    /// Number of values learned since the group was created.
    pub learning: Option<i64>,
    /// Number of records rejected since the group was created.
    pub rejected: Option<i64>,
    /// Number of records ignored since the group was created.
    pub ignored: Option<i64>,
    /// Number of values of excluded series since the group was created.
    pub excluded: Option<i64>,
    /// Time at which the newest record was consumed, by the detector's clock.
    pub arrived_at: Option<Timestamp>,
    /// Newest event time that was judged.
    pub event_time: Option<Timestamp>,
    /// Number of series of the partition.
    pub series: i64,
    /// Hash of the current settings.
    pub settings_hash: String,
    /// Time at which the heartbeat was written.
    pub updated_at: Timestamp,
    /// Age in seconds by the database's clock, so that the clocks of two hosts may differ.
    pub age: f64,
    /// Seconds by which the detector's clock is ahead of the database's; `None` if unknown.
    pub ahead: Option<f64>,
}

#[cfg(test)]
impl StatusRow {
    /// Makes a row of a running partition whose last report is `age` seconds old.
    pub(crate) fn sample(age: f64) -> StatusRow {
        StatusRow {
            group: "g".into(),
            topic: "raw_events".into(),
            partition: 0,
            worker: "w".into(),
            state: "running".into(),
            committed: Some(1),
            lag: Some(53),
            event_time: None,
            series: 7,
            settings_hash: "h".into(),
            updated_at: Timestamp::from_millis(0).expect("the first moment is valid"),
            age,
            high_watermark: Some(54),
            judged: Some(0),
            learning: Some(1),
            rejected: Some(0),
            ignored: Some(0),
            excluded: Some(0),
            arrived_at: None,
            ahead: Some(0.0),
        }
    }
}

/// Arrivals in a minute of the detectors' clocks, over all partitions. Minutes without records are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivityRow {
    /// Start of the minute, by the detectors' clocks.
    pub minute: Timestamp,
    /// Outcomes, and differences of the events' times from their arrival.
    pub activity: Activity,
}

/// An active condition of a detector's component; see [`crate::health::Condition`].
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionRow {
    /// Consumer group of the detector.
    pub group: String,
    /// Topic that the detector reads.
    pub topic: String,
    /// Instance and component that reported it.
    pub worker: String,
    /// Code; see [`crate::health::ConditionCode`]. A code unknown to this program is shown as it is.
    pub code: String,
    /// Severity; one unknown to this program counts as degraded.
    pub severity: ConditionSeverity,
    /// Message for people, in one line.
    pub message: String,
    /// Time at which the condition was raised.
    pub since: Timestamp,
    /// Age of its last report in seconds, by the database's clock.
    pub age: f64,
}

/// A range of event time, divided into equal bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bins {
    /// Start of the first bin.
    pub from: Timestamp,
    /// Width of a bin, in milliseconds.
    pub width: i64,
    /// Number of equal bins.
    pub count: usize,
}

impl Bins {
    /// Returns the resolution of coverage in milliseconds, which limits a query to a few thousand rows.
    pub fn grain(&self) -> i64 {
        const MINUTE: i64 = 60_000;
        match self.width {
            ..3_600_000 => MINUTE,
            3_600_000..43_200_000 => 15 * MINUTE,
            _ => 60 * MINUTE,
        }
    }

    /// Returns the end of the last bin.
    pub fn to(&self) -> Option<Timestamp> {
        Timestamp::from_millis(self.from.millis() + self.width * self.count as i64)
    }
}
