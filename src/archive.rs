//! Queries for recorded anomalies: the parameters, the plain data of the results, and the trait between the pages and
//! the database. It depends neither on SQL nor on HTTP.

mod address;
mod count;
mod dead_letter;
mod follow;
mod review;

use std::fmt;

use serde::Serialize;

use crate::anomaly::{Anomaly, AnomalyId, Severity};
use crate::event::Timestamp;
use crate::unavailable::Unavailable;
pub use address::AnomalyAddress;
pub use count::{ActivityRow, BinCount, Bins, ConditionRow, Count, CoverageRow, LaneCount, NameCount, StatusRow};
pub use dead_letter::{DeadLetter, Excerpt, Known, Outside};
pub use follow::{CommittedAnomaly, Cursor, Follower};
pub use review::{MAX_NOTE, NewReview, Quality, Review, ReviewRecord};

/// Number of rows of one page, unless the query sets another.
pub const DEFAULT_LIMIT: u32 = 50;
/// Maximum number of rows of one page.
pub const MAX_LIMIT: u32 = 500;
/// Maximum number of stored devices without an anomaly.
pub const MOST_DEVICES: f64 = 2_000_000.0;
/// Maximum difference between an event's time and its detection that counts as punctual, in milliseconds.
pub const PUNCTUAL: i64 = 60_000;

/// Selects anomalies. An empty field restricts nothing; of several values in one field any may match.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Devices by exact name.
    pub devices: Vec<String>,
    /// Metrics by exact name.
    pub metrics: Vec<String>,
    /// Severities of the anomalies.
    pub severities: Vec<Severity>,
    /// Methods that found the anomalies.
    pub methods: Vec<String>,
    /// Labels of the producer.
    pub labels: Vec<String>,
    /// Newest reviews of the anomalies.
    pub reviews: Vec<Review>,
    /// Start of the range of event time, included.
    pub from: Option<Timestamp>,
    /// End of the range of event time, excluded.
    pub to: Option<Timestamp>,
    /// Whether no anomaly can match.
    pub is_impossible: bool,
}

impl Filter {
    /// Returns whether only devices, metrics, severities and time restrict, so that totals can answer.
    pub fn is_plain(&self) -> bool {
        self.methods.is_empty() && self.labels.is_empty() && self.reviews.is_empty()
    }

    /// Returns the width of the range in milliseconds; the maximum if the range has no end.
    pub fn width(&self) -> i64 {
        match (self.from, self.to) {
            (Some(from), Some(to)) => to.millis().saturating_sub(from.millis()),
            _ => i64::MAX,
        }
    }
}

/// Position in the order of pages: newest event first, then by identity, all descending.
///
/// Times are compared in milliseconds, the resolution in which anomalies are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageKey {
    /// Time of the event.
    pub time: Timestamp,
    /// Topic of the event, `source.topic`.
    pub topic: String,
    /// Generation of the topic, `source.generation`.
    pub generation: i32,
    /// Partition of the event, `source.partition`.
    pub partition: i32,
    /// Offset of the event, `source.offset`.
    pub offset: i64,
    /// Index of the event, `source.index`.
    pub index: i32,
    /// Kind of the anomaly.
    pub kind: String,
}

impl PageKey {
    /// Returns the position of a record; `None` if it has no time. Every row of the database has one.
    pub fn of(anomaly: &Anomaly) -> Option<PageKey> {
        let source = &anomaly.source;
        Some(PageKey {
            time: anomaly.timestamp?,
            topic: source.topic.clone(),
            generation: source.generation,
            partition: source.partition,
            offset: source.offset,
            index: source.index,
            kind: anomaly.kind.clone(),
        })
    }

    /// Parses the text that `Display` writes.
    pub fn parse(text: &str) -> Option<PageKey> {
        let mut parts = text.splitn(7, '.');
        let mut next = || parts.next();
        let time = Timestamp::from_millis(next()?.parse().ok()?)?;
        let (generation, partition) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (offset, index) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let kind = next()?.to_owned();
        let topic = next()?.to_owned();
        let is_text = |s: &str| !s.is_empty() && !s.contains('\0');
        let key = PageKey { time, topic, generation, partition, offset, index, kind };
        (is_text(&key.kind) && is_text(&key.topic)).then_some(key)
    }
}

impl fmt::Display for PageKey {
    /// Writes the topic last, because only the topic may contain dots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageKey { time, topic, generation, partition, offset, index, kind } = self;
        write!(f, "{}.{generation}.{partition}.{offset}.{index}.{kind}.{topic}", time.millis())
    }
}

/// A row of the table: the record of an anomaly, and its detection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredAnomaly {
    /// Record as in topic `anomalies`.
    #[serde(flatten)]
    pub anomaly: Anomaly,
    /// Time of the record in topic `anomalies`, by the broker's clock.
    pub detected_at: Timestamp,
    /// Newest review of the anomaly.
    pub review: Review,
    /// Whether its topic has no newer generation with anomalies. A link to it then needs no generation.
    #[serde(skip)]
    pub is_newest_generation: bool,
}

/// One page of anomalies, newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnomalyPage {
    /// Rows of the page, at most the requested number.
    pub records: Vec<StoredAnomaly>,
    /// Position at which the next page starts; `None` on the last page.
    pub next: Option<PageKey>,
}

/// Order of anomalies other than by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// Anomalies are ordered by score, the highest first.
    Score,
    /// Anomalies are ordered by device, then newest first.
    Device,
    /// Anomalies are ordered by metric, then newest first.
    Metric,
}

/// Reason why a query has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The database cannot be reached.
    Unavailable(Unavailable),
    /// The database can be reached, but the query takes too long.
    Slow,
    /// The database refused; the text includes the remedy.
    Refused(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Unavailable(unavailable) => unavailable.fmt(f),
            NoAnswer::Refused(why) => f.write_str(why),
            NoAnswer::Slow => f.write_str("the query exceeded its time limit"),
        }
    }
}

/// Queries for the rows of anomalies. Every call may block.
///
/// # Errors
/// All calls fail with [`NoAnswer`].
pub trait AnomalyQueries {
    /// Returns at most `limit` anomalies that come after `before`, newest first.
    fn newest(&self, filter: &Filter, before: Option<&PageKey>, limit: u32) -> Result<AnomalyPage, NoAnswer>;

    /// Returns at most `limit` anomalies that come just before `after`, newest first. `next` is set if there are more
    /// of them on that side.
    fn newer(&self, filter: &Filter, after: &PageKey, limit: u32) -> Result<AnomalyPage, NoAnswer>;

    /// Returns at most `limit` anomalies in an order other than by time.
    fn ranked(&self, filter: &Filter, order: Ranking, limit: u32) -> Result<Vec<StoredAnomaly>, NoAnswer>;

    /// Returns the anomaly with this address.
    fn find(&self, address: &AnomalyAddress) -> Result<Option<StoredAnomaly>, NoAnswer>;

    /// Returns anomalies that were detected from `since` until now and whose own times are outside of the filter's range. The
    /// range must have both ends. At most `limit` are returned, newest detection first. An event up to [`PUNCTUAL`]
    /// from its detection counts as punctual.
    fn outside(&self, filter: &Filter, since: Timestamp, limit: u32) -> Result<Outside, NoAnswer>;

    /// Returns the number of anomalies that were detected from `since` until now, whatever their own times.
    fn fresh(&self, filter: &Filter, since: Timestamp) -> Result<u64, NoAnswer>;
}

/// Queries for numbers of anomalies, by time and by name. Every call may block.
///
/// # Errors
/// All calls fail with [`NoAnswer`].
pub trait CountQueries {
    /// Counts anomalies by time. The filter's own range is ignored.
    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, NoAnswer>;

    /// Returns the devices with most anomalies in the filter's range, most first.
    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer>;

    /// Returns the metrics with most anomalies in the filter's range, most first.
    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer>;

    /// Counts anomalies of some devices by time. The filter's own range and devices are ignored.
    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, NoAnswer>;
}

/// Queries for the reports of the detectors and the sink. Every call may block.
///
/// # Errors
/// All calls fail with [`NoAnswer`].
pub trait ReportQueries {
    /// Returns the outcomes of `from <= minute < to`, in intervals of `grain` milliseconds that start at `from`.
    fn coverage(&self, from: Timestamp, to: Timestamp, grain: i64) -> Result<Vec<CoverageRow>, NoAnswer>;

    /// Returns the arrivals from `from` until now by the detectors' clocks, in intervals of `grain` milliseconds that start at
    /// `from`.
    fn activity(&self, from: Timestamp, grain: i64) -> Result<Vec<ActivityRow>, NoAnswer>;

    /// Returns the last heartbeat of every partition.
    fn status(&self) -> Result<Vec<StatusRow>, NoAnswer>;

    /// Returns the active conditions of the detectors, degrading ones first.
    fn conditions(&self) -> Result<Vec<ConditionRow>, NoAnswer>;

    /// Returns the settings with this hash, as names and values; `None` if the hash is unknown.
    fn settings(&self, hash: &str) -> Result<Option<Vec<(String, String)>>, NoAnswer>;

    /// Returns the number of rows that the table of anomalies has refused since `since`.
    fn refused(&self, since: Timestamp) -> Result<u64, NoAnswer>;

    /// Returns at most `limit` rejected records of the detectors' samples, newest first.
    fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, NoAnswer>;

    /// Returns whether a device of exactly this name sends, according to the detectors' reports.
    fn knows(&self, device: &str) -> Result<Known, NoAnswer>;

    /// Returns at most `limit` devices that have anomalies and this text in their names, in any case, ordered by name.
    fn search(&self, text: &str, limit: u32) -> Result<Vec<String>, NoAnswer>;

    /// Returns the time of the database's clock.
    fn clock(&self) -> Result<Timestamp, NoAnswer>;
}

/// Queries that read and add reviews. Every call may block.
///
/// # Errors
/// All calls fail with [`NoAnswer`].
pub trait ReviewQueries {
    /// Returns all reviews of one anomaly, newest first.
    fn reviews_of(&self, id: &AnomalyId) -> Result<Vec<ReviewRecord>, NoAnswer>;

    /// Adds a review; returns `false` if there is no such anomaly.
    fn add_review(&self, review: &NewReview) -> Result<bool, NoAnswer>;

    /// Checks that the role which is named for reviews could add one, without adding one. Where none is named, the dashboard
    /// may be meant to read only, and there is nothing to check.
    fn try_review(&self) -> Result<(), NoAnswer>;

    /// Returns the number of anomalies per newest review, in a range of event time. `Review::None` is not included.
    fn reviews(&self, from: Timestamp, to: Timestamp) -> Result<Vec<(Review, u64)>, NoAnswer>;

    /// Returns the precision of the detection, day by day.
    fn quality(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Quality>, NoAnswer>;
}

/// The store of recorded anomalies. Every call may block.
///
/// # Errors
/// All calls fail with [`NoAnswer`].
pub trait Archive: AnomalyQueries + CountQueries + ReportQueries + ReviewQueries + Send + Sync {
    /// Checks that the database answers.
    fn ping(&self) -> Result<(), NoAnswer>;

    /// Returns the positions of the sinks.
    fn position(&self) -> Result<Cursor, NoAnswer>;

    /// Connects a new follower.
    fn follow(&self) -> Result<Box<dyn Follower>, NoAnswer>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text_even_when_the_topic_has_dots() {
        let key = PageKey {
            time: Timestamp::from_millis(1_795_455_739_123).unwrap(),
            topic: "raw.events.v2".into(),
            generation: 1,
            partition: 3,
            offset: 184_467,
            index: 0,
            kind: "point".into(),
        };
        assert_eq!(key.to_string(), "1795455739123.1.3.184467.0.point.raw.events.v2");
        assert_eq!(PageKey::parse(&key.to_string()), Some(key));
    }

    #[test]
    fn invalid_keys_are_not_parsed() {
        for text in [
            "",
            "1",
            "x.0.3.1.0.point.t",
            "1.0.3.1.0.point.",
            "1.0.3.1.0..t",
            "1.0.99999999999.1.0.point.t",
            "1.99999999999.3.1.0.point.t",
            "1.0.3.1.0.p\0.t",
            // As earlier builds wrote it, without a generation.
            "1.3.1.0.point.t",
        ] {
            assert_eq!(PageKey::parse(text), None, "{text:?}");
        }
    }
}
