//! What the sink needs of a database: where each partition of topic `anomalies` stands, and one step that stores rows
//! and moves on, or does neither.

use std::collections::BTreeMap;
use std::fmt;

use crate::anomaly::Anomaly;
use crate::event::Timestamp;
use crate::unavailable::Unavailable;

/// One record of topic `anomalies`.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkRecord {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the topic.
    pub offset: i64,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came.
    pub value: Vec<u8>,
    /// When the detector published it.
    pub detected_at: Timestamp,
    /// Decoded, or why not.
    pub anomaly: Result<Anomaly, String>,
}

/// Where a partition stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPosition {
    /// Offset of the next record to store.
    pub next: i64,
    /// The id of the topic that the offset belongs to; `None` when it was not known.
    pub topic_id: Option<String>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrittenBatch {
    /// New rows.
    pub inserted: u64,
    /// Rows that were there already, equal in every column.
    pub present: u64,
    /// Records that the table refuses; kept in `sink_rejects`.
    pub rejected: u64,
}

/// Records that the table refused and that nobody has dealt with yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenRejects {
    /// How many, counted up to [`OpenRejects::MOST`].
    pub count: u64,
    /// The newest one: its place in the topic and the reason.
    pub last: String,
}

impl OpenRejects {
    /// More are not counted.
    pub const MOST: u64 = 100_000;
}

/// Why a batch was not written; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerError {
    /// The database cannot be reached: wait and try again.
    Unavailable(Unavailable),
    /// The database is too slow or refuses, as this sentence says: a person may have to act, and then it is tried again.
    Failed(String),
    /// Another process has moved the partition on: read the positions again.
    Moved,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Unavailable(unavailable) => unavailable.fmt(f),
            LedgerError::Failed(why) => f.write_str(why),
            LedgerError::Moved => f.write_str("another sink is moving the partition on"),
        }
    }
}

/// The database, as the sink sees it.
pub trait Ledger: Send {
    /// Where these partitions stand; one that was never written is missing.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] and [`LedgerError::Failed`].
    fn positions(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, LedgerPosition>, LedgerError>;

    /// Sets the position of a partition that has none yet.
    ///
    /// # Errors
    /// As [`positions`](Self::positions).
    fn begin(&mut self, partition: i32, at: &LedgerPosition) -> Result<(), LedgerError>;

    /// Notes the topic's id for these partitions, where none is noted yet.
    ///
    /// # Errors
    /// As [`positions`](Self::positions).
    fn note_topic_id(&mut self, partitions: &[i32], topic_id: &str) -> Result<(), LedgerError>;

    /// Stores the entries and moves each partition from its old to its new offset, all or nothing.
    ///
    /// # Errors
    /// Nothing was stored.
    fn write(&mut self, entries: &[SinkRecord], moves: &BTreeMap<i32, (i64, i64)>)
    -> Result<WrittenBatch, LedgerError>;

    /// Records that were refused and are kept.
    ///
    /// # Errors
    /// As [`positions`](Self::positions).
    fn rejects(&mut self) -> Result<OpenRejects, LedgerError>;
}
