//! The database as the sink needs it: the stored position of each partition of topic `anomalies`, and one atomic step.
//! The step either stores rows and advances the positions, or does neither.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::anomaly::Anomaly;
use crate::event::Timestamp;
use crate::unavailable::Unavailable;

/// One record of topic `anomalies`.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkRecord {
    /// Partition of the topic `anomalies`.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// Key of the record, unchanged.
    pub key: Option<Vec<u8>>,
    /// Value of the record, unchanged.
    pub value: Vec<u8>,
    /// Time of the record.
    pub detected_at: Timestamp,
    /// The decoded anomaly, or why it cannot be decoded.
    pub anomaly: Result<Anomaly, String>,
}

/// Stored position of a partition in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPosition {
    /// Offset of the next record to store.
    pub next: i64,
    /// Id of the topic that the offset belongs to; `None` if it was unknown.
    pub topic_id: Option<String>,
}

/// Result of writing a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrittenBatch {
    /// Number of new rows.
    pub inserted: u64,
    /// Number of rows that existed already, equal in every column.
    pub present: u64,
    /// Number of records that the table refuses, which are stored in `sink_rejects`.
    pub rejected: u64,
}

/// Records that the table refused and that no person has dealt with yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenRejects {
    /// Number of records, counted up to [`OpenRejects::MAX_COUNT`].
    pub count: u64,
    /// The newest record: its position in the topic and the reason.
    pub last: String,
}

impl OpenRejects {
    /// Maximum count; further records are not counted.
    pub const MAX_COUNT: u64 = 100_000;
}

/// Reason why a batch was not written at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerError {
    /// The database cannot be reached. The sink waits and retries.
    Unavailable(Unavailable),
    /// The database cancelled a statement that took too long, with the reason as a sentence. Fewer records at once may
    /// succeed.
    Slow(String),
    /// The database refuses, with the reason as a sentence. A person may have to act; the sink retries.
    Failed(String),
    /// Another process has advanced the partition. The sink reads the positions again.
    Moved,
}

impl LedgerPosition {
    /// Returns whether the offset belongs to the topic with this id, which ends at `end`. An id that is unknown on either
    /// side is no difference.
    #[must_use]
    pub fn is_in(&self, topic_id: Option<&str>, end: i64) -> bool {
        self.topic_id.as_deref().zip(topic_id).is_none_or(|(then, now)| then == now) && self.next <= end
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Unavailable(unavailable) => unavailable.fmt(f),
            LedgerError::Slow(why) | LedgerError::Failed(why) => f.write_str(why),
            LedgerError::Moved => f.write_str("another sink is moving the partition on"),
        }
    }
}

/// The database, as the sink uses it.
pub trait Ledger: Send {
    /// Returns the positions of these partitions, without those that were never written.
    ///
    /// # Errors
    /// Fails with [`LedgerError::Unavailable`], [`LedgerError::Slow`] or [`LedgerError::Failed`].
    fn positions(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, LedgerPosition>, LedgerError>;

    /// Sets the position of a partition that has none yet.
    ///
    /// # Errors
    /// Fails as [`positions`](Self::positions) does.
    fn begin(&mut self, partition: i32, at: &LedgerPosition) -> Result<(), LedgerError>;

    /// Stores the topic's id for these partitions, if none is stored yet.
    ///
    /// # Errors
    /// Fails as [`positions`](Self::positions) does.
    fn note_topic_id(&mut self, partitions: &[i32], topic_id: &str) -> Result<(), LedgerError>;

    /// Accepts that the topic was recreated or cut: each partition whose position is not in this topic continues at its
    /// first offset, with the next generation. `bounds` has the offsets of the topic. Returns the earlier positions of the
    /// partitions that changed.
    ///
    /// # Errors
    /// Fails as [`positions`](Self::positions) does.
    fn accept(
        &mut self,
        topic_id: Option<&str>,
        bounds: &BTreeMap<i32, Range<i64>>,
    ) -> Result<BTreeMap<i32, i64>, LedgerError>;

    /// Stores the records and advances each partition from its old to its new offset, all or nothing.
    ///
    /// # Errors
    /// Fails as [`positions`](Self::positions) does, or with [`LedgerError::Moved`]. Nothing was stored then.
    fn write(&mut self, entries: &[SinkRecord], moves: &BTreeMap<i32, (i64, i64)>)
    -> Result<WrittenBatch, LedgerError>;

    /// Returns the refused records that are still stored.
    ///
    /// # Errors
    /// Fails as [`positions`](Self::positions) does.
    fn rejects(&mut self) -> Result<OpenRejects, LedgerError>;
}
