//! Records as the loops read and send them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

pub(crate) use crate::event::Headers;
use crate::event::RawRecord;
use crate::stream::progress::LastRecord;

/// A consumed record, borrowed from the client.
#[derive(Clone, Copy)]
pub(crate) struct ConsumedRecord<'a> {
    /// Offset of the record in its partition.
    pub offset: i64,
    /// Time of the record itself, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Key of the record; it may be null.
    pub key: Option<&'a [u8]>,
    /// Value of the record; it may be null.
    pub value: Option<&'a [u8]>,
    /// Headers, read only on demand, because reading them costs as much as everything else.
    pub headers: &'a dyn Headers,
}

impl<'a> ConsumedRecord<'a> {
    /// Returns the parts from which an event is decoded.
    pub(crate) fn input(&self) -> RawRecord<'a> {
        RawRecord { key: self.key, value: self.value, headers: self.headers }
    }

    /// Returns what is noted of the record if it is the last one with an outcome.
    pub(crate) fn note(&self) -> LastRecord {
        LastRecord::new(self.offset, self.timestamp, self.key, self.value)
    }

    /// Returns the size of key and value in bytes.
    pub(crate) fn size(&self) -> usize {
        [self.key, self.value].map(|part| part.map_or(0, <[u8]>::len)).iter().sum()
    }
}

/// Maximum number of bytes to which a compressed batch may expand.
pub(crate) const MAX_BATCH_BYTES: usize = 64 << 20;
/// Maximum number of records of a compressed batch.
pub(crate) const MAX_BATCH_RECORDS: i32 = 250_000;

/// A compressed batch that exceeds a limit, so that its records are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OversizedBatch {
    /// Offsets of the batch.
    pub offsets: Range<i64>,
    /// Number of its records.
    pub records: u64,
    /// Size of its compressed records in bytes.
    pub packed: u64,
}

impl OversizedBatch {
    /// Returns the number of its records from an offset on. Without compaction each offset has a record.
    pub(crate) fn count_from(&self, offset: i64) -> u64 {
        (self.offsets.end - offset.max(self.offsets.start)).max(0).unsigned_abs().min(self.records)
    }
}

impl fmt::Display for OversizedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OversizedBatch { offsets, records, packed } = self;
        let (first, last, limit) = (offsets.start, offsets.end - 1, MAX_BATCH_BYTES >> 20);
        write!(
            f,
            "the batch of offsets {first} to {last} has {records} records in {packed} compressed bytes, and exceeds a limit: \
             {limit} MiB of records, or {MAX_BATCH_RECORDS} records"
        )
    }
}

/// What a client passes to a visitor.
#[derive(Clone, Copy)]
pub(crate) enum Consumed<'r> {
    /// Records, in offset order.
    Records(&'r [ConsumedRecord<'r>]),
    /// A batch of the input whose records are not read. Only readers of the input get it: batches of the other topics
    /// count as unreadable.
    Oversized(&'r OversizedBatch),
}

impl<'r> Consumed<'r> {
    /// Returns the records; none for an oversized batch.
    pub(crate) fn records(self) -> &'r [ConsumedRecord<'r>] {
        match self {
            Consumed::Records(records) => records,
            Consumed::Oversized(_) => &[],
        }
    }
}

/// A record to send in a transaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutgoingRecord {
    /// Topic to send the record to.
    pub output: OutputTopic,
    /// Key of the record; it may be null.
    pub key: Option<Vec<u8>>,
    /// Value of the record; it may be null.
    pub value: Option<Vec<u8>>,
    /// Time of the record, in milliseconds since the epoch; `None` for the time of sending.
    pub timestamp: Option<i64>,
    /// Headers, in order; a value may be null.
    pub headers: Vec<(Cow<'static, str>, Option<Vec<u8>>)>,
}

impl OutgoingRecord {
    /// Returns the size of key, value and headers in bytes.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        [&self.key, &self.value].map(|part| part.as_ref().map_or(0, Vec::len)).iter().sum::<usize>()
            + headers.sum::<usize>()
    }
}

/// The topics that are written in transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputTopic {
    /// The topic `anomalies`, for the sink.
    Anomalies,
    /// The topic `raw_events_dlq`, for rejected records.
    DeadLetters,
    /// This partition of the topic `anomaly_state`.
    State(i32),
    /// Any topic by its name; without a partition, the key decides.
    Named {
        /// Name of the topic.
        topic: String,
        /// Partition of the topic.
        partition: Option<i32>,
    },
}

/// Receives the records of one partition, in offset order.
pub(crate) type RecordVisitor<'v> = dyn FnMut(i32, Consumed<'_>) + 'v;
