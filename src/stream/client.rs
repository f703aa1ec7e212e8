//! The traits between the loops and Kafka: a consumer of a group, and one with a transactional producer. A simulated
//! log can implement them too. Calls block; each client belongs to one thread.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::progress::{Progress, ProgressByPartition};
pub use crate::event::Headers;
use crate::event::RawRecord;
use crate::stop::Stop;

/// The next offset of each partition.
pub type Positions = BTreeMap<i32, i64>;

/// Range of offsets of each partition, without its end.
pub type OffsetRanges = BTreeMap<i32, Range<i64>>;

/// A consumed record, borrowed from the client.
#[derive(Clone, Copy)]
pub struct ConsumedRecord<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// The record's own time, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Key; may be null.
    pub key: Option<&'a [u8]>,
    /// Value; may be null.
    pub value: Option<&'a [u8]>,
    /// Headers, read only on demand, because reading them costs as much as everything else.
    pub headers: &'a dyn Headers,
}

impl<'a> ConsumedRecord<'a> {
    /// Returns the parts from which an event is decoded.
    pub fn input(&self) -> RawRecord<'a> {
        RawRecord { key: self.key, value: self.value, headers: self.headers }
    }

    /// Returns the bytes of key and value.
    pub fn size(&self) -> usize {
        [self.key, self.value].map(|part| part.map_or(0, <[u8]>::len)).iter().sum()
    }
}

/// A record to send.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingRecord {
    /// Destination.
    pub output: OutputTopic,
    /// Key; may be null.
    pub key: Option<Vec<u8>>,
    /// Value; may be null.
    pub value: Option<Vec<u8>>,
    /// Headers, in order; a value may be null.
    pub headers: Vec<(Cow<'static, str>, Option<Vec<u8>>)>,
}

impl OutgoingRecord {
    /// Returns the bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        [&self.key, &self.value].map(|part| part.as_ref().map_or(0, Vec::len)).iter().sum::<usize>()
            + headers.sum::<usize>()
    }
}

/// The committed state of the group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommittedOffset {
    /// The committed progress.
    At(Progress),
    /// None: the group begins.
    New,
    /// None: the partition was added to the topic after the group had begun.
    Added,
    /// An offset that another program has committed in this group, without progress.
    Foreign(i64),
}

/// The topics that the loop writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTopic {
    /// Topic `anomalies`.
    Anomalies,
    /// Topic `raw_events_dlq`.
    DeadLetters,
    /// This partition of topic `anomaly_state`.
    State(i32),
}

/// The topics that can be read outside the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryTopic {
    /// Topic `raw_events`.
    Input,
    /// Topic `anomaly_state`.
    State,
}

/// Properties that distinguish the input topic from another one with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// Id of the topic in the cluster; a recreated topic has another id. `None` if the cluster does not return it.
    pub id: Option<String>,
    /// Number of partitions.
    pub partitions: i32,
}

/// Activity of other programs in the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignCommits {
    /// Partitions whose committed offset has no progress of a detector, with that offset.
    pub commits: Positions,
    /// Members of the group that are not detectors, each as client id and host.
    pub members: Vec<String>,
}

/// The group assigned or revoked partitions; reported in order. Eager protocol: always all partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentChange {
    /// Answer with [`GroupConsumer::assign`].
    Assigned(Vec<i32>),
    /// Answer with [`GroupConsumer::unassign`].
    Revoked(Vec<i32>),
}

/// Remedy for a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Repeat the call with the same arguments.
    Retry,
    /// Abort the transaction, rewind and continue.
    Abort,
    /// The outcome is unknown, or the client is fenced or broken: rebuild everything from the committed offsets.
    Rebuild,
    /// Another process may have this member's place, under the same name. If it keeps it, give the place up.
    Yield,
    /// Stop: an operator must act. The message says how.
    Stop,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The remedy.
    pub remedy: Remedy,
    /// Message for people.
    pub message: String,
    /// Whether a record was larger than its topic accepts.
    pub is_too_large: bool,
}

impl Fault {
    /// Creates a fault with its remedy.
    pub fn new(remedy: Remedy, message: impl fmt::Display) -> Self {
        Fault { remedy, message: message.to_string(), is_too_large: false }
    }

    /// Changes the remedy of a fault in a call that cannot be repeated: rebuild.
    pub fn or_rebuild(self) -> Self {
        match self.remedy {
            Remedy::Stop | Remedy::Yield => self,
            _ => Fault { remedy: Remedy::Rebuild, ..self },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Receives the records of one partition, in offset order.
pub type RecordVisitor<'v> = dyn FnMut(i32, &[ConsumedRecord<'_>]) + 'v;

/// A consumer of a group. Every call may fail with a [`Fault`].
#[allow(clippy::missing_errors_doc)]
pub trait GroupConsumer {
    /// Returns the time since some fixed moment; it never decreases.
    fn now(&self) -> Duration;

    /// Waits before a call is repeated.
    fn sleep(&mut self, time: Duration);

    /// Joins the group.
    fn join(&mut self) -> Result<(), Fault>;

    /// Returns why the cluster is currently unavailable.
    fn trouble(&self) -> Option<String>;

    /// Waits at most `wait` for the first record, then passes at most `most` available ones, by partition. Returns
    /// their number; 0 may also mean that the group changed. With `most` 0 it only stays in the group and waits for a
    /// change.
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault>;

    /// Returns whether a change waits.
    fn has_change(&self) -> bool;

    /// Returns the oldest unanswered change, found by `poll`.
    fn change(&mut self) -> Option<AssignmentChange>;

    /// Accepts the partitions at these offsets, paused.
    fn assign(&mut self, at: &Positions) -> Result<(), Fault>;

    /// Gives up all partitions.
    fn unassign(&mut self) -> Result<(), Fault>;

    /// Resumes these assigned partitions at their assigned offsets.
    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault>;

    /// Returns the first available offset, and the offset after the last.
    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault>;

    /// Returns the topic's id, which distinguishes it from a recreated topic of the same name. `None` if it is unknown:
    /// the broker is too old for ids, or did not answer.
    fn topic_id(&mut self) -> Option<String>;

    /// Returns the ends of the readable parts of the partitions, if known without a request.
    fn ends(&self) -> Positions;

    /// Returns the ends of the partitions including open transactions, if known without a request.
    fn highs(&self) -> Positions;

    /// Returns partitions that were read to their end, with the offset of that end. `poll` has passed every record
    /// before it. The other offsets before it are control records and records of aborted transactions. It is never
    /// beyond an open transaction.
    fn reached(&self) -> Positions;
}

/// A consumer of a group with a producer whose transactions contain the consumer's offsets.
#[allow(clippy::missing_errors_doc)]
pub trait TransactionalClient: GroupConsumer {
    /// Initialises the producer.
    fn open(&mut self) -> Result<(), Fault>;

    /// Returns whether the group revoked the partitions without asking.
    fn is_assignment_lost(&self) -> bool;

    /// Moves assigned partitions to these offsets, or fails.
    fn seek(&mut self, to: &Positions) -> Result<(), Fault>;

    /// Returns the committed state of each partition, after all transactions in progress.
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, CommittedOffset>, Fault>;

    /// Returns the last known activity of other programs in the group, without a request.
    fn foreign(&self) -> ForeignCommits;

    /// Returns the available offsets of all these partitions with one request: those of the input before the first open
    /// transaction, and all of `anomaly_state`.
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault>;

    /// Returns the identity of the input topic.
    fn identity(&mut self) -> Result<TopicIdentity, Fault>;

    /// Returns the first available offsets, if known without a request.
    fn starts(&self) -> Positions;

    /// Starts to read partitions outside the group, all at once, each within its range, which is not empty. A partition
    /// with an open transaction before the end of its range waits for it, while the others continue.
    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault>;

    /// Passes the next records of some of these partitions, each in order. Returns the next offset of each partition
    /// that advanced. At the end of its range the partition is complete.
    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault>;

    /// Ends reading outside the group.
    fn close_history(&mut self);

    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), Fault>;

    /// Queues a record in the open transaction.
    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault>;

    /// Commits the sent records together with this progress. After `Retry` call it again with the same progress.
    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault>;

    /// Aborts the open transaction.
    fn abort(&mut self) -> Result<(), Fault>;

    /// Returns whether another process has taken this member's place under the same name. Called after a fault;
    /// `is_fenced` if the group reported it. It may block until it can distinguish another process from an earlier
    /// connection of this one.
    fn is_replaced(&mut self, is_fenced: bool, stop: &Stop) -> bool;

    /// Leaves the group; returns when this is done, or after `limit`.
    fn leave(&mut self, limit: Duration);
}
