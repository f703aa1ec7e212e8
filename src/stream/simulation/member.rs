//! The client of one simulated worker: transactions and history, together with its [`SimulatedConsumer`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::cluster::{Fate, LogEntry, SimulatedTopic};
use super::consumer::SimulatedConsumer;
use super::observer;
use super::stage::Scheduler;
use super::strike::{ASK, BEGIN, END, OFFSETS, SEND, Struck};
use super::transactions::OffsetCommit;
use super::world::Defect;
use crate::series::snapshot::is_window;
use crate::stop::Stop;
use crate::stream::client::{
    AssignmentChange, AssignmentReading, ClusterConnection, CommittedOffset, Fault, ForeignCommits,
    GroupAdministration, GroupMembership, OffsetRanges, OutgoingRecord, OutputTopic, Positions, ReadFailures,
    RecordFetch, RecordVisitor, Remedy, TopicAdministration, TopicIdentity, TransactionalProducer,
};
use crate::stream::progress::ProgressByPartition;

mod history;

pub(super) struct SimulatedClient {
    consumer: SimulatedConsumer,
    transactional_id: String,
    epoch: u32,
    is_committing: bool,
    history: Option<(SimulatedTopic, OffsetRanges)>,
    /// Number of the input's partitions when the group was created, according to the committed offsets.
    origin: i32,
    /// Ends of the partitions without an offset, when the committed offsets were read.
    ends_when_new: Positions,
    /// Bytes of snapshots that were sent since the last flush, by partition.
    unflushed: BTreeMap<i32, usize>,
    /// Whether the cluster has refused a record of the transaction.
    is_refused: bool,
}

impl SimulatedClient {
    pub(super) fn new(stage: Arc<Scheduler>, me: usize, name: &str, defect: Option<Defect>) -> Self {
        let mut member = Self::by_names(stage, me, name, &format!("group-{name}"));
        member.consumer.defect = defect;
        member
    }

    pub(super) fn by_names(stage: Arc<Scheduler>, me: usize, name: &str, transactional_id: &str) -> Self {
        SimulatedClient {
            consumer: SimulatedConsumer::new(stage, me, name, SimulatedTopic::Input),
            transactional_id: transactional_id.to_owned(),
            epoch: 0,
            is_committing: false,
            history: None,
            origin: 0,
            ends_when_new: Positions::new(),
            unflushed: BTreeMap::new(),
            is_refused: false,
        }
    }
}

impl SimulatedClient {
    /// Fails if the cluster has refused a record of the transaction.
    fn accepted(&self) -> Result<(), Fault> {
        match self.is_refused {
            true => Err(Fault { is_too_large: true, ..Fault::new(Remedy::Abort, "a batch is too large") }),
            false => Ok(()),
        }
    }
}

impl Struck for SimulatedClient {
    fn place(&self) -> (&Arc<Scheduler>, usize) {
        self.consumer.place()
    }
}

impl ClusterConnection for SimulatedClient {
    fn now(&self) -> Duration {
        self.consumer.now()
    }

    fn sleep(&mut self, time: Duration) {
        self.consumer.sleep(time);
    }

    fn trouble(&self) -> Option<String> {
        self.consumer.trouble()
    }
}

impl GroupMembership for SimulatedClient {
    fn subscribe(&mut self) -> Result<(), Fault> {
        self.consumer.subscribe()
    }

    fn has_change(&self) -> bool {
        self.consumer.has_change()
    }

    fn next_change(&mut self) -> Option<AssignmentChange> {
        self.consumer.next_change()
    }

    fn assign(&mut self, at: &Positions) -> Result<(), Fault> {
        self.consumer.assign(at)
    }

    fn unassign(&mut self) -> Result<(), Fault> {
        self.consumer.unassign()
    }

    fn is_assignment_lost(&self) -> bool {
        self.consumer.is_assignment_lost()
    }

    fn rejoin(&mut self) -> Result<(), Fault> {
        self.consumer.rejoin()
    }

    fn leave(&mut self, limit: Duration) {
        self.consumer.leave(limit);
    }
}

impl RecordFetch for SimulatedClient {
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault> {
        self.consumer.poll(wait, most, visit)
    }

    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.consumer.resume(partitions)
    }

    fn seek(&mut self, to: &Positions) -> Result<(), Fault> {
        self.consumer.seek(to)
    }

    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault> {
        self.consumer.bounds(partition)
    }

    fn starts(&self) -> Positions {
        self.consumer.starts()
    }

    fn ends(&self) -> Positions {
        self.consumer.ends()
    }

    fn failures(&self) -> ReadFailures {
        self.consumer.failures()
    }

    fn skip(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault> {
        self.consumer.skip(partition)
    }

    fn highs(&self) -> Positions {
        self.consumer.highs()
    }

    fn reached(&self) -> Positions {
        self.consumer.reached()
    }
}

impl TopicAdministration for SimulatedClient {
    fn identity(&mut self) -> Result<TopicIdentity, Fault> {
        self.consumer.identity()
    }

    fn partitions(&mut self) -> Result<i32, Fault> {
        self.consumer.partitions()
    }

    fn topic_id(&mut self) -> Option<String> {
        self.consumer.topic_id()
    }
}

impl GroupAdministration for SimulatedClient {
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, CommittedOffset>, Fault> {
        self.act(ASK, |this, inner| {
            if inner.cluster.is_unstable() {
                inner.now += Duration::from_millis(20);
                return Err(Fault::new(Remedy::Retry, "offsets of an open transaction"));
            }
            let (origin, transactions) = (inner.cluster.origin(), &inner.cluster.transactions);
            this.origin = origin;
            let is_warned = partitions.iter().any(|partition| transactions.foreign.contains_key(partition));
            let is_unknown = |partition: &&i32| !transactions.offsets.contains_key(partition);
            let end =
                |partition: &i32| (*partition, inner.cluster.topics[&(SimulatedTopic::Input, *partition)].stable());
            let ends = partitions.iter().filter(is_unknown).map(end).collect::<Positions>();
            let (offsets, foreign) = (&transactions.offsets, &transactions.foreign);
            let generation = offsets.values().map(|progress| progress.generation).max().unwrap_or_default();
            let standing = |partition: &i32| match (offsets.get(partition), foreign.contains_key(partition)) {
                (None, _) if !offsets.is_empty() && *partition >= origin => CommittedOffset::Added { generation },
                (None, _) => CommittedOffset::New,
                (Some(progress), true) if origin == 0 => CommittedOffset::Earlier(progress.offset),
                (Some(progress), true) => CommittedOffset::Foreign { offset: progress.offset, was: None },
                (Some(progress), false) => CommittedOffset::At(*progress),
            };
            let standings = partitions.iter().map(|partition| (*partition, standing(partition))).collect();
            for (partition, end) in &ends {
                inner.cluster.transactions.ends_when_new.entry(*partition).or_insert(*end);
            }
            this.ends_when_new.extend(ends);
            if is_warned {
                inner.cluster.transactions.warned.insert(this.consumer.me);
            }
            Ok(standings)
        })
    }

    fn foreign(&self) -> ForeignCommits {
        let inner = self.consumer.stage.look();
        let transactions = &inner.cluster.transactions;
        let at = |partition: &i32| Some((*partition, transactions.offsets.get(partition)?.offset));
        ForeignCommits { commits: transactions.foreign.keys().filter_map(at).collect(), members: Vec::new() }
    }

    fn assignment(&self) -> Option<AssignmentReading> {
        Some(observer::assignment(&self.consumer.stage, SimulatedTopic::Input, &self.consumer.name))
    }

    fn is_replaced(&mut self, _is_fenced: bool, _stop: &Stop) -> bool {
        let inner = self.consumer.stage.look();
        let member = inner.cluster.group.members.get(&self.consumer.name);
        self.consumer.id.is_some()
            && member.is_some_and(|member| Some(member.id) != self.consumer.id && member.actor != self.consumer.me)
    }
}

impl TransactionalProducer for SimulatedClient {
    fn init_transactions(&mut self) -> Result<(), Fault> {
        self.act(ASK, |this, inner| {
            this.epoch = inner.cluster.init(&this.transactional_id);
            Ok(())
        })
    }

    fn begin(&mut self) -> Result<(), Fault> {
        (self.unflushed, self.is_refused) = (BTreeMap::new(), false);
        self.act(BEGIN, |_, _| Ok(()))
    }

    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault> {
        let defect = self.consumer.defect;
        self.act(SEND, |this, inner| {
            let hash = record.key.iter().flatten().map(|byte| i32::from(*byte)).sum::<i32>();
            let spread = hash % inner.cluster.outputs;
            let OutgoingRecord { output, key, value, timestamp, headers } = record;
            let place = match output {
                OutputTopic::Anomalies => (SimulatedTopic::Anomalies, spread),
                OutputTopic::DeadLetters => (SimulatedTopic::DeadLetters, spread),
                OutputTopic::State(partition) => (SimulatedTopic::State, partition),
                // The input is the only topic that the others do not name.
                OutputTopic::Named { partition, .. } => (SimulatedTopic::Input, partition.unwrap_or_default()),
            };
            if let (SimulatedTopic::State, partition) = place
                && value.as_deref().is_some_and(is_window)
            {
                let bytes = this.unflushed.entry(partition).or_default();
                *bytes += key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
                if !this.is_refused && *bytes >= inner.cluster.state_limit {
                    this.is_refused = true;
                    inner.cluster.refusals += 1;
                }
            }
            let time = timestamp.unwrap_or(inner.now.as_millis() as i64);
            let entry = LogEntry { key, value, headers, time, fate: Fate::Open, owner: this.transactional_id.clone() };
            let is_output = place.0 != SimulatedTopic::State && inner.random.random_bool(0.3);
            let times = match defect {
                Some(Defect::Loss) if is_output => 0,
                Some(Defect::Duplicate) if is_output => 2,
                _ => 1,
            };
            let now = inner.now;
            (0..times)
                .try_for_each(|_| inner.cluster.append(&this.transactional_id, this.epoch, now, place, entry.clone()))
        })
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.act(SEND, |this, _| {
            this.unflushed.clear();
            this.accepted()
        })
    }

    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault> {
        if !self.is_committing && !next.is_empty() {
            self.act(OFFSETS, |this, inner| {
                this.accepted()?;
                let group = &inner.cluster.group;
                let is_tool = !this.consumer.is_subscribed;
                match group.members.get(&this.consumer.name) {
                    _ if is_tool && group.members.is_empty() => {}
                    _ if is_tool => return Err(Fault::new(Remedy::Abort, "the group has members")),
                    Some(member) if Some(member.id) != this.consumer.id => {
                        return Err(Fault::new(Remedy::Yield, "fenced by a member of the same name"));
                    }
                    Some(_) if this.consumer.generation == group.generation => {}
                    _ => return Err(Fault::new(Remedy::Abort, "not of this generation")),
                }
                let now = inner.now;
                let (progress, ends) = (next.clone(), this.ends_when_new.clone());
                let commit = OffsetCommit { progress, origin: this.origin, ends, is_tool };
                inner.cluster.add_offsets(&this.transactional_id, this.epoch, now, commit)
            })?;
            self.is_committing = true;
        }
        let ended = self.act(END, |this, inner| inner.cluster.end(&this.transactional_id, this.epoch, true));
        self.is_committing = matches!(&ended, Err(fault) if fault.remedy == Remedy::Retry);
        ended
    }

    fn abort(&mut self) -> Result<(), Fault> {
        self.is_committing = false;
        self.act(END, |this, inner| inner.cluster.end(&this.transactional_id, this.epoch, false))
    }
}
