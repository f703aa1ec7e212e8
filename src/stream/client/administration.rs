//! Requests about the topic and about the group, outside of the flow of records.

use std::collections::{BTreeMap, BTreeSet};

use super::connection::ClusterConnection;
use super::fault::Fault;
use super::offsets::{CommittedOffset, Positions};
use crate::stop::Stop;

/// Properties that distinguish the input topic from another one with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicIdentity {
    /// Id of the topic in the cluster; a recreated topic has another id. `None` if the cluster does not return it.
    pub id: Option<String>,
    /// Number of partitions of the topic.
    pub partitions: i32,
}

/// Activity of other programs in the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForeignCommits {
    /// Partitions whose committed offset has no progress of a detector, with that offset.
    pub commits: Positions,
    /// Members of the group that are not detectors, each as client id and host.
    pub members: Vec<String>,
}

/// One observation of the whole assignment of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AssignmentReading {
    /// Number of the observation. A later one has a higher number; 0 means that there was none yet.
    pub number: u64,
    /// The assignment, or why it is not known. An error about the group or the topic says nothing about the assignment.
    pub found: Result<GroupAssignment, String>,
}

impl Default for AssignmentReading {
    fn default() -> Self {
        AssignmentReading { number: 0, found: Err("the group was not observed yet".to_owned()) }
    }
}

/// The whole assignment of a stable group, compared with the partitions of its topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupAssignment {
    /// Partitions of the topic that no member has.
    pub unassigned: BTreeSet<i32>,
    /// Number of members whose id sorts before that of this member. `None` if this member is not in the group.
    pub place: Option<usize>,
}

/// Members of the sink's group, and their partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupOwners {
    /// Members of the group that are not of this program, each as client id and host.
    pub foreign: Vec<String>,
    /// The member that has each partition, as text for messages.
    pub owners: BTreeMap<i32, String>,
    /// First offset and end of the partitions that were requested.
    pub bounds: BTreeMap<i32, (i64, i64)>,
}

/// Observes which member of a group has which partition, without blocking.
pub(crate) trait OwnerObserver {
    /// Returns the result of the last observation.
    fn owners(&self) -> GroupOwners;

    /// Returns the last observation of the whole assignment.
    fn assignment(&self) -> AssignmentReading;

    /// Requests the bounds of these partitions for the next observations.
    fn request_bounds(&self, partitions: Vec<i32>);
}

/// Requests information on the topic that a client consumes.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait TopicAdministration: ClusterConnection {
    /// Returns id and number of partitions of the topic. An error about the topic is a fault, not a topic without
    /// partitions.
    fn identity(&mut self) -> Result<TopicIdentity, Fault>;

    /// Returns the number of partitions of the topic. An error about the topic is a fault.
    fn partitions(&mut self) -> Result<i32, Fault>;

    /// Returns the topic's id, which distinguishes it from a recreated topic of the same name. `None` if it is unknown:
    /// the broker is too old for ids, or did not answer.
    fn topic_id(&mut self) -> Option<String>;
}

/// Requests information on the group that a client belongs to.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait GroupAdministration: ClusterConnection {
    /// Returns the committed state of each partition, after all transactions in progress.
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, CommittedOffset>, Fault>;

    /// Returns the last known activity of other programs in the group, without a request.
    fn foreign(&self) -> ForeignCommits;

    /// Returns the last observation of the group's whole assignment, without a request. `None` if this client does not
    /// observe the group, because another one of its process does.
    fn assignment(&self) -> Option<AssignmentReading>;

    /// Returns whether another process has replaced this member under the same name. It is called after a fault;
    /// `is_fenced` if the group reported it. It may block until it can distinguish another process from an earlier
    /// connection of this one.
    fn is_replaced(&mut self, is_fenced: bool, stop: &Stop) -> bool;
}
