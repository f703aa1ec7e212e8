//! A client that records which methods of the traits were called. The same macro creates the list of all methods and
//! the implementation, which the compiler compares with the traits. So a new method that the script does not call is
//! detected.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use crate::stop::Stop;
use crate::stream::client::{
    AssignmentChange, AssignmentReading, ClusterConnection, CommittedOffset, Fault, ForeignCommits,
    GroupAdministration, GroupMembership, HistoryReader, HistoryTopic, OffsetRanges, OutgoingRecord, Positions,
    ReadFailures, RecordFetch, RecordVisitor, TopicAdministration, TopicIdentity, TransactionalClient,
    TransactionalProducer,
};
use crate::stream::progress::ProgressByPartition;

/// Names of the called methods, as `Trait::method`.
#[derive(Debug, Default, Clone)]
pub(super) struct CalledMethods(Rc<RefCell<BTreeSet<&'static str>>>);

impl CalledMethods {
    /// Returns the methods that were not called.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let called = self.0.borrow();
        METHODS.iter().copied().flatten().copied().filter(|method| !called.contains(method)).collect()
    }
}

/// A client whose calls are recorded.
pub(super) struct RecordingClient {
    client: Box<dyn TransactionalClient>,
    called: CalledMethods,
}

impl RecordingClient {
    pub(super) fn new(client: Box<dyn TransactionalClient>, called: &CalledMethods) -> Self {
        RecordingClient { client, called: called.clone() }
    }
}

/// Implements each trait, with the name of every method in [`METHODS`]. `ref` methods take `&self`, `mut` methods
/// `&mut self`.
macro_rules! recorded {
    ($($trait:ident {
        ref: $(fn $r:ident($($ra:ident: $rt:ty),*) -> $rr:ty;)*
        mut: $(fn $m:ident($($ma:ident: $mt:ty),*) $(-> $mr:ty)?;)*
    })*) => {
        const METHODS: &[&[&str]] = &[$(&[
            $(concat!(stringify!($trait), "::", stringify!($r)),)*
            $(concat!(stringify!($trait), "::", stringify!($m)),)*
        ]),*];

        $(impl $trait for RecordingClient {
            $(fn $r(&self $(, $ra: $rt)*) -> $rr {
                self.called.0.borrow_mut().insert(concat!(stringify!($trait), "::", stringify!($r)));
                self.client.$r($($ra),*)
            })*
            $(fn $m(&mut self $(, $ma: $mt)*) $(-> $mr)? {
                self.called.0.borrow_mut().insert(concat!(stringify!($trait), "::", stringify!($m)));
                self.client.$m($($ma),*)
            })*
        })*
    };
}

recorded! {
    ClusterConnection {
        ref:
            fn now() -> Duration;
            fn trouble() -> Option<String>;
        mut:
            fn sleep(time: Duration);
    }
    GroupMembership {
        ref:
            fn has_change() -> bool;
            fn is_assignment_lost() -> bool;
        mut:
            fn subscribe() -> Result<(), Fault>;
            fn next_change() -> Option<AssignmentChange>;
            fn assign(at: &Positions) -> Result<(), Fault>;
            fn unassign() -> Result<(), Fault>;
            fn rejoin() -> Result<(), Fault>;
            fn leave(limit: Duration);
    }
    RecordFetch {
        ref:
            fn starts() -> Positions;
            fn ends() -> Positions;
            fn highs() -> Positions;
            fn reached() -> Positions;
            fn failures() -> ReadFailures;
        mut:
            fn poll(wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault>;
            fn resume(partitions: &[i32]) -> Result<(), Fault>;
            fn seek(to: &Positions) -> Result<(), Fault>;
            fn skip(partition: i32) -> Result<Option<Range<i64>>, Fault>;
            fn bounds(partition: i32) -> Result<(i64, i64), Fault>;
    }
    TopicAdministration {
        ref:
        mut:
            fn identity() -> Result<TopicIdentity, Fault>;
            fn partitions() -> Result<i32, Fault>;
            fn topic_id() -> Option<String>;
    }
    GroupAdministration {
        ref:
            fn foreign() -> ForeignCommits;
            fn assignment() -> Option<AssignmentReading>;
        mut:
            fn committed(partitions: &[i32]) -> Result<BTreeMap<i32, CommittedOffset>, Fault>;
            fn is_replaced(is_fenced: bool, stop: &Stop) -> bool;
    }
    HistoryReader {
        ref:
            fn history_failures() -> ReadFailures;
        mut:
            fn bounds_of(of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault>;
            fn cleanup_policy(of: HistoryTopic) -> Result<Option<String>, Fault>;
            fn open_history(of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault>;
            fn read_history(visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault>;
            fn skip_history(partition: i32) -> Result<Option<Range<i64>>, Fault>;
            fn close_history();
    }
    TransactionalProducer {
        ref:
        mut:
            fn init_transactions() -> Result<(), Fault>;
            fn begin() -> Result<(), Fault>;
            fn send(record: OutgoingRecord) -> Result<(), Fault>;
            fn flush() -> Result<(), Fault>;
            fn commit(next: &ProgressByPartition) -> Result<(), Fault>;
            fn abort() -> Result<(), Fault>;
    }
}
