//! Membership in a consumer group: subscription, and changes of the assignment.

use std::time::Duration;

use super::connection::ClusterConnection;
use super::fault::Fault;
use super::offsets::Positions;

/// The group assigned or revoked partitions. Changes are reported in order. With the eager protocol a change always
/// covers all partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AssignmentChange {
    /// The partitions were assigned; answer with [`GroupMembership::assign`].
    Assigned(Vec<i32>),
    /// The partitions were revoked; answer with [`GroupMembership::unassign`].
    Revoked(Vec<i32>),
}

/// A member of a consumer group. [`RecordFetch::poll`](super::RecordFetch::poll) keeps it in the group.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait GroupMembership: ClusterConnection {
    /// Subscribes to the topic, which joins the group.
    fn subscribe(&mut self) -> Result<(), Fault>;

    /// Returns whether an unanswered change exists.
    fn has_change(&self) -> bool;

    /// Returns the oldest unanswered change, found by `poll`.
    fn next_change(&mut self) -> Option<AssignmentChange>;

    /// Accepts the partitions at these offsets, paused.
    fn assign(&mut self, at: &Positions) -> Result<(), Fault>;

    /// Gives up all partitions of the member.
    fn unassign(&mut self) -> Result<(), Fault>;

    /// Returns whether the group has revoked the partitions without notice.
    fn is_assignment_lost(&self) -> bool;

    /// Leaves the group and joins it again, so that the group assigns all partitions again. As in every rebalance,
    /// `poll` then finds that the partitions are revoked, and later that partitions are assigned.
    fn rejoin(&mut self) -> Result<(), Fault>;

    /// Leaves the group. Returns when the group has removed the member, or when `limit` has passed.
    fn leave(&mut self, limit: Duration);
}
