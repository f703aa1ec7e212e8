//! Decisions that the workers made and recorded: evictions with their offsets, and settings with the offsets from which
//! they applied. The oracle applies them at the same offsets. Each must have been due by the records before it, under
//! the settings of some process. None may be missing that was due under the settings of every process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::world::ScheduleOutcome;
use crate::detect::Detector;
use crate::event::Decoded;
use crate::series::snapshot::{self, SnapshotContent};
use crate::series::{self, SeriesLimits, SeriesTable};

/// Recorded decisions of one partition, in order.
pub(super) struct Decisions {
    partition: i32,
    bounds: Vec<SeriesLimits>,
    /// Whether processes had a limit of memory. Other partitions of a process share it, so that a single partition does not
    /// show whether an eviction or a refusal was due.
    has_memory_limit: bool,
    /// Offsets from which on records of unknown series were refused, with the first offset after each range.
    refusals: BTreeMap<i64, Option<i64>>,
    /// Keys of evicted series, by the offset before which they were evicted.
    evicted: BTreeMap<i64, VecDeque<String>>,
    /// Offset after the last event.
    next: i64,
    /// Whether a worker has made its decisions after the last event.
    is_decided: bool,
}

impl Decisions {
    /// Reads the evictions from the state topic, including records that were compacted since.
    /// These are the records of a stretch.
    pub(super) fn new(outcome: &ScheduleOutcome, partition: i32, records: Range<usize>) -> Self {
        let mut evicted = BTreeMap::<i64, VecDeque<String>>::new();
        let mut refusals = BTreeMap::new();
        let state = outcome.cluster.topics[&(SimulatedTopic::State, partition)].entries.iter();
        let state = state.take(records.end).skip(records.start);
        for entry in state.filter(|entry| !matches!(entry.fate, Fate::Aborted | Fate::Open)) {
            let (Some(key), Some(value)) = (&entry.key, &entry.value) else { continue };
            if key == b"f" {
                refusals.extend(refusals_of(key, value));
            }
            let Some(series) = snapshot::series_of(key) else { continue };
            let snapshot = snapshot::decode(key, value).expect("a snapshot");
            if snapshot.content == SnapshotContent::Evicted {
                evicted.entry(snapshot.as_of).or_default().push_back(series.to_owned());
            }
        }
        let (bounds, has_memory_limit) = (outcome.bounds.clone(), outcome.has_memory_limit);
        Decisions { partition, bounds, has_memory_limit, refusals, evicted, next: 0, is_decided: true }
    }

    /// Applies the decisions before this record, or those that made room for its series. `is_judged` is set if a worker
    /// judged the record and decided after it. A record that another program skipped is only replayed.
    pub(super) fn apply(
        &mut self,
        detector: &mut Detector,
        offset: i64,
        record: &Decoded<'_>,
        is_judged: bool,
    ) -> Result<(), String> {
        let policy = detector.settings().policy.clone();
        let mut keys = BTreeSet::new();
        for (_, event) in record.events() {
            let metric = event.metric_name.as_deref();
            // A value of an excluded series creates no series.
            if policy.resolve(&event.device_id, metric.unwrap_or("")).enabled.value {
                keys.insert(series::key(&mut String::new(), &event.device_id, metric).to_owned());
            }
        }
        self.carry_out(detector, offset, &keys)?;
        self.refuse(detector, offset)?;
        (self.next, self.is_decided) = (offset + 1, is_judged);
        Ok(())
    }

    /// Sets whether records of unknown series were refused at this offset.
    fn refuse(&self, detector: &mut Detector, offset: i64) -> Result<(), String> {
        let last = self.refusals.range(..=offset).next_back();
        let is_refused = last.is_some_and(|(_, to)| to.is_none_or(|to| offset < to));
        if is_refused && !self.has_memory_limit {
            return Err(format!("[{}] new series were refused at {offset} without a limit", self.partition));
        }
        // The first record creates the table.
        detector.within(self.partition, |_| ());
        detector.set_closed(is_refused);
        Ok(())
    }

    /// Applies the decisions after the last record of a stretch. Its workers may have stopped before they made them all.
    pub(super) fn end(&mut self, detector: &mut Detector) -> Result<(), String> {
        self.is_decided = false;
        self.finish(detector)
    }

    /// Applies the decisions after the last record.
    pub(crate) fn finish(&mut self, detector: &mut Detector) -> Result<(), String> {
        self.carry_out(detector, i64::MAX, &BTreeSet::new())
    }

    fn carry_out(&mut self, detector: &mut Detector, before: i64, record: &BTreeSet<String>) -> Result<(), String> {
        let none = BTreeSet::new();
        let Some(table) = detector.table_mut(self.partition) else { return Ok(()) };
        // After the last event all due evictions must have been made. This does not apply if the record makes room for
        // its own series: with one more series, others are not due yet. It does not apply either if a series was evicted
        // for its memory after that event: with fewer series, others are due at the next record.
        let changes_others = self.evict(table, self.next, if self.next == before { record } else { &none })?;
        let missing = self.bounds.iter().map(|bounds| table.overdue(self.next, *bounds)).collect::<Option<Vec<_>>>();
        if let Some(missing) = missing.filter(|_| !changes_others && self.is_decided) {
            return Err(format!("[{}] {missing:?} should have been evicted before {}", self.partition, self.next));
        }
        while let Some((&at, _)) = self.evicted.first_key_value().filter(|(at, _)| **at <= before) {
            self.evict(table, at, if at == before { record } else { &none })?;
        }
        table.commit();
        Ok(())
    }

    /// Applies the evictions of an offset; `record` has the series of its record. Returns true if others are due now, or not
    /// any more: a new series has taken the place of an evicted one, or one was evicted for its memory.
    fn evict(&mut self, table: &mut SeriesTable, at: i64, record: &BTreeSet<String>) -> Result<bool, String> {
        let mut changes_others = false;
        for key in self.evicted.remove(&at).unwrap_or_default() {
            changes_others |= record.iter().any(|series| !table.contains(series));
            let is_due = self.bounds.iter().any(|bounds| table.obey(&key, at, *bounds, record));
            let is_given_up = !is_due && self.has_memory_limit && table.give_up(&key, at);
            if !is_due && !is_given_up {
                return Err(format!("[{}] {key} was evicted before {at} without need", self.partition));
            }
            changes_others |= is_given_up;
        }
        Ok(changes_others)
    }
}

/// Returns the ranges of a checkpoint in which records of unknown series were refused.
fn refusals_of(key: &[u8], value: &[u8]) -> Vec<(i64, Option<i64>)> {
    let body = snapshot::unseal(key, value).expect("a checkpoint");
    let body = serde_json::from_slice::<serde_json::Value>(body).expect("a checkpoint is JSON");
    let range = |range: &serde_json::Value| Some((range["from"].as_i64()?, range["to"].as_i64()));
    body["refusals"].as_array().into_iter().flatten().filter_map(range).collect()
}

impl SimulatedCluster {
    /// Returns the recorded changes of the settings by partition: fingerprints, and the offsets from which they
    /// applied. Each checkpoint has the settings from its own offset on.
    pub(crate) fn epochs(&self) -> BTreeMap<i32, Vec<(i64, String)>> {
        let mut all = BTreeMap::<i32, Vec<(i64, String)>>::new();
        for ((topic, partition), log) in &self.topics {
            let is_there = |entry: &&LogEntry| !matches!(entry.fate, Fate::Aborted | Fate::Open);
            let entries = log.entries.iter().filter(is_there).filter(|_| *topic == SimulatedTopic::State);
            for entry in entries {
                let (Some(key @ b"f"), Some(value)) = (entry.key.as_deref(), &entry.value) else { continue };
                let body = snapshot::unseal(key, value).expect("a checkpoint");
                let body = serde_json::from_slice::<serde_json::Value>(body).expect("a checkpoint is JSON");
                let epoch =
                    |epoch: &serde_json::Value| Some((epoch["from"].as_i64()?, epoch["settings"].as_str()?.into()));
                let newer = body["epochs"].as_array().into_iter().flatten().filter_map(epoch).collect::<Vec<_>>();
                let known = all.entry(*partition).or_default();
                known.retain(|(from, _)| newer.first().is_some_and(|(first, _)| from < first));
                known.extend(newer);
            }
        }
        all.retain(|_, epochs| !epochs.is_empty());
        all
    }
}
