//! What can be asked about anomalies that are already recorded: the questions, the plain data that answers them, and the
//! trait that stands between the pages and the database. Knows neither SQL nor HTTP.

use std::fmt;

use serde::Serialize;

use crate::anomaly::{Anomaly, Severity};
use crate::event::Instant;

/// Rows of one page when nobody says otherwise.
pub const DEFAULT_LIMIT: u32 = 50;
/// Most rows of one page.
pub const MAX_LIMIT: u32 = 500;

/// Which anomalies. An absent part restricts nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Exactly this device.
    pub device: Option<String>,
    /// Exactly this metric.
    pub metric: Option<String>,
    /// Exactly this severity.
    pub severity: Option<Severity>,
    /// Event time at or after.
    pub from: Option<Instant>,
    /// Event time before.
    pub to: Option<Instant>,
}

/// A place in the order of pages: newest event first, then by identity, all descending.
///
/// Times are compared in milliseconds, the resolution in which anomalies are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Event time.
    pub time: Instant,
    /// `source.topic`
    pub topic: String,
    /// `source.partition`
    pub partition: i32,
    /// `source.offset`
    pub offset: i64,
    /// `source.index`
    pub index: i32,
    /// `kind`
    pub kind: String,
}

impl Key {
    /// The place of a record; `None` when it has no time (no row of the database lacks one).
    pub fn of(anomaly: &Anomaly) -> Option<Key> {
        let source = &anomaly.source;
        Some(Key {
            time: anomaly.timestamp?,
            topic: source.topic.clone(),
            partition: source.partition,
            offset: source.offset,
            index: source.index,
            kind: anomaly.kind.clone(),
        })
    }

    /// The reverse of its text.
    pub fn parse(text: &str) -> Option<Key> {
        let mut parts = text.splitn(6, '.');
        let mut next = || parts.next();
        let time = Instant::from_millis(next()?.parse().ok()?)?;
        let (partition, offset, index) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let kind = next()?.to_owned();
        let topic = next()?.to_owned();
        let is_text = |s: &str| !s.is_empty() && !s.contains('\0');
        (is_text(&kind) && is_text(&topic)).then_some(Key { time, topic, partition, offset, index, kind })
    }
}

impl fmt::Display for Key {
    /// The topic comes last: it is the only part that may hold dots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { time, topic, partition, offset, index, kind } = self;
        write!(f, "{}.{partition}.{offset}.{index}.{kind}.{topic}", time.millis())
    }
}

/// A row: the record, and when it was detected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// As topic `anomalies` carries it.
    #[serde(flatten)]
    pub anomaly: Anomaly,
    /// By the detector's clock.
    pub detected_at: Instant,
}

/// Some records, newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// At most as many as were asked for.
    pub records: Vec<Record>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<Key>,
}

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

/// What was judged in a minute of event time, all partitions together; minutes without events are absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoverageRow {
    /// Its start.
    pub minute: Instant,
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
    /// Events that wait; `None` when not known.
    pub lag: Option<i64>,
    /// Newest event time judged.
    pub event_time: Option<Instant>,
    /// Series held.
    pub series: i64,
    /// Of the settings in force.
    pub settings_hash: String,
    /// When it was written.
    pub updated_at: Instant,
    /// Its age in seconds by the database's clock, so that two hosts' clocks need not agree.
    pub age: f64,
}

/// A range of event time, cut into equal stretches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bins {
    /// Start of the first one.
    pub from: Instant,
    /// Width of each, in milliseconds.
    pub width: i64,
    /// How many.
    pub count: usize,
}

impl Bins {
    /// End of the last one.
    pub fn to(&self) -> Option<Instant> {
        Instant::from_millis(self.from.millis() + self.width * self.count as i64)
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Not reachable; the text is for the log.
    Away(String),
    /// Reachable, but the question takes longer than is allowed.
    Slow,
    /// It answered, and refused; the text says the remedy.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Away(why) | Failure::Refused(why) => f.write_str(why),
            Failure::Slow => f.write_str("the question takes longer than is allowed"),
        }
    }
}

/// Where recorded anomalies are found. Every call may block.
pub trait Archive: Send + Sync {
    /// Whether it answers at all.
    ///
    /// # Errors
    /// As [`Failure`] says; so for all that follow.
    fn ping(&self) -> Result<(), Failure>;

    /// At most `limit` anomalies, newest first, that come after `before` in this order.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn newest(&self, filter: &Filter, before: Option<&Key>, limit: u32) -> Result<Page, Failure>;

    /// All anomalies of one record: usually one.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn at(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<Record>, Failure>;

    /// Anomalies by time. The filter's own range does not count.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, Failure>;

    /// The devices with most anomalies in the filter's range, most first.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, Failure>;

    /// The metrics with most anomalies in the filter's range, most first.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, Failure>;

    /// Anomalies of some devices by time. The filter's own range and device do not count.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, Failure>;

    /// What was judged, by minute, in `from <= minute < to`.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn coverage(&self, from: Instant, to: Instant) -> Result<Vec<CoverageRow>, Failure>;

    /// The last heartbeat of every partition.
    ///
    /// # Errors
    /// See [`Archive::ping`].
    fn status(&self) -> Result<Vec<StatusRow>, Failure>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text_even_when_the_topic_has_dots() {
        let key = Key {
            time: Instant::from_millis(1_795_455_739_123).unwrap(),
            topic: "raw.events.v2".into(),
            partition: 3,
            offset: 184_467,
            index: 0,
            kind: "point".into(),
        };
        assert_eq!(key.to_string(), "1795455739123.3.184467.0.point.raw.events.v2");
        assert_eq!(Key::parse(&key.to_string()), Some(key));
    }

    #[test]
    fn what_is_not_a_key_is_none() {
        for text in
            ["", "1", "x.3.1.0.point.t", "1.3.1.0.point.", "1.3.1.0..t", "1.99999999999.1.0.point.t", "1.3.1.0.p\0.t"]
        {
            assert_eq!(Key::parse(text), None, "{text:?}");
        }
    }
}
