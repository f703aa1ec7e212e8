//! The group coordinator with the eager protocol: generations, static members that their own name fences, and sessions
//! that time out. A rebalance waits until all members have returned their partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::seconds;

pub(super) const SESSION: Duration = seconds(10);
const REBALANCE: Duration = seconds(60);

#[derive(Default)]
pub(super) struct SimulatedGroup {
    pub generation: u32,
    pub members: BTreeMap<String, GroupMember>,
    next_id: u64,
    rebalancing_since: Option<Duration>,
    /// Number of rebalances that members have forced.
    pub forced: u64,
}

/// A member of the group, by its static name.
#[derive(Debug)]
pub(super) struct GroupMember {
    pub id: u64,
    /// Actor of the member, to check whether it is alive.
    pub actor: usize,
    /// Whether it has joined again and returned its partitions.
    pub has_joined: bool,
    pub assignment: Vec<i32>,
    /// Generation of the last assignment that the member received.
    pub notified: u32,
}

impl SimulatedGroup {
    pub(super) fn is_rebalancing(&self) -> bool {
        self.rebalancing_since.is_some()
    }

    /// Adds a member. An earlier member of the same name is fenced; in a stable group the new one gets its partitions.
    pub(super) fn join(&mut self, name: &str, actor: usize, now: Duration) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        match self.members.get_mut(name) {
            Some(member) => {
                (member.id, member.actor, member.notified, member.has_joined) = (id, actor, 0, true);
            }
            None => {
                let member = GroupMember { id, actor, has_joined: true, assignment: Vec::new(), notified: 0 };
                self.members.insert(name.to_owned(), member);
                self.rebalance(now);
            }
        }
        id
    }

    /// Changes a member's id without its knowledge: the coordinator died between deciding and answering.
    pub(super) fn misplace(&mut self, name: &str) {
        self.next_id += 1;
        if let Some(member) = self.members.get_mut(name) {
            member.id = self.next_id;
        }
    }

    pub(super) fn remove(&mut self, name: &str, now: Duration) {
        if self.members.remove(name).is_some() {
            self.rebalance(now);
        }
    }

    /// Starts a rebalance: all members must join again.
    pub(super) fn rebalance(&mut self, now: Duration) {
        self.rebalancing_since = Some(now);
        self.members.values_mut().for_each(|member| member.has_joined = member.notified == 0);
    }

    /// Ends a rebalance once all members have joined.
    pub(super) fn settle(&mut self, now: Duration, partitions: i32) {
        let Some(since) = self.rebalancing_since else { return };
        if now.saturating_sub(since) > REBALANCE {
            self.members.retain(|_, member| member.has_joined);
        }
        if !self.members.values().all(|member| member.has_joined) {
            return;
        }
        self.rebalancing_since = None;
        self.generation += 1;
        let count = self.members.len().max(1);
        for (at, member) in self.members.values_mut().enumerate() {
            member.assignment = (0..partitions).filter(|p| *p as usize % count == at).collect();
            member.notified = 0;
        }
    }
}
