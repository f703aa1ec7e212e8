//! What can be asked about anomalies that are already recorded: the questions, the plain data that answers them, and the
//! trait that stands between the pages and the database. Knows neither SQL nor HTTP.

mod count;
mod follow;
mod dead_letter;
mod review;

use std::fmt;

use serde::Serialize;

use crate::anomaly::{Anomaly, AnomalyId, Severity};
use crate::event::Timestamp;
use crate::unavailable::Unavailable;
pub use count::{ActivityRow, BinCount, Bins, ConditionRow, Count, CoverageRow, LaneCount, NameCount, StatusRow};
pub use dead_letter::{DeadLetter, Excerpt, Known, Outside};
pub use follow::{CommittedAnomaly, Cursor, Follower};
pub use review::{MAX_NOTE, NewReview, Quality, Review, ReviewRecord};

/// Rows of one page when nobody says otherwise.
pub const DEFAULT_LIMIT: u32 = 50;
/// Most rows of one page.
pub const MAX_LIMIT: u32 = 500;
/// Devices that are remembered although they have no anomaly, at the most.
pub const MOST_DEVICES: f64 = 2_000_000.0;
/// Milliseconds between an event's own time and its detection that need no remark.
pub const PUNCTUAL: i64 = 60_000;

/// Which anomalies. What is empty restricts nothing; of several values of one part any will do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Exactly these devices.
    pub devices: Vec<String>,
    /// Exactly these metrics.
    pub metrics: Vec<String>,
    /// These severities.
    pub severities: Vec<Severity>,
    /// Found by these methods.
    pub methods: Vec<String>,
    /// With these labels of the producer.
    pub labels: Vec<String>,
    /// With these reviews.
    pub reviews: Vec<Review>,
    /// Event time at or after.
    pub from: Option<Timestamp>,
    /// Event time before.
    pub to: Option<Timestamp>,
    /// Nothing can match.
    pub is_impossible: bool,
}

impl Filter {
    /// Whether anything but devices, metrics, severities and time restricts: this is what totals can answer.
    pub fn is_plain(&self) -> bool {
        self.methods.is_empty() && self.labels.is_empty() && self.reviews.is_empty()
    }

    /// Width of the range in milliseconds; as wide as can be when it has no end.
    pub fn width(&self) -> i64 {
        match (self.from, self.to) {
            (Some(from), Some(to)) => to.millis().saturating_sub(from.millis()),
            _ => i64::MAX,
        }
    }
}

/// A place in the order of pages: newest event first, then by identity, all descending.
///
/// Times are compared in milliseconds, the resolution in which anomalies are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageKey {
    /// Event time.
    pub time: Timestamp,
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

impl PageKey {
    /// The place of a record; `None` when it has no time (no row of the database lacks one).
    pub fn of(anomaly: &Anomaly) -> Option<PageKey> {
        let source = &anomaly.source;
        Some(PageKey {
            time: anomaly.timestamp?,
            topic: source.topic.clone(),
            partition: source.partition,
            offset: source.offset,
            index: source.index,
            kind: anomaly.kind.clone(),
        })
    }

    /// The reverse of its text.
    pub fn parse(text: &str) -> Option<PageKey> {
        let mut parts = text.splitn(6, '.');
        let mut next = || parts.next();
        let time = Timestamp::from_millis(next()?.parse().ok()?)?;
        let (partition, offset, index) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let kind = next()?.to_owned();
        let topic = next()?.to_owned();
        let is_text = |s: &str| !s.is_empty() && !s.contains('\0');
        (is_text(&kind) && is_text(&topic)).then_some(PageKey { time, topic, partition, offset, index, kind })
    }
}

impl fmt::Display for PageKey {
    /// The topic comes last: it is the only part that may hold dots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageKey { time, topic, partition, offset, index, kind } = self;
        write!(f, "{}.{partition}.{offset}.{index}.{kind}.{topic}", time.millis())
    }
}

/// A row: the record, and when it was detected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredAnomaly {
    /// As topic `anomalies` carries it.
    #[serde(flatten)]
    pub anomaly: Anomaly,
    /// By the detector's clock.
    pub detected_at: Timestamp,
    /// What people say of it.
    pub review: Review,
}

/// Some records, newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnomalyPage {
    /// At most as many as were asked for.
    pub records: Vec<StoredAnomaly>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<PageKey>,
}

/// An order of anomalies that is not that of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// The farthest from what was expected first.
    Score,
    /// By device, then newest first.
    Device,
    /// By metric, then newest first.
    Metric,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// Not reachable.
    Unavailable(Unavailable),
    /// Reachable, but the question takes longer than is allowed.
    Slow,
    /// It answered, and refused; the text says the remedy.
    Refused(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::Unavailable(unavailable) => unavailable.fmt(f),
            NoAnswer::Refused(why) => f.write_str(why),
            NoAnswer::Slow => f.write_str("the question takes longer than is allowed"),
        }
    }
}

/// Queries for the rows of anomalies. Every call may block.
///
/// # Errors
/// All calls return [`NoAnswer`].
pub trait AnomalyQueries {
    /// At most `limit` anomalies, newest first, that come after `before` in this order.
    fn newest(&self, filter: &Filter, before: Option<&PageKey>, limit: u32) -> Result<AnomalyPage, NoAnswer>;

    /// At most `limit` anomalies, newest first, that come just before `after` in this order; `next` says whether there are more
    /// of them on that side.
    fn newer(&self, filter: &Filter, after: &PageKey, limit: u32) -> Result<AnomalyPage, NoAnswer>;

    /// At most `limit` anomalies in another order than that of time.
    fn ranked(&self, filter: &Filter, order: Ranking, limit: u32) -> Result<Vec<StoredAnomaly>, NoAnswer>;

    /// All anomalies of one record: usually one.
    fn at(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<StoredAnomaly>, NoAnswer>;

    /// At most `limit` anomalies that were detected from `since` on and whose own times are not in the filter's range, which has both ends, newest
    /// detection first. Times up to [`PUNCTUAL`] from the detection count as its own.
    fn outside(&self, filter: &Filter, since: Timestamp, limit: u32) -> Result<Outside, NoAnswer>;

    /// How many anomalies were detected from `since` on, whatever their own times.
    fn fresh(&self, filter: &Filter, since: Timestamp) -> Result<u64, NoAnswer>;
}

/// Queries for numbers of anomalies, by time and by name. Every call may block.
///
/// # Errors
/// All calls return [`NoAnswer`].
pub trait CountQueries {
    /// Anomalies by time. The filter's own range does not count.
    fn by_time(&self, filter: &Filter, bins: &Bins) -> Result<Vec<BinCount>, NoAnswer>;

    /// The devices with most anomalies in the filter's range, most first.
    fn by_device(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer>;

    /// The metrics with most anomalies in the filter's range, most first.
    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer>;

    /// Anomalies of some devices by time. The filter's own range and device do not count.
    fn lanes(&self, filter: &Filter, bins: &Bins, devices: &[String]) -> Result<Vec<LaneCount>, NoAnswer>;
}

/// Queries for what the detectors and the sink report. Every call may block.
///
/// # Errors
/// All calls return [`NoAnswer`].
pub trait ReportQueries {
    /// What was judged in `from <= minute < to`, by stretches of `grain` milliseconds that begin with `from`.
    fn coverage(&self, from: Timestamp, to: Timestamp, grain: i64) -> Result<Vec<CoverageRow>, NoAnswer>;

    /// What arrived from then on, by the detectors' clocks: by stretches of `grain` milliseconds that begin with `from`.
    fn activity(&self, from: Timestamp, grain: i64) -> Result<Vec<ActivityRow>, NoAnswer>;

    /// The last heartbeat of every partition.
    fn status(&self) -> Result<Vec<StatusRow>, NoAnswer>;

    /// The conditions that the detectors hold, degrading ones first.
    fn conditions(&self) -> Result<Vec<ConditionRow>, NoAnswer>;

    /// What a settings' hash stands for, as names and values; `None` when it is not known.
    fn settings(&self, hash: &str) -> Result<Option<Vec<(String, String)>>, NoAnswer>;

    /// How many rows the table of anomalies refused from `since` on.
    fn refused(&self, since: Timestamp) -> Result<u64, NoAnswer>;

    /// At most `limit` rejected records of the detectors' samples, newest first.
    fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, NoAnswer>;

    /// Whether a device of exactly this name sends, as far as the detectors have said.
    fn knows(&self, device: &str) -> Result<Known, NoAnswer>;

    /// At most `limit` devices that have anomalies and this text in their names, whatever its case, in the order of names.
    fn search(&self, text: &str, limit: u32) -> Result<Vec<String>, NoAnswer>;

    /// The database's clock.
    fn clock(&self) -> Result<Timestamp, NoAnswer>;
}

/// Reviews: reads and adds them. Every call may block.
///
/// # Errors
/// All calls return [`NoAnswer`].
pub trait ReviewQueries {
    /// All reviews of one anomaly, newest first.
    fn reviews_of(&self, id: &AnomalyId) -> Result<Vec<ReviewRecord>, NoAnswer>;

    /// Adds a review; `false` when there is no such anomaly.
    fn add_review(&self, review: &NewReview) -> Result<bool, NoAnswer>;

    /// Reviews in a range of event time: how many anomalies have each, by their newest reviews. `None` is not among them.
    fn reviews(&self, from: Timestamp, to: Timestamp) -> Result<Vec<(Review, u64)>, NoAnswer>;

    /// How good the detection was, day by day.
    fn quality(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Quality>, NoAnswer>;
}

/// The store of recorded anomalies. Every call may block.
///
/// # Errors
/// All calls return [`NoAnswer`].
pub trait Archive: AnomalyQueries + CountQueries + ReportQueries + ReviewQueries + Send + Sync {
    /// Whether it answers at all.
    fn ping(&self) -> Result<(), NoAnswer>;

    /// How far the sinks are.
    fn position(&self) -> Result<Cursor, NoAnswer>;

    /// A follower, connected.
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
            partition: 3,
            offset: 184_467,
            index: 0,
            kind: "point".into(),
        };
        assert_eq!(key.to_string(), "1795455739123.3.184467.0.point.raw.events.v2");
        assert_eq!(PageKey::parse(&key.to_string()), Some(key));
    }

    #[test]
    fn what_is_not_a_key_is_none() {
        for text in
            ["", "1", "x.3.1.0.point.t", "1.3.1.0.point.", "1.3.1.0..t", "1.99999999999.1.0.point.t", "1.3.1.0.p\0.t"]
        {
            assert_eq!(PageKey::parse(text), None, "{text:?}");
        }
    }
}
