//! The group coordinator, eager protocol: generations, static members that are fenced by their own name, sessions that end
//! in silence, and a rebalance that waits until all have given their partitions back.

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
}

/// A member, by its static name.
#[derive(Debug)]
pub(super) struct GroupMember {
    pub id: u64,
    /// Who sits there, to see whether it is alive.
    pub actor: usize,
    /// Has nothing of the last generation any more.
    pub has_joined: bool,
    pub assignment: Vec<i32>,
    /// Generation of the assignment that it was told.
    pub told: u32,
}

impl SimulatedGroup {
    pub(super) fn is_rebalancing(&self) -> bool {
        self.rebalancing_since.is_some()
    }

    /// A member joins; one that sat there by the same name is fenced. In a settled group it takes over what that one had.
    pub(super) fn join(&mut self, name: &str, actor: usize, now: Duration) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        match self.members.get_mut(name) {
            Some(seat) => {
                (seat.id, seat.actor, seat.told, seat.has_joined) = (id, actor, 0, true);
            }
            None => {
                let seat = GroupMember { id, actor, has_joined: true, assignment: Vec::new(), told: 0 };
                self.members.insert(name.to_owned(), seat);
                self.rebalance(now);
            }
        }
        id
    }

    /// The place gets a new id of which nobody hears: the coordinator died between deciding and telling.
    pub(super) fn misplace(&mut self, name: &str) {
        self.next_id += 1;
        if let Some(seat) = self.members.get_mut(name) {
            seat.id = self.next_id;
        }
    }

    pub(super) fn remove(&mut self, name: &str, now: Duration) {
        if self.members.remove(name).is_some() {
            self.rebalance(now);
        }
    }

    /// All members must join again.
    pub(super) fn rebalance(&mut self, now: Duration) {
        self.rebalancing_since = Some(now);
        self.members.values_mut().for_each(|seat| seat.has_joined = seat.told == 0);
    }

    /// Ends a rebalance for which nobody is waited for any more.
    pub(super) fn settle(&mut self, now: Duration, partitions: i32) {
        let Some(since) = self.rebalancing_since else { return };
        if now.saturating_sub(since) > REBALANCE {
            self.members.retain(|_, seat| seat.has_joined);
        }
        if !self.members.values().all(|seat| seat.has_joined) {
            return;
        }
        self.rebalancing_since = None;
        self.generation += 1;
        let count = self.members.len().max(1);
        for (at, seat) in self.members.values_mut().enumerate() {
            seat.assignment = (0..partitions).filter(|p| *p as usize % count == at).collect();
            seat.told = 0;
        }
    }
}
