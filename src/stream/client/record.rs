//! Records as the loops read and send them.

use std::borrow::Cow;

pub(crate) use crate::event::Headers;
use crate::event::RawRecord;

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

    /// Returns the size of key and value in bytes.
    pub(crate) fn size(&self) -> usize {
        [self.key, self.value].map(|part| part.map_or(0, <[u8]>::len)).iter().sum()
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
pub(crate) type RecordVisitor<'v> = dyn FnMut(i32, &[ConsumedRecord<'_>]) + 'v;
