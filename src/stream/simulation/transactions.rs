//! The transaction coordinator. Epochs fence producers, and timeouts abort transactions. A decision is durable before
//! its markers are written, and offsets are invisible until then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::seconds;
use crate::stream::client::{Fault, Positions, Remedy};
use crate::stream::progress::{Progress, ProgressByPartition};

const TIMEOUT: Duration = seconds(10);

#[derive(Default)]
pub(super) struct Transactions {
    pub by_id: BTreeMap<String, Transaction>,
    /// Offsets that the group has committed.
    pub offsets: ProgressByPartition,
    /// Number of the input's partitions when the group was created, as stored with each offset.
    origins: BTreeMap<i32, i32>,
    /// Partitions whose first offset was committed after the group had begun without them.
    pub added: BTreeSet<i32>,
    /// First commit of each partition.
    pub starts: BTreeMap<i32, FirstCommit>,
    /// Ends of the partitions when a member first found that the group has no offset of them.
    pub ends_when_new: Positions,
    /// Partitions whose offset another program committed last, with the last progress of a worker.
    pub foreign: ProgressByPartition,
    /// Actors that have received an offset of another program, and must not continue there.
    pub warned: BTreeSet<usize>,
    /// Offsets that `anomaly offsets` has set.
    pub sets: Vec<OffsetSet>,
    /// Number of partitions in which a worker continued at an offset of another program.
    pub usurped: u32,
    /// Number of commits that moved a partition back.
    pub regressions: u32,
}

#[derive(Default)]
pub(super) struct Transaction {
    pub epoch: u32,
    open: Option<Open>,
    /// Whether the last transaction was committed; `None` before the first one ends.
    last: Option<bool>,
}

/// Offsets that a member commits.
#[derive(Debug, Clone)]
pub(super) struct OffsetCommit {
    pub progress: ProgressByPartition,
    /// Number of the input's partitions when the group was created, according to the member.
    pub origin: i32,
    /// Ends of the partitions of which the member found no offset, when it asked for them.
    pub ends: Positions,
    /// Whether it is of `anomaly offsets`, and not of a member.
    pub is_tool: bool,
}

/// An offset that `anomaly offsets` has set after another program.
#[derive(Debug, Clone, Copy)]
pub(super) struct OffsetSet {
    pub partition: i32,
    /// Offset to which workers had judged the partition.
    pub judged: i64,
    /// The progress that was committed instead.
    pub next: Progress,
}

/// First commit of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstCommit {
    pub progress: Progress,
    /// End of the partition when its member found no offset of it.
    pub end_before: i64,
    /// End of the partition when the commit took effect.
    pub end_after: i64,
}

struct Open {
    since: Duration,
    touched: BTreeSet<(SimulatedTopic, i32)>,
    offsets: Option<OffsetCommit>,
    /// Decision to commit or to abort; the markers follow.
    decided: Option<bool>,
}

fn fenced() -> Fault {
    Fault::new(Remedy::Rebuild, "fenced: a producer with a newer epoch is there")
}

impl Transactions {
    /// Returns the number of partitions that start after the end that an earlier member found.
    pub(super) fn begun_again(&self) -> u64 {
        let is_later = |(partition, first): &(&i32, &FirstCommit)| {
            self.ends_when_new.get(partition).is_some_and(|end| *end < first.end_before.min(first.progress.offset))
        };
        self.starts.iter().filter(is_later).count() as u64
    }
}

impl SimulatedCluster {
    /// Initialises a producer: aborts an open transaction of the same id, and fences the older producer.
    pub(super) fn init(&mut self, id: &str) -> u32 {
        let transaction = self.transactions.by_id.entry(id.to_owned()).or_default();
        if let Some(open) = &mut transaction.open {
            open.decided.get_or_insert(false);
        }
        self.finish(id);
        let transaction = self.transactions.by_id.entry(id.to_owned()).or_default();
        transaction.epoch += 1;
        transaction.last = None;
        transaction.epoch
    }

    fn transaction(&mut self, id: &str, epoch: u32) -> Result<&mut Transaction, Fault> {
        self.transactions.by_id.get_mut(id).filter(|transaction| transaction.epoch == epoch).ok_or_else(fenced)
    }

    fn open(&mut self, id: &str, epoch: u32, now: Duration) -> Result<&mut Open, Fault> {
        self.transaction(id, epoch)?;
        // A new transaction waits for the markers of the last one.
        if self.transaction(id, epoch)?.open.as_ref().is_some_and(|open| open.decided.is_some()) {
            self.finish(id);
        }
        let fresh = || Open { since: now, touched: BTreeSet::new(), offsets: None, decided: None };
        Ok(self.transaction(id, epoch)?.open.get_or_insert_with(fresh))
    }

    pub(super) fn append(
        &mut self,
        id: &str,
        epoch: u32,
        now: Duration,
        place: (SimulatedTopic, i32),
        entry: LogEntry,
    ) -> Result<(), Fault> {
        self.open(id, epoch, now)?.touched.insert(place);
        self.partition(place.0, place.1).entries.push(entry);
        Ok(())
    }

    /// Adds offsets to the transaction. The caller has checked the member's generation.
    pub(super) fn add_offsets(
        &mut self,
        id: &str,
        epoch: u32,
        now: Duration,
        commit: OffsetCommit,
    ) -> Result<(), Fault> {
        self.open(id, epoch, now)?.offsets = Some(commit);
        Ok(())
    }

    /// Ends the transaction. A repeated call with the same decision succeeds, because its answer may have been lost.
    pub(super) fn end(&mut self, id: &str, epoch: u32, commit: bool) -> Result<(), Fault> {
        let transaction = self.transaction(id, epoch)?;
        match &mut transaction.open {
            Some(open) => match open.decided {
                None => open.decided = Some(commit),
                Some(decided) if decided == commit => {}
                Some(_) => return Err(Fault::new(Remedy::Rebuild, "the transaction has ended otherwise")),
            },
            None if transaction.last == Some(commit) || !commit => {}
            None => return Err(Fault::new(Remedy::Rebuild, "there is no transaction to commit")),
        }
        Ok(())
    }

    /// Writes all remaining markers of a decided transaction.
    fn finish(&mut self, id: &str) {
        while self.write_marker(id) {}
    }

    /// Writes one marker, or the group's offsets, in a random order. Returns false if none is left.
    pub(super) fn write_marker(&mut self, id: &str) -> bool {
        let Some(transaction) = self.transactions.by_id.get_mut(id) else { return false };
        let Some(open) = &mut transaction.open else { return false };
        let Some(commit) = open.decided else { return false };
        // The offsets are taken before the partitions, so that a reader of offsets does not consider them written.
        if let Some(OffsetCommit { progress: offsets, origin, ends, is_tool }) = open.offsets.take() {
            if commit {
                self.decide(id, is_tool, &offsets);
                for (partition, progress) in &offsets {
                    if !self.transactions.offsets.contains_key(partition) {
                        let end_after = self.topics[&(SimulatedTopic::Input, *partition)].stable();
                        let end_before = ends.get(partition).copied().unwrap_or(end_after);
                        let first = FirstCommit { progress: *progress, end_before, end_after };
                        self.transactions.starts.insert(*partition, first);
                    }
                }
                for (&partition, &next) in &offsets {
                    let Some(judged) = self.transactions.foreign.remove(&partition).map(|known| known.offset) else {
                        continue;
                    };
                    self.transactions.usurped += u32::from(!is_tool);
                    self.transactions.sets.push(OffsetSet { partition, judged, next });
                    // The offset may be before that of the other program, but not before that of the workers.
                    self.transactions.offsets.insert(partition, Progress { offset: judged, ..next });
                }
                let known = &mut self.transactions.offsets;
                let is_back = |(partition, progress): (&i32, &Progress)| {
                    known.get(partition).is_some_and(|k| k.offset > progress.offset)
                };
                self.transactions.regressions += offsets.iter().filter(|moved| is_back(*moved)).count() as u32;
                let is_added =
                    |partition: &&i32| !known.is_empty() && !known.contains_key(partition) && **partition >= origin;
                self.transactions.added.extend(offsets.keys().filter(is_added));
                self.transactions.origins.extend(offsets.keys().map(|partition| (*partition, origin)));
                known.extend(offsets);
            }
            return true;
        }
        let Some(place) = open.touched.pop_first() else {
            transaction.last = Some(commit);
            transaction.open = None;
            return false;
        };
        let fate = if commit { Fate::Committed } else { Fate::Aborted };
        let partition = self.partition(place.0, place.1);
        partition.entries.iter_mut().filter(|e| e.fate == Fate::Open && e.owner == id).for_each(|e| e.fate = fate);
        partition.marker();
        true
    }

    /// Commits an offset as another program, if the group has no members. It is this number of records after the
    /// committed one, or before it.
    pub(super) fn commit_as_another(&mut self, partition: i32, records: i64) {
        if !self.group.members.is_empty() || self.is_unstable() {
            return;
        }
        let Some(known) = self.transactions.offsets.get(&partition).copied() else { return };
        let input = self.partition(SimulatedTopic::Input, partition);
        let offset = (known.offset + records).clamp(input.start, input.stable());
        if offset != known.offset {
            self.transactions.foreign.entry(partition).or_insert(known);
            self.transactions.offsets.insert(partition, Progress { offset, ..Progress::default() });
            self.transactions.origins.remove(&partition);
        }
    }

    /// Returns the number of partitions that the input had when the group was created, as stored with the offsets. 0 if
    /// all offsets are of other programs.
    pub(super) fn origin(&self) -> i32 {
        let Transactions { offsets, origins, .. } = &self.transactions;
        let none = if offsets.is_empty() { self.partitions } else { 0 };
        origins.values().copied().min().unwrap_or(none)
    }

    /// Returns the transactions whose markers are being written.
    pub(super) fn deciding(&self) -> Vec<String> {
        let is_decided = |t: &Transaction| t.open.as_ref().is_some_and(|open| open.decided.is_some());
        self.transactions.by_id.iter().filter(|(_, t)| is_decided(t)).map(|(id, _)| id.clone()).collect()
    }

    /// Returns whether offsets wait for the outcome of a transaction.
    pub(super) fn is_unstable(&self) -> bool {
        self.transactions.by_id.values().any(|t| t.open.as_ref().is_some_and(|open| open.offsets.is_some()))
    }

    /// Aborts transactions that have been open for too long, and fences their producers.
    pub(super) fn time_out(&mut self, now: Duration) {
        let mut late = Vec::new();
        for (id, transaction) in &mut self.transactions.by_id {
            let is_late = |open: &Open| open.decided.is_none() && now.saturating_sub(open.since) > TIMEOUT;
            if let Some(open) = transaction.open.as_mut().filter(|open| is_late(open)) {
                open.decided = Some(false);
                transaction.epoch += 1;
                late.push(id.clone());
            }
        }
        late.iter().for_each(|id| self.finish(id));
    }
}
