//! Decides which snapshots are written to `anomaly_state`, and when. No event causes a write. A sweep writes every
//! series that changed since the last one, in parts, each in the transaction of other output. The checkpoint that
//! completes it has the offset from which the input must be replayed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::checkpoint::Checkpoint;
use crate::detect::Detector;
use crate::meter::Meter;
use crate::series::clock::ClockSnapshot;
use crate::series::snapshot::{SnapshotOrigin, encode_evicted, record_key};
use crate::series::{SeriesTable, sweep};
use crate::stream::client::{OutgoingRecord, OutputTopic, Positions};
use crate::stream::progress::{Progress, ProgressByPartition};

/// Time after which a sweep starts although the input does not justify it; at worst it writes one record per event.
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
/// Maximum number of snapshot bytes per transaction. A part is otherwise a hundredth of its sweep.
const LARGEST_PART: usize = 4 << 20;
/// Number of evicted series without a tombstone at which a sweep starts early; more if there are more series.
const GONE: usize = 100_000;

/// Snapshot writing of all partitions of a worker.
pub(super) struct SnapshotWriter {
    interval: Duration,
    /// Minimum size of one part, in bytes.
    least: usize,
    /// Current maximum size of all parts. An abort reduces it, because the transaction may have been too large.
    most: usize,
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
    /// Whether the input's retention comes close to the checkpoint.
    is_pressed: bool,
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
struct Effect {
    part: Option<(Sweep, sweep::SweepPart)>,
    checkpoint: Option<Checkpoint>,
    gone: Vec<(Box<str>, i64)>,
    buried: Vec<Box<str>>,
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
        SnapshotWriter { interval, least, most: LARGEST_PART, places: BTreeMap::new() }
    }

    /// Adds a restored partition. Its `bytes` of replayed input count, so that partitions that move often are swept
    /// too.
    pub(crate) fn begin(
        &mut self,
        partition: i32,
        checkpoint: Checkpoint,
        gone: HashMap<Box<str>, i64>,
        bytes: u64,
        now: Duration,
    ) {
        let rested = now.saturating_sub(self.interval);
        let place = PartitionSweep { checkpoint, sweep: None, rested, bytes, gone, is_pressed: false };
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
                || positions
                    .get(partition)
                    .zip(detector.table(*partition))
                    .is_some_and(|(progress, table)| place.is_due(progress, table, self.interval, now))
        })
    }

    /// Returns the snapshot records for the transaction that commits this progress.
    pub(crate) fn write(
        &self,
        detector: &Detector,
        positions: &ProgressByPartition,
        now: Duration,
    ) -> WrittenSnapshots {
        let mut written = WrittenSnapshots::default();
        for (&partition, place) in &self.places {
            if let (Some(progress), Some(table)) = (positions.get(&partition), detector.table(partition)) {
                // The partitions take turns if their parts are too large for one transaction.
                let is_full = written.bytes >= self.most as u64;
                let sweep = place.sweep.clone().or_else(|| self.begin_sweep(place, table, progress, now));
                let sweep = sweep.filter(|_| !is_full).map(|sweep| Sweep { part: sweep.part.min(self.most), ..sweep });
                place.write(detector, partition, table, progress, sweep, &mut written);
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
                tracing::debug!(partition, checkpoint = checkpoint.offset, "all windows that changed are in the topic");
                (place.checkpoint, place.rested) = (checkpoint, now);
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
        let has_gone = self.gone.len() >= GONE.max(table.len());
        has_judged && (has_gone || (has_changed && rest >= interval && is_worth_it))
    }

    fn write(
        &self,
        detector: &Detector,
        partition: i32,
        table: &SeriesTable,
        progress: &Progress,
        sweep: Option<Sweep>,
        written: &mut WrittenSnapshots,
    ) {
        let fingerprint = detector.fingerprint();
        let mut effect = Effect { part: None, checkpoint: None, gone: Vec::new(), buried: Vec::new() };
        let mut send = |key: Vec<u8>, value: Option<Vec<u8>>| {
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
        for evicted in table.evicted() {
            let key = record_key(&evicted.key);
            let value = encode_evicted(&key, fingerprint, evicted.at);
            send(key, Some(value));
            effect.gone.push((evicted.key.clone(), evicted.at));
            written.evictions += 1;
        }
        if let Some(sweep) = sweep {
            let origin = SnapshotOrigin { settings: fingerprint, topic: self.checkpoint.topic.clone(), partition };
            let mut part = table.part(sweep.cursor, sweep.part, progress.offset, &origin, detector.policies());
            written.snapshots += part.records.len() as u64;
            std::mem::take(&mut part.records).into_iter().for_each(|(key, value)| send(key, Some(value)));
            if part.next.is_none() {
                // No replay starts before the new checkpoint, so evictions before it need no record any more.
                for (key, _) in self.gone.iter().filter(|(_, begins)| **begins <= sweep.from) {
                    // A series that was created again since then has a record of its own, or will get one.
                    if !table.contains(key) && !evicted_now.contains(key.as_ref()) {
                        send(record_key(key), None);
                        written.tombstones += 1;
                    }
                    effect.buried.push(key.clone());
                }
                let checkpoint = self.checkpoint.moved(sweep.from, sweep.passed, sweep.time.clone(), progress);
                written.checkpoints += 1;
                written.records.push(checkpoint.record(partition));
                effect.checkpoint = Some(checkpoint);
            }
            effect.part = Some((sweep, part));
        }
        if effect.part.is_some() || !effect.gone.is_empty() {
            written.effects.push((partition, effect));
        }
    }
}
