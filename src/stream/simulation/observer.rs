//! Observes the assignment of a simulated group, as the observers of Kafka's groups do.

use std::sync::Arc;

use rand::RngExt;

use super::cluster::SimulatedTopic;
use super::stage::Scheduler;
use crate::stream::client::{AssignmentReading, GroupAssignment, GroupOwners, OwnerObserver};

/// Milliseconds between two observations.
const PAUSE: u64 = 2_000;

/// Returns the last observation of the group that reads a topic, by the member of this name. Some observations fail, and
/// some come from a broker that believes in one more partition.
pub(super) fn assignment(stage: &Scheduler, topic: SimulatedTopic, name: &str) -> AssignmentReading {
    let mut inner = stage.look();
    let faults = inner.faults;
    let (is_struck, is_stale) = (inner.random.random_bool(faults), inner.random.random_bool(faults));
    let number = 1 + inner.now.as_millis() as u64 / PAUSE;
    let partitions = inner.cluster.count_of(topic);
    let group = inner.cluster.group_of(topic);
    if is_struck || group.is_rebalancing() || group.members.is_empty() {
        return AssignmentReading { number, found: Err("the group is not stable".into()) };
    }
    let mut unassigned = (0..partitions + i32::from(is_stale)).collect::<std::collections::BTreeSet<_>>();
    let assigned = group.members.values().flat_map(|member| &member.assignment);
    assigned.for_each(|partition| {
        unassigned.remove(partition);
    });
    let place = group.members.keys().position(|member| member == name);
    AssignmentReading { number, found: Ok(GroupAssignment { unassigned, place }) }
}

/// The observer of a sink. Other members of the group are always sinks of the same database.
pub(super) struct SimulatedOwnerObserver {
    pub(super) stage: Arc<Scheduler>,
    pub(super) name: &'static str,
}

impl OwnerObserver for SimulatedOwnerObserver {
    fn owners(&self) -> GroupOwners {
        GroupOwners::default()
    }

    fn assignment(&self) -> AssignmentReading {
        assignment(&self.stage, SimulatedTopic::Anomalies, self.name)
    }

    fn request_bounds(&self, _partitions: Vec<i32>) {}
}
