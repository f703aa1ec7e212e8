//! The traits between the loops and Kafka. Each covers one purpose: membership in the group, fetch of records, history
//! outside the group, transactions, and administration. A simulated log implements them too. A part of a loop requires
//! only the traits that it uses. Calls block; each client belongs to one thread.

mod administration;
mod cluster;
mod connection;
mod failure;
mod fault;
mod fetch;
mod history;
mod membership;
mod offsets;
mod record;
mod transactions;

pub(crate) use administration::{
    AssignmentReading, ForeignCommits, GroupAdministration, GroupAssignment, GroupOwners, OwnerObserver,
    TopicAdministration, TopicIdentity,
};
pub(crate) use cluster::{ClusterAdministration, NewTopicRequest, TopicConfig};
pub(crate) use connection::{ClusterConnection, insist};
pub(crate) use failure::{ReadFailure, ReadFailures};
pub(crate) use fault::{Fault, Remedy};
pub(crate) use fetch::RecordFetch;
pub(crate) use history::{HistoryReader, HistoryTopic, ReadLimits, read_to_end};
pub(crate) use membership::{AssignmentChange, GroupMembership};
pub(crate) use offsets::{CommittedOffset, OffsetRanges, Positions};
pub(crate) use record::{
    Consumed, ConsumedRecord, Headers, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, OutgoingRecord, OutputTopic, OversizedBatch,
    RecordVisitor,
};
pub(crate) use transactions::TransactionalProducer;

/// All traits that the sink needs: a member of a group that reads one topic.
pub(crate) trait GroupConsumer: GroupMembership + RecordFetch + TopicAdministration {}

impl<T: GroupMembership + RecordFetch + TopicAdministration> GroupConsumer for T {}

/// All traits that a worker needs: a member of a group, with a transactional producer and the group's history.
pub(crate) trait TransactionalClient:
    GroupConsumer + GroupAdministration + HistoryReader + TransactionalProducer
{
}

impl<T: GroupConsumer + GroupAdministration + HistoryReader + TransactionalProducer> TransactionalClient for T {}
