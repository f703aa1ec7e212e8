//! Incidents of a schedule after which a person must decide: the input is recreated or cut, or snapshots are lost. The
//! workers stop, and `anomaly offsets` begins a new stretch of the partition.

use std::collections::BTreeMap;

use super::cluster::{Fate, SimulatedCluster, SimulatedPartition, SimulatedTopic};
use super::transactions::OffsetSet;
use crate::stream::progress::{Progress, ProgressByPartition};

/// Kind of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecisionCause {
    /// The input is deleted and created again, while workers run.
    RecreatedAtRuntime,
    /// The input is deleted and created again between two runs.
    Recreated,
    /// A partition of the input loses judged records, and gets others.
    Cut,
    /// Snapshots of a partition are lost.
    Lost,
}

impl DecisionCause {
    pub(super) const ALL: [DecisionCause; 4] =
        [DecisionCause::RecreatedAtRuntime, DecisionCause::Recreated, DecisionCause::Cut, DecisionCause::Lost];
}

/// An incident without a decision yet.
pub(super) struct PendingIncident {
    pub incident: DecisionCause,
    /// Log of each partition that waits for the decision, as it was before the incident.
    pub logs: BTreeMap<i32, SimulatedPartition>,
    /// Offset from which on a cut partition has other records.
    pub cut_at: i64,
}

/// The part of a partition's history that a decision has ended.
pub(super) struct Stretch {
    pub incident: DecisionCause,
    pub log: SimulatedPartition,
    /// Last progress of the workers.
    pub judged: Progress,
    /// Offsets that were set in this stretch after another program had committed.
    pub sets: Vec<OffsetSet>,
    /// Number of records that the state topic had at its end.
    pub state_end: usize,
    /// The progress that was committed instead.
    pub next: Progress,
    /// First offset whose values fill the windows of the next stretch.
    pub filled_from: i64,
    pub cut_at: i64,
}

#[derive(Default)]
pub(super) struct Rewrites {
    pub pending: Option<PendingIncident>,
    /// Ended stretches of each partition.
    pub past: BTreeMap<i32, Vec<Stretch>>,
    /// Number of times that the input was recreated.
    pub recreations: u32,
    /// Commits that no correct worker makes, as messages.
    pub wrongs: Vec<String>,
}

impl Rewrites {
    /// Returns the number of stretches that this kind of incident has ended.
    pub(super) fn count(&self, incident: DecisionCause) -> u64 {
        self.past.values().flatten().filter(|stretch| stretch.incident == incident).count() as u64
    }
}

/// Returns the offset of a checkpoint.
pub(super) fn checkpoint_offset(value: Option<&[u8]>) -> Option<i64> {
    // The body follows version and checksum.
    let json = serde_json::from_slice::<serde_json::Value>(value?.get(5..)?).ok()?;
    json["offset"].as_i64()
}

impl SimulatedCluster {
    /// Notes what a commit means for partitions that wait for a decision. The decision ends their stretch.
    pub(super) fn decide(&mut self, id: &str, is_tool: bool, offsets: &ProgressByPartition) {
        for (&partition, &next) in offsets {
            let Some(pending) = &mut self.rewrites.pending else { return };
            let (incident, cut_at) = (pending.incident, pending.cut_at);
            let Some(log) = pending.logs.get(&partition) else { continue };
            if !is_tool {
                // At runtime a worker may still commit records of the earlier topic.
                // A takeover may commit the same progress again, before it compares the log.
                let has_moved =
                    self.transactions.offsets.get(&partition).is_none_or(|known| known.offset != next.offset);
                if has_moved && (incident != DecisionCause::RecreatedAtRuntime || next.offset > log.end()) {
                    let text = format!("[{partition}] a worker committed {} after {incident:?}", next.offset);
                    self.rewrites.wrongs.push(text);
                }
                continue;
            }
            let Some(log) = pending.logs.remove(&partition) else { continue };
            if pending.logs.is_empty() {
                self.rewrites.pending = None;
            }
            let state = self.partition(SimulatedTopic::State, partition);
            let mut own = state.entries.iter().filter(|entry| entry.owner == id && entry.fate == Fate::Open);
            let checkpoint = own.rfind(|entry| entry.key.as_deref() == Some(b"f"));
            let filled_from = checkpoint.and_then(|entry| checkpoint_offset(entry.value.as_deref()));
            let (state_end, transactions) = (state.entries.len(), &mut self.transactions);
            let judged = transactions.offsets.insert(partition, next).unwrap_or_default();
            let (sets, others) =
                std::mem::take(&mut transactions.sets).into_iter().partition(|set| set.partition == partition);
            transactions.sets = others;
            let filled_from = filled_from.unwrap_or(next.offset);
            let stretch = Stretch { incident, log, judged, sets, state_end, next, filled_from, cut_at };
            self.rewrites.past.entry(partition).or_default().push(stretch);
        }
    }

    /// Returns whether `anomaly offsets` must be run before all workers continue.
    pub(super) fn awaits_decision(&self) -> bool {
        self.rewrites.pending.is_some() || !self.transactions.foreign.is_empty()
    }

    /// Returns the first offset of a partition that cannot be read now.
    pub(super) fn damage(&self, topic: SimulatedTopic, partition: i32) -> Option<i64> {
        self.damaged.get(&(topic, partition)).copied()
    }
}
