//! Incidents of the topics: recreation, truncation, lost snapshots, damage and retention.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::super::cluster::{Fate, LogEntry, SimulatedTopic};
use super::super::rewrites::{DecisionCause, PendingIncident, checkpoint_offset};
use super::super::stage::SchedulerState;
use super::super::world::ProcessKind;
use super::Director;
use super::input::end_transaction;

/// Probability that a step begins an incident.
const INCIDENTS: f64 = 0.06;
/// Share of recreations among the incidents.
const RECREATIONS: f64 = 0.08;

impl Director<'_> {
    /// Causes an incident from time to time, once the cluster allows it.
    pub(super) fn disturb(&mut self, inner: &mut SchedulerState) {
        let is_allowed = self.schedule.has_incidents() && are_all_known(inner);
        let is_free = is_allowed && !inner.cluster.awaits_decision() && self.wanted.is_none();
        if is_free && inner.random.random_bool(INCIDENTS) {
            self.want(inner);
        }
        let Some(wanted) = self.wanted else { return };
        // The tool would decide about the cluster that it has found.
        if self.tool.is_some_and(|actor| inner.actors[actor].is_alive) {
            return;
        }
        // Also those that are stopping.
        self.members.retain(|actor| inner.actors[*actor].is_alive);
        let has_workers = !self.members.is_empty();
        let is_busy = inner.cluster.is_unstable() || !inner.cluster.deciding().is_empty();
        if inner.cluster.awaits_decision() || is_busy || has_workers != (wanted == DecisionCause::RecreatedAtRuntime) {
            return;
        }
        self.wanted = None;
        if !are_all_known(inner) {
            return;
        }
        for partition in std::mem::take(&mut self.open) {
            end_transaction(inner, partition, true);
        }
        let (first, count) = (inner.random.random_range(0..inner.cluster.partitions), inner.cluster.partitions);
        for partition in (0..count).map(|step| (first + step) % count) {
            match wanted {
                _ if inner.cluster.rewrites.pending.is_some() => break,
                DecisionCause::RecreatedAtRuntime | DecisionCause::Recreated => self.recreate(inner, wanted),
                DecisionCause::Cut => self.cut(inner, partition),
                DecisionCause::Lost => lose(inner, partition),
            }
        }
        if inner.cluster.rewrites.pending.is_some() {
            inner.cluster.transactions.warned.extend(&self.members);
        }
    }

    /// Chooses an incident, and stops the workers for it. A recreated partition has nothing to cut or to lose for a while,
    /// so recreations are rare.
    fn want(&mut self, inner: &mut SchedulerState) {
        let (is_recreated, choices) = (inner.random.random_bool(RECREATIONS), choices(inner));
        let wanted = match choices.len() {
            _ if is_recreated && inner.random.random_bool(0.5) => DecisionCause::RecreatedAtRuntime,
            _ if is_recreated => DecisionCause::Recreated,
            0 => return,
            count => choices[inner.random.random_range(0..count)],
        };
        self.wanted = Some(wanted);
        let workers = self.processes.iter().filter(|process| process.part == ProcessKind::Worker);
        for process in workers.filter(|_| wanted != DecisionCause::RecreatedAtRuntime) {
            if inner.random.random_bool(0.5) { inner.kill(process.actor) } else { process.stop.request() }
        }
    }

    /// Deletes the input and creates it again. While workers run, it has no records at their positions yet.
    fn recreate(&mut self, inner: &mut SchedulerState, incident: DecisionCause) {
        inner.cluster.rewrites.recreations += 1;
        let mut logs = BTreeMap::new();
        for partition in 0..inner.cluster.partitions {
            inner.cluster.damaged.remove(&(SimulatedTopic::Input, partition));
            logs.insert(partition, std::mem::take(inner.cluster.partition(SimulatedTopic::Input, partition)));
            let judged = inner.cluster.transactions.offsets.get(&partition).map_or(0, |progress| progress.offset);
            let most = if incident == DecisionCause::Recreated { judged + 20 } else { judged };
            for _ in 0..inner.random.random_range(0..=most.min(60)) {
                let value = self.value(inner);
                self.publish_to(inner, partition, value);
            }
        }
        inner.cluster.rewrites.pending = Some(PendingIncident { incident, logs, cut_at: 0 });
    }

    /// Cuts a partition before its checkpoint, and publishes other records there: sometimes more than were lost.
    fn cut(&mut self, inner: &mut SchedulerState, partition: i32) {
        let Some(judged) = inner.cluster.transactions.offsets.get(&partition).copied() else { return };
        let checkpoint = last_checkpoint(inner, partition);
        let log = inner.cluster.partition(SimulatedTopic::Input, partition).clone();
        let (Some(checkpoint), Some(last)) = (checkpoint, judged.last) else { return };
        let cuts = log.start..checkpoint.min(last.offset);
        if cuts.is_empty() {
            return;
        }
        let cut_at = inner.random.random_range(cuts);
        inner.cluster.damaged.remove(&(SimulatedTopic::Input, partition));
        inner.cluster.partition(SimulatedTopic::Input, partition).entries.truncate(cut_at as usize);
        let lost = judged.offset - cut_at;
        let count = if inner.random.random_bool(0.7) { lost + inner.random.random_range(0..20) } else { lost / 2 };
        for _ in 0..count {
            let value = self.value(inner);
            self.publish_to(inner, partition, value);
        }
        // An equal record at the offset of the last judged one is no visible difference.
        let (at, cut) = (last.offset as usize, inner.cluster.partition(SimulatedTopic::Input, partition));
        if let (Some(old), Some(new)) = (log.entries.get(at), cut.entries.get_mut(at)) {
            new.time += i64::from(old.time == new.time);
        }
        let logs = BTreeMap::from([(partition, log)]);
        inner.cluster.rewrites.pending = Some(PendingIncident { incident: DecisionCause::Cut, logs, cut_at });
    }
}

/// Returns whether a worker has committed an offset and a checkpoint of every partition.
fn are_all_known(inner: &SchedulerState) -> bool {
    (0..inner.cluster.partitions).all(|partition| {
        inner.cluster.transactions.offsets.contains_key(&partition)
            && inner.cluster.has(SimulatedTopic::State, partition)
    })
}

/// Returns the incidents of partitions that are possible now.
fn choices(inner: &mut SchedulerState) -> Vec<DecisionCause> {
    let mut choices = Vec::new();
    for partition in 0..inner.cluster.partitions {
        let start = inner.cluster.partition(SimulatedTopic::Input, partition).start;
        if last_checkpoint(inner, partition).is_some_and(|checkpoint| checkpoint > start) {
            choices.push(DecisionCause::Cut);
        }
        if !live_snapshots(inner, partition).is_empty() {
            choices.push(DecisionCause::Lost);
        }
    }
    choices
}

/// Returns the offset of a partition's last checkpoint.
fn last_checkpoint(inner: &mut SchedulerState, partition: i32) -> Option<i64> {
    let state = inner.cluster.partition(SimulatedTopic::State, partition);
    let checkpoint = state.committed(0).filter(|(_, entry)| entry.key.as_deref() == Some(b"f")).last();
    checkpoint.and_then(|(_, entry)| checkpoint_offset(entry.value.as_deref()))
}

/// Returns the keys of a partition's snapshots.
fn live_snapshots(inner: &mut SchedulerState, partition: i32) -> Vec<Vec<u8>> {
    let state = inner.cluster.partition(SimulatedTopic::State, partition);
    let mut live = BTreeMap::new();
    for (_, entry) in state.committed(0) {
        let key = entry.key.as_ref().filter(|key| key.starts_with(b"s"));
        key.into_iter().for_each(|key| _ = live.insert(key.clone(), entry.value.is_some()));
    }
    live.into_iter().filter_map(|(key, is_live)| is_live.then_some(key)).collect()
}

/// Deletes the records of some keys in the state topic.
fn lose(inner: &mut SchedulerState, partition: i32) {
    let log = inner.cluster.partition(SimulatedTopic::Input, partition).clone();
    let live = live_snapshots(inner, partition);
    let state = inner.cluster.partition(SimulatedTopic::State, partition);
    // An open transaction may have others.
    if live.is_empty() || state.stable() < state.end() {
        return;
    }
    let count = inner.random.random_range(1..=live.len());
    let from = inner.random.random_range(0..live.len());
    let lost = live.iter().cycle().skip(from).take(count).collect::<BTreeSet<_>>();
    let state = inner.cluster.partition(SimulatedTopic::State, partition);
    // An aborted record never was a snapshot. The oracle takes lost ones for records that the workers have committed.
    let is_lost = |entry: &&mut LogEntry| {
        entry.fate == Fate::Committed && entry.key.as_ref().is_some_and(|key| lost.contains(key))
    };
    state.entries.iter_mut().filter(is_lost).for_each(|entry| entry.fate = Fate::Nothing);
    let logs = BTreeMap::from([(partition, log)]);
    inner.cluster.rewrites.pending = Some(PendingIncident { incident: DecisionCause::Lost, logs, cut_at: 0 });
}

/// Damages a partition of a topic at an offset, or repairs all.
pub(super) fn damage(inner: &mut SchedulerState, partition: i32) {
    if inner.random.random_bool(0.05) {
        inner.cluster.damaged.clear();
    }
    let topics = [SimulatedTopic::Input, SimulatedTopic::Input, SimulatedTopic::Anomalies, SimulatedTopic::State];
    let topic = topics[inner.random.random_range(0..topics.len())];
    if inner.faults > 0.0 && inner.random.random_bool(0.02) && inner.cluster.has(topic, partition) {
        let log = inner.cluster.partition(topic, partition);
        let offset = inner.random.random_range(log.start..=log.end());
        inner.cluster.damaged.insert((topic, partition), offset);
    }
}

/// Simulates retention: removes all records that a restart does not need, which are judged and before the checkpoint.
pub(super) fn trim(inner: &mut SchedulerState, partition: i32) {
    let judged = inner.cluster.transactions.offsets.get(&partition).map_or(0, |progress| progress.offset);
    let state = inner.cluster.partition(SimulatedTopic::State, partition);
    // A transaction that sets the offset back may have committed it, but not the checkpoint that belongs to it yet.
    if state.stable() < state.end() {
        return;
    }
    if let Some(checkpoint) = last_checkpoint(inner, partition) {
        let input = inner.cluster.partition(SimulatedTopic::Input, partition);
        input.start = input.start.max(checkpoint.min(judged));
    }
}
