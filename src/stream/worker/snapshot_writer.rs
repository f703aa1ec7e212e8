//! Decides which snapshots are written to `anomaly_state`, and when. No event causes a write. A sweep writes every
//! series that changed since the last one, in parts, each in the transaction of other output. The checkpoint that
//! completes it has the offset from which the input must be replayed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::live::{KeyChange, KeyHash, LiveKeys};
use super::oversize::{LeftOut, StateLimits};
use crate::detect::Detector;
use crate::meter::Meter;
use crate::series::clock::ClockSnapshot;
use crate::series::snapshot::{SnapshotOrigin, encode_evicted, record_key, series_of};
use crate::series::{OversizeSeries, SeriesTable, sweep};
use crate::stream::client::{OutgoingRecord, OutputTopic, Positions};
use crate::stream::progress::{Progress, ProgressByPartition};

/// Time after which a sweep starts although the input does not justify it; at worst it writes one record per event.
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
/// Maximum number of snapshot bytes per transaction. A part is otherwise a hundredth of its sweep.
const LARGEST_PART: usize = 4 << 20;
/// Maximum bytes of an eviction's value.
const LARGEST_EVICTION: usize = 32;
/// Number of evicted series without a tombstone at which a sweep starts early; more if there are more series.
const GONE: usize = 100_000;

/// Snapshot writing of all partitions of a worker.
pub(super) struct SnapshotWriter {
    interval: Duration,
    /// Minimum size of one part, in bytes.
    least: usize,
    /// Current maximum size of all parts. An abort reduces it, because the transaction may have been too large.
    most: usize,
    limits: StateLimits,
    places: BTreeMap<i32, PartitionSweep>,
}

struct PartitionSweep {
    checkpoint: Checkpoint,
    sweep: Option<Sweep>,
    /// Time at which the last sweep ended.
    rested: Duration,
    /// Size of the input since the start of the last sweep, in bytes.
    bytes: u64,
    /// Evicted series whose records are not deleted yet, and the offset from which each starts again.
    gone: HashMap<Box<str>, i64>,
    /// Those of them that the restore evicted, and whose evictions are not recorded yet.
    owed: Vec<Box<str>>,
    /// Keys of the state topic that have a record.
    live: LiveKeys,
    /// Whether the input's retention comes close to the checkpoint.
    is_pressed: bool,
    /// State that the last sweep left out. The checkpoint stays, so that a restart replays it.
    left_out: LeftOut,
}

#[derive(Clone)]
struct Sweep {
    from: i64,
    /// State of the partition's clock at `from`.
    time: ClockSnapshot,
    /// Number of records before `from` that have an outcome.
    passed: u64,
    cursor: u32,
    part: usize,
    /// Series that the parts so far have left out.
    oversize: OversizeSeries,
}

/// Snapshots and checkpoints in one transaction.
#[derive(Default)]
pub(super) struct WrittenSnapshots {
    pub records: Vec<OutgoingRecord>,
    snapshots: u64,
    evictions: u64,
    tombstones: u64,
    checkpoints: u64,
    bytes: u64,
    effects: Vec<(i32, Effect)>,
}

/// Changes to apply after the commit of that transaction.
#[derive(Default)]
struct Effect {
    part: Option<(Sweep, sweep::SweepPart)>,
    /// What the sweep has left out, if it ends.
    ended: Option<LeftOut>,
    checkpoint: Option<Checkpoint>,
    unrecorded: u64,
    gone: Vec<(Box<str>, i64)>,
    keys: Vec<KeyChange>,
    buried: Vec<Box<str>>,
}

impl Effect {
    fn is_empty(&self) -> bool {
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

impl SnapshotWriter {
    pub(crate) fn new(interval: Duration, least: usize) -> Self {
        let (limits, places) = (StateLimits::default(), BTreeMap::new());
        SnapshotWriter { interval, least, most: LARGEST_PART, limits, places }
    }

    /// Adds a restored partition. The evictions of `owed` are recorded with the next commit, before a record of the
    /// partition has an outcome. Its `bytes` of replayed input count, so that partitions that move often are swept
    /// too.
    pub(crate) fn begin(
        &mut self,
        partition: i32,
        checkpoint: Checkpoint,
        live: LiveKeys,
        (gone, owed): (HashMap<Box<str>, i64>, Vec<Box<str>>),
        bytes: u64,
        now: Duration,
    ) {
        let rested = now.saturating_sub(self.interval);
        let left_out = LeftOut::default();
        let place =
            PartitionSweep { checkpoint, sweep: None, rested, bytes, gone, owed, live, is_pressed: false, left_out };
        self.places.insert(partition, place);
    }

    /// Removes all partitions, because they belong to others.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
    }

    /// Reduces the size of the parts after an aborted transaction.
    pub(crate) fn ease(&mut self) {
        self.most = (self.most / 2).max(self.least);
    }

    /// Leaves out records of this size, because the state topic refused the record of this key, until the given time.
    /// Returns whether it is a snapshot.
    pub(crate) fn leave_out(&mut self, key: &[u8], size: usize, retry_at: Duration) -> bool {
        // An eviction has a few bytes more than its key.
        let is_snapshot = series_of(key).is_some() && size > key.len() + LARGEST_EVICTION;
        self.limits.note(size, is_snapshot, retry_at);
        is_snapshot
    }

    /// Returns the state that the topic does not have. Also returns the partition whose checkpoint is furthest behind
    /// because of it, with the checkpoint's offset.
    pub(crate) fn left_out(&self, positions: &ProgressByPartition) -> (LeftOut, Option<(i32, i64)>) {
        let mut sum = LeftOut::default();
        self.places.values().for_each(|place| sum.add(&place.left_out));
        let held = self.places.iter().filter(|(_, place)| place.left_out.is_held());
        let behind = held.filter_map(|(partition, place)| {
            let from = place.checkpoint.offset;
            Some((positions.get(partition)?.offset - from, *partition, from))
        });
        (sum, behind.max().map(|(_, partition, from)| (partition, from)))
    }

    /// Notes the first offsets that the input still has.
    pub(crate) fn note_starts(&mut self, starts: &Positions, positions: &ProgressByPartition) {
        for (partition, place) in &mut self.places {
            let (Some(&first), Some(progress)) = (starts.get(partition), positions.get(partition)) else { continue };
            // The checkpoint is in the older half of the remaining records.
            place.is_pressed = first > 0 && place.checkpoint.offset < first + (progress.offset - first) / 2;
        }
    }

    /// Returns whether a snapshot is due although no event was consumed.
    pub(crate) fn wants(&self, detector: &Detector, positions: &ProgressByPartition, now: Duration) -> bool {
        self.places.iter().any(|(partition, place)| {
            place.sweep.is_some()
                || !place.owed.is_empty()
                || positions
                    .get(partition)
                    .zip(detector.table(*partition))
                    .is_some_and(|(progress, table)| place.is_due(progress, table, self.interval, now))
        })
    }

    /// Returns the snapshot records for the transaction that commits this progress. `refuses` says whether new series are
    /// refused from there on.
    pub(crate) fn write(
        &self,
        detector: &Detector,
        positions: &ProgressByPartition,
        refuses: bool,
        now: Duration,
    ) -> WrittenSnapshots {
        let mut written = WrittenSnapshots::default();
        for (&partition, place) in &self.places {
            if let (Some(progress), Some(table)) = (positions.get(&partition), detector.table(partition)) {
                // The partitions take turns if their parts are too large for one transaction.
                let is_full = written.bytes >= self.most as u64;
                let sweep = place.sweep.clone().or_else(|| self.begin_sweep(place, table, progress, now));
                let sweep = sweep.filter(|_| !is_full).map(|sweep| Sweep { part: sweep.part.min(self.most), ..sweep });
                let mut effect = place.write(detector, (partition, table, progress), sweep, self.limits, &mut written);
                place.refuse(partition, progress.offset, refuses, self.limits, &mut effect);
                place.seal(partition, &mut effect, &mut written);
                if !effect.is_empty() {
                    written.effects.push((partition, effect));
                }
            }
        }
        written
    }

    fn begin_sweep(
        &self,
        place: &PartitionSweep,
        table: &SeriesTable,
        progress: &Progress,
        now: Duration,
    ) -> Option<Sweep> {
        place.is_due(progress, table, self.interval, now).then(|| {
            let part = (table.dirty_bytes() as usize / 100).clamp(self.least, LARGEST_PART.max(self.least));
            Sweep {
                from: progress.offset,
                time: table.clock().read(),
                passed: progress.counts.found(),
                cursor: 0,
                part,
                oversize: OversizeSeries::default(),
            }
        })
    }

    /// Applies the changes after the commit of the transaction, which consumed `bytes` of input.
    pub(crate) fn commit(
        &mut self,
        detector: &mut Detector,
        written: WrittenSnapshots,
        bytes: &BTreeMap<i32, u64>,
        now: Duration,
    ) {
        self.most = (self.most * 2).min(LARGEST_PART);
        self.limits.relax(now);
        for (partition, bytes) in bytes {
            if let Some(place) = self.places.get_mut(partition) {
                place.bytes += bytes;
            }
        }
        for (partition, effect) in written.effects {
            let Some(place) = self.places.get_mut(&partition) else { continue };
            effect.buried.iter().for_each(|key| {
                place.gone.remove(key);
            });
            place.gone.extend(effect.gone);
            place.left_out.evictions += effect.unrecorded;
            // All of them were in this transaction.
            place.owed.clear();
            effect.keys.into_iter().for_each(|change| place.live.note(change));
            if let Some((sweep, part)) = effect.part {
                if place.sweep.is_none() {
                    place.bytes = 0;
                }
                if let Some(table) = detector.table_mut(partition) {
                    table.swept(&part);
                }
                place.sweep = part.next.map(|cursor| Sweep { cursor, ..sweep });
            }
            if let Some(checkpoint) = effect.checkpoint {
                tracing::debug!(partition, checkpoint = checkpoint.offset, "checkpoint written");
                if let Some(table) = detector.table_mut(partition) {
                    table.set_closed(checkpoint.is_refusing());
                }
                place.checkpoint = checkpoint;
            }
            if let Some(left_out) = effect.ended {
                (place.left_out, place.rested) = (left_out, now);
            }
        }
    }
}

impl PartitionSweep {
    fn is_due(&self, progress: &Progress, table: &SeriesTable, interval: Duration, now: Duration) -> bool {
        let rest = now.saturating_sub(self.rested);
        // Half is the limit because writing a snapshot is cheaper than replaying the input at a restart.
        let is_worth_it = self.bytes >= table.dirty_bytes() / 2 || rest >= MAX_SWEEP_INTERVAL || self.is_pressed;
        let has_changed = progress.offset > self.checkpoint.offset;
        // Settings that never judged must not be stored: the next epoch replaces theirs.
        let has_judged = self.checkpoint.epochs.last().is_none_or(|epoch| progress.offset > epoch.from);
        // Without a checkpoint no eviction is deleted.
        let has_gone = self.gone.len() >= GONE.max(table.len()) && !self.left_out.is_held();
        has_judged && (has_gone || (has_changed && rest >= interval && is_worth_it))
    }

    fn write(
        &self,
        detector: &Detector,
        (partition, table, progress): (i32, &SeriesTable, &Progress),
        sweep: Option<Sweep>,
        limits: StateLimits,
        written: &mut WrittenSnapshots,
    ) -> Effect {
        let fingerprint = detector.fingerprint();
        let mut effect = Effect::default();
        let mut keys = Vec::new();
        let mut send = |key: Vec<u8>, value: Option<Vec<u8>>| {
            keys.push((KeyHash::of(&key), value.is_some()));
            written.bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            let record = OutgoingRecord {
                output: OutputTopic::State(partition),
                key: Some(key),
                value,
                timestamp: None,
                headers: Vec::new(),
            };
            written.records.push(record);
        };
        let evicted_now = table.evicted().iter().map(|evicted| evicted.key.as_ref()).collect::<HashSet<&str>>();
        let owed = self.owed.iter().filter_map(|key| Some((key, *self.gone.get(key)?)));
        let evicted_in_turn = owed.chain(table.evicted().iter().map(|evicted| (&evicted.key, evicted.at)));
        for (series, at) in evicted_in_turn {
            let key = record_key(series);
            let value = encode_evicted(&key, fingerprint, at);
            effect.gone.push((series.clone(), at));
            if key.len() + value.len() >= limits.other {
                effect.unrecorded += 1;
                continue;
            }
            send(key, Some(value));
            written.evictions += 1;
        }
        if let Some(mut sweep) = sweep {
            let origin = SnapshotOrigin { settings: fingerprint, topic: self.checkpoint.topic.clone(), partition };
            let (most, policies) = (sweep.part, detector.policies());
            let mut part = table.part(sweep.cursor, most, limits.snapshot, progress.offset, &origin, policies);
            sweep.oversize.add(&part.oversize);
            written.snapshots += part.records.len() as u64;
            std::mem::take(&mut part.records).into_iter().for_each(|(key, value)| send(key, Some(value)));
            let checkpoint = self.checkpoint.moved(sweep.from, sweep.passed, sweep.time.clone(), progress);
            let record = checkpoint.record(partition);
            let is_refused = record.size() >= limits.other;
            // The checkpoint must not pass a series without a snapshot: a restart replays it from the last one on.
            let has_all = sweep.oversize.count == 0 && !is_refused;
            if part.next.is_none() {
                effect.ended = Some(LeftOut {
                    series: std::mem::take(&mut sweep.oversize),
                    // A checkpoint replaces the records of evictions.
                    evictions: if has_all { 0 } else { self.left_out.evictions },
                    checkpoint: is_refused.then(|| record.size()),
                });
            }
            if part.next.is_none() && has_all {
                // No replay starts before the new checkpoint, so evictions before it need no record any more.
                for (key, _) in self.gone.iter().filter(|(_, begins)| **begins <= sweep.from) {
                    // A series that was created again since then has a record of its own, or will get one.
                    if !table.contains(key) && !evicted_now.contains(key.as_ref()) {
                        send(record_key(key), None);
                        written.tombstones += 1;
                    }
                    effect.buried.push(key.clone());
                }
                effect.checkpoint = Some(checkpoint);
            }
            effect.part = Some((sweep, part));
        }
        effect.keys = keys;
        effect
    }

    /// Records that new series are refused from this offset on, or accepted again.
    fn refuse(&self, partition: i32, offset: i64, refuses: bool, limits: StateLimits, effect: &mut Effect) {
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
    fn seal(&self, partition: i32, effect: &mut Effect, written: &mut WrittenSnapshots) {
        let live = self.live.digest_after(&effect.keys);
        if let Some(checkpoint) = &mut effect.checkpoint {
            checkpoint.live = Some(live);
            written.checkpoints += 1;
            written.records.push(checkpoint.record(partition));
        } else if !effect.keys.is_empty() {
            written.records.push(live.record(partition));
        }
    }
}
