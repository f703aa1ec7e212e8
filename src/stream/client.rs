//! The traits between the loops and Kafka: one consumer of a group, and one with a producer beside it, in terms that a
//! simulated log can serve too. Blocking; one thread.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::progress::{Progress, ProgressByPartition};
pub use crate::event::Headers;
use crate::event::RawRecord;
use crate::stop::Stop;

/// Next offset of each partition.
pub type Positions = BTreeMap<i32, i64>;

/// Offsets of each partition, from the first to before the last.
pub type OffsetRanges = BTreeMap<i32, Range<i64>>;

/// One record, borrowed from the client.
#[derive(Clone, Copy)]
pub struct ConsumedRecord<'a> {
    /// Its place in the partition.
    pub offset: i64,
    /// Its own time, milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// Bytes, or null.
    pub key: Option<&'a [u8]>,
    /// Bytes, or null.
    pub value: Option<&'a [u8]>,
    /// Read only when they are asked for, which costs as much as all the rest.
    pub headers: &'a dyn Headers,
}

impl<'a> ConsumedRecord<'a> {
    /// The parts that an event can be in.
    pub fn input(&self) -> RawRecord<'a> {
        RawRecord { key: self.key, value: self.value, headers: self.headers }
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        [self.key, self.value].map(|part| part.map_or(0, <[u8]>::len)).iter().sum()
    }
}

/// A record to send.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingRecord {
    /// Where to.
    pub output: OutputTopic,
    /// Bytes, or null.
    pub key: Option<Vec<u8>>,
    /// Bytes, or null.
    pub value: Option<Vec<u8>>,
    /// In order; a value may be null.
    pub headers: Vec<(Cow<'static, str>, Option<Vec<u8>>)>,
}

impl OutgoingRecord {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        [&self.key, &self.value].map(|part| part.as_ref().map_or(0, Vec::len)).iter().sum::<usize>()
            + headers.sum::<usize>()
    }
}

/// Where the group stands in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommittedOffset {
    /// As committed.
    At(Progress),
    /// Nowhere: the group is beginning.
    New,
    /// Nowhere: the topic got this partition after the group had begun.
    Added,
    /// At an offset that another program has committed in our group: there is no progress of ours beside it.
    Foreign(i64),
}

/// The topics that the loop writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputTopic {
    /// `anomalies`
    Anomalies,
    /// `raw_events_dlq`
    DeadLetters,
    /// This partition of `anomaly_state`.
    State(i32),
}

/// What can be read back outside the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryTopic {
    /// `raw_events`
    Input,
    /// `anomaly_state`
    State,
}

/// What tells the input topic from another one of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// As the cluster names it; a topic made anew has another one. `None` where the cluster does not tell.
    pub id: Option<String>,
    /// Its partitions.
    pub partitions: i32,
}

/// What other programs do in the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignCommits {
    /// Partitions whose committed offset has no progress of ours beside it, with that offset.
    pub commits: Positions,
    /// Members of the group that are not detectors: client id and host.
    pub members: Vec<String>,
}

/// The group gave or took partitions; told in order, eager protocol: all of them each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentChange {
    /// Must be answered with [`GroupConsumer::assign`].
    Assigned(Vec<i32>),
    /// Must be answered with [`GroupConsumer::unassign`].
    Revoked(Vec<i32>),
}

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The same call again, with the same arguments.
    Retry,
    /// Abort the transaction, rewind, go on.
    Abort,
    /// The outcome is unknown, or the client is fenced or broken: make everything anew from the committed offsets.
    Rebuild,
    /// Another process may have our place, by our name: if it is there to stay, leave it the place, for good.
    Yield,
    /// Only a person can help; the message says how.
    Stop,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What to do.
    pub remedy: Remedy,
    /// For people.
    pub message: String,
    /// A record was larger than its topic takes.
    pub is_too_large: bool,
}

impl Fault {
    /// A fault with its remedy.
    pub fn new(remedy: Remedy, message: impl fmt::Display) -> Self {
        Fault { remedy, message: message.to_string(), is_too_large: false }
    }

    /// Of something that cannot be taken up again where it failed.
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

/// Sees the records of one partition, in offset order.
pub type RecordVisitor<'v> = dyn FnMut(i32, &[ConsumedRecord<'_>]) + 'v;

/// One consumer of a group. Every call may fail with a [`Fault`].
#[allow(clippy::missing_errors_doc)]
pub trait GroupConsumer {
    /// Time since some fixed moment, never running backwards.
    fn now(&self) -> Duration;

    /// Lets time pass before a call is repeated.
    fn sleep(&mut self, time: Duration);

    /// Asks to join the group.
    fn join(&mut self) -> Result<(), Fault>;

    /// Why the cluster cannot be used, while it cannot.
    fn trouble(&self) -> Option<String>;

    /// Waits at most `wait` for the first record, then hands over at most `most` that are there, by partition.
    /// Returns their number; none may also mean that the group changed. With a `most` of 0 it only stays in the group, and waits
    /// for a change.
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault>;

    /// Whether a change waits.
    fn has_change(&self) -> bool;

    /// The oldest unanswered change, found by `poll`.
    fn change(&mut self) -> Option<AssignmentChange>;

    /// Takes the partitions at these offsets, paused.
    fn assign(&mut self, at: &Positions) -> Result<(), Fault>;

    /// Gives all partitions back.
    fn unassign(&mut self) -> Result<(), Fault>;

    /// Lets records of these assigned partitions come, from where they were assigned.
    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault>;

    /// First offset that is there, and the one after the last.
    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault>;

    /// The topic's id, by which a topic is told from a later one of the same name. `None` when it cannot be known: the broker is
    /// too old for ids, or gave no answer.
    fn topic_id(&mut self) -> Option<String>;

    /// Ends of what can be read of the partitions, as far as they are known without asking.
    fn ends(&self) -> Positions;

    /// Ends of the partitions with the records of open transactions, as far as they are known without asking.
    fn highs(&self) -> Positions;

    /// Partitions that were read to their end, with the offset of that end. Every record before it was handed over by `poll`;
    /// what else lies before it are control records and records of aborted transactions. Never past an open transaction.
    fn reached(&self) -> Positions;
}

/// A consumer of a group with a producer whose transactions carry its offsets.
#[allow(clippy::missing_errors_doc)]
pub trait TransactionalClient: GroupConsumer {
    /// Makes the producer ready.
    fn open(&mut self) -> Result<(), Fault>;

    /// Whether the group took the partitions without asking.
    fn is_assignment_lost(&self) -> bool;

    /// Moves assigned partitions to these offsets; each must have moved.
    fn seek(&mut self, to: &Positions) -> Result<(), Fault>;

    /// Where the group stands, after all transactions that are under way.
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, CommittedOffset>, Fault>;

    /// What other programs do in the group, as it was seen last, without asking.
    fn foreign(&self) -> ForeignCommits;

    /// Offsets that are there, of all these partitions with one question: of the input before the first open transaction, of
    /// `anomaly_state` all.
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault>;

    /// What the input topic is.
    fn identity(&mut self) -> Result<TopicIdentity, Fault>;

    /// First offsets that are there, as far as they are known without asking.
    fn starts(&self) -> Positions;

    /// Starts reading partitions outside the group, all of them at once, each within its range, which is not empty. A partition
    /// with a transaction that is open before the end of its range waits for that, while the others go on.
    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault>;

    /// Hands over the next records of some of these partitions, each in order. Returns the next offset of each partition that
    /// moved on; at the end of its range it is that end, and the partition is done.
    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault>;

    /// No history is needed for now.
    fn close_history(&mut self);

    /// Opens a transaction.
    fn begin(&mut self) -> Result<(), Fault>;

    /// Queues a record in the open transaction.
    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault>;

    /// Commits what was sent together with these marks. After `Retry` call it again with the same marks.
    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault>;

    /// Aborts the open transaction.
    fn abort(&mut self) -> Result<(), Fault>;

    /// Whether another process has taken this member's place by its name: asked after a fault, when nothing goes on;
    /// `is_fenced` when the group said so. May wait for as long as it takes to tell another from a trace of ourselves.
    fn is_replaced(&mut self, is_fenced: bool, stop: &Stop) -> bool;

    /// Leaves the group; returns when it is done, or after `limit`.
    fn leave(&mut self, limit: Duration);
}
