//! The consumer of one simulated group member: the client's side of the group protocol.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::cluster::{LogEntry, SimulatedPartition, SimulatedTopic};
use super::stage::{Scheduler, SchedulerState};
use super::strike::{ASK, LOCAL, POLL_SHARE, Struck};
use super::world::Defect;
use crate::stream::client::{
    AssignmentChange, ClusterConnection, Consumed, ConsumedRecord, Fault, GroupMembership, Positions, ReadFailure,
    ReadFailures, RecordFetch, RecordVisitor, Remedy, TopicAdministration, TopicIdentity,
};

/// Share of the faults that change a member's id without its knowledge.
const MISPLACED: f64 = 0.05;

pub(super) struct SimulatedConsumer {
    pub(super) stage: Arc<Scheduler>,
    pub(super) me: usize,
    pub(super) name: String,
    topic: SimulatedTopic,
    pub(super) is_subscribed: bool,
    pub(super) id: Option<u64>,
    pub(super) generation: u32,
    /// Whether it has an assignment, answered or not.
    has_assignment: bool,
    /// Whether it has accepted the assignment. Before that it ignores the group.
    is_answered: bool,
    is_revoked: bool,
    /// Whether it leaves the group when it gives its partitions back, to join again.
    is_rejoining: bool,
    pub(super) is_lost: bool,
    changes: VecDeque<AssignmentChange>,
    pub(super) positions: Positions,
    pub(super) reached: Positions,
    paused: BTreeSet<i32>,
    pub(super) defect: Option<Defect>,
}

impl SimulatedConsumer {
    pub(super) fn new(stage: Arc<Scheduler>, me: usize, name: &str, topic: SimulatedTopic) -> Self {
        SimulatedConsumer {
            stage,
            me,
            name: name.to_owned(),
            topic,
            is_subscribed: false,
            id: None,
            generation: 0,
            has_assignment: false,
            is_answered: false,
            is_revoked: false,
            is_rejoining: false,
            is_lost: false,
            changes: VecDeque::new(),
            positions: Positions::new(),
            reached: Positions::new(),
            paused: BTreeSet::new(),
            defect: None,
        }
    }

    /// Runs the group protocol, as a poll does.
    fn attend(&mut self, inner: &mut SchedulerState) -> Result<(), Fault> {
        if !self.is_subscribed || (self.has_assignment && !self.is_answered) {
            return Ok(());
        }
        let now = inner.now;
        let is_misplaced = inner.random.random_bool(inner.faults * MISPLACED);
        let group = inner.cluster.group_of(self.topic);
        if is_misplaced {
            group.misplace(&self.name);
        }
        match (self.id, group.members.get(&self.name)) {
            (Some(id), Some(member)) if member.id == id => {}
            (Some(_), Some(_)) => return Err(Fault::new(Remedy::Yield, "fenced by a member of the same name")),
            (Some(_), None) if self.has_assignment => {
                self.is_lost = true;
                self.revoke();
                return Ok(());
            }
            _ => self.id = Some(group.join(&self.name, self.me, now)),
        }
        let (is_rebalancing, generation) = (group.is_rebalancing(), group.generation);
        let Some(member) = group.members.get_mut(&self.name) else { return Ok(()) };
        if is_rebalancing && self.has_assignment {
            self.revoke();
        } else if is_rebalancing {
            member.has_joined = true;
        } else if !self.has_assignment && member.notified != generation {
            (member.notified, self.generation, self.has_assignment, self.is_answered) =
                (generation, generation, true, false);
            self.changes.push_back(AssignmentChange::Assigned(member.assignment.clone()));
        }
        Ok(())
    }

    fn revoke(&mut self) {
        if !std::mem::replace(&mut self.is_revoked, true) {
            self.changes.push_back(AssignmentChange::Revoked(self.positions.keys().copied().collect()));
        }
    }

    /// Leaves the group, if it still has its place there.
    fn depart(&mut self, inner: &mut SchedulerState) {
        let (now, group) = (inner.now, inner.cluster.group_of(self.topic));
        let id = self.id.take();
        if group.members.get(&self.name).is_some_and(|member| Some(member.id) == id) {
            group.remove(&self.name, now);
        }
    }

    /// Takes some of the available records.
    fn fetch(&mut self, inner: &mut SchedulerState, mut most: usize) -> Vec<(i32, Vec<(i64, LogEntry)>)> {
        let mut batches = Vec::new();
        let fetched = self.positions.iter_mut().filter(|(partition, _)| !self.paused.contains(partition));
        for (&partition, next) in fetched {
            let share = inner.random.random_range(0..=most.min(12));
            let damage = inner.cluster.damage(self.topic, partition);
            let log = inner.cluster.partition(self.topic, partition);
            let records = log.committed(*next).take_while(|(at, _)| damage.is_none_or(|damage| *at < damage));
            let records = records.take(share).map(|(at, entry)| (at, entry.clone())).collect::<Vec<_>>();
            if let Some((last, _)) = records.last() {
                *next = last + 1;
                self.reached.remove(&partition);
            }
            // The client reports this when it has fetched up to the stable end, including control records.
            let is_at_end = log.committed(*next).next().is_none() && log.stable() >= *next;
            if is_at_end && damage.is_none_or(|damage| damage >= log.stable()) {
                self.reached.insert(partition, log.stable());
            }
            inner.cluster.unreadable += u64::from(!is_at_end && damage == Some(*next));
            if !records.is_empty() {
                most -= records.len();
                batches.push((partition, records));
            }
        }
        if self.defect == Some(Defect::Reorder) {
            for (_, records) in batches.iter_mut().filter(|(_, records)| records.len() > 1) {
                let (one, two) = (records[0].1.value.clone(), records[1].1.value.clone());
                (records[0].1.value, records[1].1.value) = (two, one);
            }
        }
        batches
    }
}

/// Converts records to the type that the loops use.
pub(super) fn show(records: &[(i64, LogEntry)]) -> Vec<ConsumedRecord<'_>> {
    let record = |(offset, entry): &'_ (i64, LogEntry)| (*offset, entry.time);
    records
        .iter()
        .map(|read| {
            let (offset, time) = record(read);
            let (key, value) = (read.1.key.as_deref(), read.1.value.as_deref());
            ConsumedRecord { offset, timestamp: Some(time), key, value, headers: &() }
        })
        .collect()
}

impl Struck for SimulatedConsumer {
    fn place(&self) -> (&Arc<Scheduler>, usize) {
        (&self.stage, self.me)
    }
}

impl ClusterConnection for SimulatedConsumer {
    fn now(&self) -> Duration {
        self.stage.look().now
    }

    fn sleep(&mut self, time: Duration) {
        let mut inner = self.stage.turn(self.me);
        inner.now += time;
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

impl GroupMembership for SimulatedConsumer {
    fn subscribe(&mut self) -> Result<(), Fault> {
        self.is_subscribed = true;
        Ok(())
    }

    fn has_change(&self) -> bool {
        !self.changes.is_empty()
    }

    fn next_change(&mut self) -> Option<AssignmentChange> {
        self.changes.pop_front()
    }

    fn assign(&mut self, at: &Positions) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            (this.positions, this.is_answered) = (at.clone(), true);
            this.paused = at.keys().copied().collect();
            this.reached.clear();
            Ok(())
        })
    }

    fn unassign(&mut self) -> Result<(), Fault> {
        self.act(LOCAL, |this, inner| {
            this.positions.clear();
            this.reached.clear();
            (this.has_assignment, this.is_revoked, this.is_lost) = (false, false, false);
            if std::mem::take(&mut this.is_rejoining) {
                this.depart(inner);
            }
            Ok(())
        })
    }

    fn is_assignment_lost(&self) -> bool {
        self.is_lost
    }

    fn rejoin(&mut self) -> Result<(), Fault> {
        self.act(LOCAL, |this, inner| {
            inner.cluster.group_of(this.topic).forced += 1;
            this.is_rejoining = true;
            this.revoke();
            Ok(())
        })
    }

    fn leave(&mut self, _limit: Duration) {
        let _ = self.act(LOCAL, |this, inner| {
            this.depart(inner);
            Ok(())
        });
    }
}

impl RecordFetch for SimulatedConsumer {
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault> {
        let batches = self.act_with(POLL_SHARE, LOCAL, |this, inner| {
            this.attend(inner)?;
            if most == 0 || !this.changes.is_empty() {
                inner.now += wait / 8;
                return Ok(Vec::new());
            }
            let batches = this.fetch(inner, most);
            if batches.is_empty() {
                inner.now += wait / 4;
            }
            Ok(batches)
        })?;
        batches.iter().for_each(|(partition, records)| visit(*partition, Consumed::Records(&show(records))));
        Ok(batches.iter().map(|(_, records)| records.len()).sum())
    }

    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            this.paused.retain(|partition| !partitions.contains(partition));
            Ok(())
        })
    }

    fn seek(&mut self, to: &Positions) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            this.positions.extend(to);
            this.reached.retain(|partition, _| !to.contains_key(partition));
            Ok(())
        })
    }

    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault> {
        self.act(ASK, |this, inner| {
            let partition = inner.cluster.partition(this.topic, partition);
            Ok((partition.start, partition.stable()))
        })
    }

    fn starts(&self) -> Positions {
        let mut inner = self.stage.look();
        self.positions.keys().map(|p| (*p, inner.cluster.partition(self.topic, *p).start)).collect()
    }

    fn ends(&self) -> Positions {
        let mut inner = self.stage.look();
        let end = |p: &mut SimulatedPartition| p.stable();
        self.positions.keys().map(|p| (*p, end(inner.cluster.partition(self.topic, *p)))).collect()
    }

    fn highs(&self) -> Positions {
        let mut inner = self.stage.look();
        self.positions.keys().map(|p| (*p, inner.cluster.partition(self.topic, *p).end())).collect()
    }

    fn reached(&self) -> Positions {
        self.reached.clone()
    }

    fn failures(&self) -> ReadFailures {
        let inner = self.stage.look();
        let failure = |(partition, next): (&i32, &i64)| {
            let offset = inner.cluster.damage(self.topic, *partition).filter(|damage| damage <= next)?;
            Some((*partition, ReadFailure { offset, cause: "a batch is damaged".to_owned() }))
        };
        self.positions.iter().filter_map(failure).collect()
    }

    fn skip(&mut self, _partition: i32) -> Result<Option<Range<i64>>, Fault> {
        Ok(None)
    }
}

impl TopicAdministration for SimulatedConsumer {
    fn identity(&mut self) -> Result<TopicIdentity, Fault> {
        self.act(ASK, |this, inner| {
            Ok(TopicIdentity { id: inner.cluster.id_of(this.topic), partitions: inner.cluster.partitions })
        })
    }

    fn partitions(&mut self) -> Result<i32, Fault> {
        self.act(ASK, |this, inner| Ok(inner.cluster.count_of(this.topic)))
    }

    fn topic_id(&mut self) -> Option<String> {
        self.act(ASK, |this, inner| Ok(inner.cluster.id_of(this.topic))).ok().flatten()
    }
}
