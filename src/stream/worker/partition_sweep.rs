//! The snapshot writing of one partition: which snapshots, evictions and tombstones the next transaction contains, and
//! what changes once it is committed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::live::{KeyChanges, LiveDigest};
use super::oversize::{LeftOut, StateLimits};
use crate::detect::Detector;
use crate::meter::Meter;
use crate::series::clock::ClockSnapshot;
use crate::series::snapshot::{SnapshotOrigin, encode_evicted, record_key, series_of};
use crate::series::sweep::{self, SweptRecord};
use crate::series::{GoneSeries, OversizeSeries, SeriesTable};
use crate::stream::client::{OutgoingRecord, OutputTopic};
use crate::stream::progress::Progress;

/// Time after which a sweep starts although the input does not justify it; at worst it writes one record per event.
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
/// Number of evicted series without a tombstone at which a sweep starts early; more if there are more series.
const MAX_GONE_SERIES: usize = 100_000;

/// State of the snapshot writing of one partition.
pub(super) struct PartitionSweep {
    pub checkpoint: Checkpoint,
    pub sweep: Option<Sweep>,
    /// Time at which the last sweep ended.
    pub rested: Duration,
    /// Size of the input since the start of the last sweep, in bytes.
    pub bytes: u64,
    /// Evicted series whose records are not deleted yet.
    pub gone: HashMap<Box<str>, GoneSeries>,
    /// Those of them that the restore evicted, and whose evictions are not recorded yet.
    pub owed: Vec<Box<str>>,
    /// Number and hash of the keys of the state topic that have a record.
    pub live: LiveDigest,
    /// Whether the input's retention comes close to the checkpoint.
    pub is_pressed: bool,
    /// State that the last sweep left out. The checkpoint stays, so that a restart replays it.
    pub left_out: LeftOut,
}

/// A sweep in progress.
#[derive(Clone)]
pub(super) struct Sweep {
    pub from: i64,
    /// State of the partition's clock at `from`.
    pub time: ClockSnapshot,
    /// Number of records before `from` that have an outcome.
    pub passed: u64,
    pub cursor: u32,
    pub part: usize,
    /// Series that the parts so far have left out.
    pub oversize: OversizeSeries,
}

/// Snapshots and checkpoints in one transaction.
#[derive(Default)]
pub(super) struct WrittenSnapshots {
    pub records: Vec<OutgoingRecord>,
    pub snapshots: u64,
    pub evictions: u64,
    pub tombstones: u64,
    pub checkpoints: u64,
    pub bytes: u64,
    pub effects: Vec<(i32, Effect)>,
}

/// Changes to apply after the commit of that transaction.
#[derive(Default)]
pub(super) struct Effect {
    pub part: Option<(Sweep, sweep::SweepPart)>,
    /// What the sweep has left out, if it ends.
    pub ended: Option<LeftOut>,
    pub checkpoint: Option<Checkpoint>,
    pub unrecorded: u64,
    pub gone: Vec<(Box<str>, GoneSeries)>,
    pub keys: KeyChanges,
    pub buried: Vec<Box<str>>,
}

impl Effect {
    pub(crate) fn is_empty(&self) -> bool {
        self.part.is_none() && self.checkpoint.is_none() && self.gone.is_empty()
    }
}

impl WrittenSnapshots {
    /// Adds the numbers to the metrics.
    pub(crate) fn count(&self, meter: &Meter) {
        meter.snapshots.add("snapshot", self.snapshots);
        meter.snapshots.add("eviction", self.evictions);
        meter.snapshots.add("tombstone", self.tombstones);
        meter.snapshots.add("checkpoint", self.checkpoints);
        meter.snapshot_bytes.inc_by(self.bytes);
    }
}

/// The records of one partition in a transaction.
struct StateRecords<'w> {
    partition: i32,
    keys: KeyChanges,
    written: &'w mut WrittenSnapshots,
}

impl StateRecords<'_> {
    /// Adds a record; without a value it deletes its key. `was_live` says whether the topic has a record with this key.
    fn send(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, was_live: bool) {
        self.keys.note(&key, was_live, value.is_some());
        self.written.bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
        let (output, key) = (OutputTopic::State(self.partition), Some(key));
        self.written.records.push(OutgoingRecord { output, key, value, timestamp: None, headers: Vec::new() });
    }
}

impl PartitionSweep {
    /// Returns whether a sweep should start.
    pub(crate) fn is_due(&self, progress: &Progress, table: &SeriesTable, interval: Duration, now: Duration) -> bool {
        let rest = now.saturating_sub(self.rested);
        // Half is the limit because writing a snapshot is cheaper than replaying the input at a restart.
        let is_worth_it = self.bytes >= table.dirty_bytes() / 2 || rest >= MAX_SWEEP_INTERVAL || self.is_pressed;
        let has_changed = progress.offset > self.checkpoint.offset;
        // Settings that never judged must not be stored: the next epoch replaces theirs.
        let has_judged = self.checkpoint.epochs.last().is_none_or(|epoch| progress.offset > epoch.from);
        // Without a checkpoint no eviction is deleted.
        let has_gone = self.gone.len() >= MAX_GONE_SERIES.max(table.len()) && !self.left_out.is_held();
        has_judged && (has_gone || (has_changed && rest >= interval && is_worth_it))
    }

    /// Adds the records of this partition for the transaction that commits this progress: evictions, and the next part of
    /// the sweep.
    pub(crate) fn write(
        &self,
        detector: &Detector,
        (partition, table, progress): (i32, &SeriesTable, &Progress),
        sweep: Option<Sweep>,
        limits: StateLimits,
        written: &mut WrittenSnapshots,
    ) -> Effect {
        let mut effect = Effect::default();
        let mut records = StateRecords { partition, keys: KeyChanges::default(), written };
        self.write_evictions(detector, table, limits, &mut records, &mut effect);
        if let Some(sweep) = sweep {
            self.write_part(detector, (table, progress), sweep, limits, &mut records, &mut effect);
        }
        effect.keys = records.keys;
        effect
    }

    /// Returns whether the state topic has a record of an evicted series.
    fn had_record(&self, series: &str) -> bool {
        self.gone.get(series).is_some_and(|gone| gone.has_record)
    }

    /// Adds the records of evictions: those since the last commit, and those of the restore.
    fn write_evictions(
        &self,
        detector: &Detector,
        table: &SeriesTable,
        limits: StateLimits,
        records: &mut StateRecords<'_>,
        effect: &mut Effect,
    ) {
        let owed = self.owed.iter().filter_map(|key| Some((key, self.gone.get(key)?.begins, false)));
        let evicted = table.evicted().iter().map(|evicted| (&evicted.key, evicted.at, evicted.is_stored));
        for (series, at, is_stored) in owed.chain(evicted) {
            let key = record_key(series);
            let value = encode_evicted(&key, detector.fingerprint(), at);
            let was_live = is_stored || self.had_record(series);
            let is_recorded = key.len() + value.len() < limits.other;
            effect.gone.push((series.clone(), GoneSeries { begins: at, has_record: is_recorded || was_live }));
            if is_recorded {
                records.send(key, Some(value), was_live);
                records.written.evictions += 1;
            } else {
                effect.unrecorded += 1;
            }
        }
    }

    /// Adds the next snapshots of the sweep. If they are the last ones, it also adds the tombstones, and sets the
    /// checkpoint, unless a record was left out.
    fn write_part(
        &self,
        detector: &Detector,
        (table, progress): (&SeriesTable, &Progress),
        mut sweep: Sweep,
        limits: StateLimits,
        records: &mut StateRecords<'_>,
        effect: &mut Effect,
    ) {
        let (partition, topic) = (records.partition, self.checkpoint.topic.clone());
        let origin = SnapshotOrigin { settings: detector.fingerprint(), topic, partition };
        let (most, policies) = (sweep.part, detector.policies());
        let mut part = table.part(sweep.cursor, most, limits.snapshot, progress.offset, &origin, policies);
        sweep.oversize.add(&part.oversize);
        records.written.snapshots += part.records.len() as u64;
        for SweptRecord { key, value, is_stored } in std::mem::take(&mut part.records) {
            let was_live = is_stored || series_of(&key).is_some_and(|series| self.had_record(series));
            records.send(key, Some(value), was_live);
        }
        if part.next.is_none() {
            let checkpoint = self.checkpoint.moved(sweep.from, sweep.passed, sweep.time.clone(), progress);
            let size = checkpoint.record(partition).size();
            let is_refused = size >= limits.other;
            // The checkpoint must not pass a series without a snapshot: a restart replays it from the last one on.
            let has_all = sweep.oversize.count == 0 && !is_refused;
            effect.ended = Some(LeftOut {
                series: std::mem::take(&mut sweep.oversize),
                // A checkpoint replaces the records of evictions.
                evictions: if has_all { 0 } else { self.left_out.evictions },
                checkpoint: is_refused.then_some(size),
            });
            if has_all {
                self.write_tombstones(table, sweep.from, records, effect);
                effect.checkpoint = Some(checkpoint);
            }
        }
        effect.part = Some((sweep, part));
    }

    /// Deletes the records of evictions before the new checkpoint. No replay starts before it.
    fn write_tombstones(&self, table: &SeriesTable, from: i64, records: &mut StateRecords<'_>, effect: &mut Effect) {
        let evicted_now = table.evicted().iter().map(|evicted| &evicted.key).chain(&self.owed).collect::<HashSet<_>>();
        for (key, gone) in self.gone.iter().filter(|(_, gone)| gone.begins <= from) {
            // A series that was created again since then has a record of its own, or will get one.
            if !table.contains(key) && !evicted_now.contains(key) {
                records.send(record_key(key), None, gone.has_record);
                records.written.tombstones += 1;
            }
            effect.buried.push(key.clone());
        }
    }

    /// Records that new series are refused from this offset on, or accepted again.
    pub(crate) fn refuse(&self, partition: i32, offset: i64, refuses: bool, limits: StateLimits, effect: &mut Effect) {
        let checkpoint = effect.checkpoint.as_ref().unwrap_or(&self.checkpoint);
        if checkpoint.is_refusing() == refuses {
            return;
        }
        let changed = checkpoint.with_refusal(offset, refuses);
        // A decision that cannot be recorded is not made.
        if changed.record(partition).size() < limits.other {
            effect.checkpoint = Some(changed);
        }
    }

    /// Writes the digest of the live keys, behind the records that it counts: within the checkpoint if there is one.
    pub(crate) fn seal(&self, partition: i32, effect: &mut Effect, written: &mut WrittenSnapshots) {
        let live = effect.keys.applied_to(self.live);
        if let Some(checkpoint) = &mut effect.checkpoint {
            checkpoint.live = Some(live);
            written.checkpoints += 1;
            written.records.push(checkpoint.record(partition));
        } else if !effect.keys.is_empty() {
            written.records.push(live.record(partition));
        }
    }

    /// Applies the changes after the commit of the transaction.
    pub(crate) fn apply(&mut self, effect: Effect, table: &mut SeriesTable, now: Duration) {
        for key in &effect.buried {
            if self.gone.remove(key).is_some_and(|gone| gone.has_record) {
                // A series that exists again keeps the record of the eviction until its own snapshot.
                table.note_stored(key);
            }
        }
        self.gone.extend(effect.gone);
        self.left_out.evictions += effect.unrecorded;
        // All of them were in this transaction.
        self.owed.clear();
        self.live = effect.keys.applied_to(self.live);
        if let Some((sweep, part)) = effect.part {
            if self.sweep.is_none() {
                self.bytes = 0;
            }
            table.swept(&part);
            self.sweep = part.next.map(|cursor| Sweep { cursor, ..sweep });
        }
        if let Some(checkpoint) = effect.checkpoint {
            table.set_closed(checkpoint.is_refusing());
            self.checkpoint = checkpoint;
        }
        if let Some(left_out) = effect.ended {
            (self.left_out, self.rested) = (left_out, now);
        }
        #[cfg(test)]
        self.check_live(table);
    }

    /// Checks that the digest is that of all keys with a record.
    #[cfg(test)]
    fn check_live(&self, table: &SeriesTable) {
        let gone = self.gone.iter().filter(|(_, gone)| gone.has_record).map(|(key, _)| &**key);
        let keys = table.stored().chain(gone).map(record_key).collect::<HashSet<_>>();
        let mut all = KeyChanges::default();
        keys.iter().for_each(|key| all.note(key, false, true));
        assert_eq!(all.applied_to(LiveDigest::default()), self.live, "{} keys have a record", keys.len());
    }
}
