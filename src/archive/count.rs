//! Plain numbers: anomalies by time and name, what was judged, and what the detector says of itself.

use crate::event::Timestamp;
use crate::health::{Activity, ConditionSeverity};

/// How many of each severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Critical ones.
    pub critical: u64,
    /// Warnings.
    pub warning: u64,
}

impl Count {
    /// Both together.
    pub fn total(self) -> u64 {
        self.critical + self.warning
    }
}

/// Anomalies in one stretch of time; stretches without any are absent.
#[derive(Debug, Clone, PartialEq)]
pub struct BinCount {
    /// Counted from the start of the range, by its width.
    pub bin: usize,
    /// In it.
    pub count: Count,
}

/// Anomalies of one device, or of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct NameCount {
    /// `None`: events without a metric's name.
    pub name: Option<String>,
    /// Of it.
    pub count: Count,
}

/// Anomalies of one device in one stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneCount {
    /// The device.
    pub device: String,
    /// As in [`BinCount`].
    pub bin: usize,
    /// In it.
    pub count: Count,
}

/// What was judged in a minute or in several, by event time, all partitions together; those without events are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoverageRow {
    /// Start of the first.
    pub minute: Timestamp,
    /// Values with a verdict.
    pub judged: u64,
    /// Values that came before the series had enough of them.
    pub learning: u64,
    /// Records that are not events.
    pub rejected: u64,
}

/// The last heartbeat of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusRow {
    /// Consumer group of the detector.
    pub group: String,
    /// Of the raw events.
    pub topic: String,
    /// Of that topic.
    pub partition: i32,
    /// Who has it.
    pub worker: String,
    /// What the worker says that it is doing.
    pub state: String,
    /// Next offset to judge.
    pub committed: Option<i64>,
    /// Records that wait, those of open transactions included; `None` when not known.
    pub lag: Option<i64>,
    /// End of the partition, open transactions included.
    pub high_watermark: Option<i64>,
    /// Values judged since the group began.
    pub judged: Option<i64>,
    /// Values learned since the group began.
    pub learning: Option<i64>,
    /// Records rejected since the group began.
    pub rejected: Option<i64>,
    /// When the newest record was taken, by the detector's clock.
    pub arrived_at: Option<Timestamp>,
    /// Newest event time judged.
    pub event_time: Option<Timestamp>,
    /// Series held.
    pub series: i64,
    /// Of the settings in force.
    pub settings_hash: String,
    /// When it was written.
    pub updated_at: Timestamp,
    /// Its age in seconds by the database's clock, so that two hosts' clocks need not agree.
    pub age: f64,
    /// Seconds by which the detector's clock is ahead of the database's; `None` when not known.
    pub ahead: Option<f64>,
}

/// What arrived in a minute of the detectors' clocks, all partitions together; minutes without any record are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivityRow {
    /// Its start.
    pub minute: Timestamp,
    /// Outcomes, and how far the events' times were from their arrival.
    pub activity: Activity,
}

/// A condition that a loop of a detector holds; see [`crate::health::Condition`].
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionRow {
    /// Consumer group of the detector.
    pub group: String,
    /// Of the raw events.
    pub topic: String,
    /// Instance and loop.
    pub worker: String,
    /// See [`crate::health::ConditionCode`]; one that this program does not know is shown as it is.
    pub code: String,
    /// A severity that this program does not know counts as degraded.
    pub severity: ConditionSeverity,
    /// One line.
    pub message: String,
    /// When it was raised.
    pub since: Timestamp,
    /// Age of its last report in seconds, by the database's clock.
    pub age: f64,
}

/// A range of event time, cut into equal stretches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bins {
    /// Start of the first one.
    pub from: Timestamp,
    /// Width of each, in milliseconds.
    pub width: i64,
    /// How many.
    pub count: usize,
}

impl Bins {
    /// How finely coverage is looked at, in milliseconds: a few thousand stretches at the most.
    pub fn grain(&self) -> i64 {
        const MINUTE: i64 = 60_000;
        match self.width {
            ..3_600_000 => MINUTE,
            3_600_000..43_200_000 => 15 * MINUTE,
            _ => 60 * MINUTE,
        }
    }

    /// End of the last one.
    pub fn to(&self) -> Option<Timestamp> {
        Timestamp::from_millis(self.from.millis() + self.width * self.count as i64)
    }
}
