//! What of the windows is written to `anomaly_state`, and when. Nothing is written for each event: a sweep writes every
//! series that changed since the last one, in parts, each in the transaction of some other output; the floor that closes it
//! says from where on the input must be replayed.

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

/// A sweep starts after so long although the input was not worth it: at the worst one record for each event.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Most bytes that a transaction carries of all sweeps; a part is else a hundredth of its sweep.
const LARGEST_PART: usize = 4 << 20;
/// Evicted series whose records wait for their tombstones, before a sweep starts early; more where there are more series.
const GONE: usize = 100_000;

/// All partitions of a worker.
pub(super) struct SnapshotWriter {
    interval: Duration,
    /// Least bytes of one part.
    least: usize,
    /// Most bytes for now: fewer after an abort, since it may have been too much.
    most: usize,
    places: BTreeMap<i32, Place>,
}

struct Place {
    floor: Checkpoint,
    sweep: Option<Sweep>,
    /// When the last sweep ended.
    rested: Duration,
    /// Input since the last sweep began.
    bytes: u64,
    /// Evicted series whose records are not deleted yet, and where each begins anew.
    gone: HashMap<Box<str>, i64>,
    /// The input's retention comes close to the floor.
    is_pressed: bool,
}

#[derive(Clone)]
struct Sweep {
    from: i64,
    /// The partition's clock there.
    time: ClockSnapshot,
    /// Records before it that have an outcome.
    passed: u64,
    cursor: u32,
    part: usize,
}

/// What one transaction carries of the windows.
#[derive(Default)]
pub(super) struct WrittenSnapshots {
    pub records: Vec<OutgoingRecord>,
    snapshots: u64,
    evictions: u64,
    tombstones: u64,
    floors: u64,
    bytes: u64,
    effects: Vec<(i32, Effect)>,
}

/// What holds once that transaction is committed.
struct Effect {
    part: Option<(Sweep, sweep::SweepPart)>,
    floor: Option<Checkpoint>,
    gone: Vec<(Box<str>, i64)>,
    buried: Vec<Box<str>>,
}

impl WrittenSnapshots {
    /// Adds it to the counters.
    pub(crate) fn count(&self, meter: &Meter) {
        meter.snapshots.add("snapshot", self.snapshots);
        meter.snapshots.add("eviction", self.evictions);
        meter.snapshots.add("tombstone", self.tombstones);
        meter.snapshots.add("floor", self.floors);
        meter.snapshot_bytes.inc_by(self.bytes);
    }
}

impl SnapshotWriter {
    pub(crate) fn new(interval: Duration, least: usize) -> Self {
        SnapshotWriter { interval, least, most: LARGEST_PART, places: BTreeMap::new() }
    }

    /// A partition was restored, for which `bytes` of input were replayed: they count, so that a restless group sweeps too.
    pub(crate) fn begin(
        &mut self,
        partition: i32,
        floor: Checkpoint,
        gone: HashMap<Box<str>, i64>,
        bytes: u64,
        now: Duration,
    ) {
        let rested = now.saturating_sub(self.interval);
        let place = Place { floor, sweep: None, rested, bytes, gone, is_pressed: false };
        self.places.insert(partition, place);
    }

    /// All partitions belong to others.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
    }

    /// A transaction was aborted.
    pub(crate) fn ease(&mut self) {
        self.most = (self.most / 2).max(self.least);
    }

    /// First offsets that the input still has.
    pub(crate) fn hear(&mut self, starts: &Positions, marks: &ProgressByPartition) {
        for (partition, place) in &mut self.places {
            let (Some(&first), Some(mark)) = (starts.get(partition), marks.get(partition)) else { continue };
            // In the older half of what is left.
            place.is_pressed = first > 0 && place.floor.offset < first + (mark.offset - first) / 2;
        }
    }

    /// Whether there is something to write although no event came.
    pub(crate) fn wants(&self, detector: &Detector, marks: &ProgressByPartition, now: Duration) -> bool {
        self.places.iter().any(|(partition, place)| {
            place.sweep.is_some()
                || marks
                    .get(partition)
                    .zip(detector.table(*partition))
                    .is_some_and(|(mark, table)| place.is_due(mark, table, self.interval, now))
        })
    }

    /// Records for the transaction that moves the partitions to these marks.
    pub(crate) fn write(&self, detector: &Detector, marks: &ProgressByPartition, now: Duration) -> WrittenSnapshots {
        let mut written = WrittenSnapshots::default();
        for (&partition, place) in &self.places {
            if let (Some(mark), Some(table)) = (marks.get(&partition), detector.table(partition)) {
                // One after the other, when they would be too much together.
                let is_full = written.bytes >= self.most as u64;
                let sweep = place.sweep.clone().or_else(|| self.begin_sweep(place, table, mark, now));
                let sweep = sweep.filter(|_| !is_full).map(|sweep| Sweep { part: sweep.part.min(self.most), ..sweep });
                place.write(detector, partition, table, mark, sweep, &mut written);
            }
        }
        written
    }

    fn begin_sweep(&self, place: &Place, table: &SeriesTable, mark: &Progress, now: Duration) -> Option<Sweep> {
        place.is_due(mark, table, self.interval, now).then(|| {
            let part = (table.dirty_bytes() as usize / 100).clamp(self.least, LARGEST_PART.max(self.least));
            Sweep { from: mark.offset, time: table.clock().read(), passed: mark.counts.sum(), cursor: 0, part }
        })
    }

    /// That transaction is committed; `bytes` of input came in it.
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
            if let Some(floor) = effect.floor {
                tracing::debug!(partition, floor = floor.offset, "all windows that changed are in the topic");
                (place.floor, place.rested) = (floor, now);
            }
        }
    }
}

impl Place {
    fn is_due(&self, mark: &Progress, table: &SeriesTable, interval: Duration, now: Duration) -> bool {
        let rest = now.saturating_sub(self.rested);
        // Half: what is written twice is cheaper than what a restart must replay.
        let is_worth_it = self.bytes >= table.dirty_bytes() / 2 || rest >= LONGEST || self.is_pressed;
        let has_changed = mark.offset > self.floor.offset;
        // Settings that never judged must leave no trace: their epoch is replaced by that of the next ones.
        let has_judged = self.floor.epochs.last().is_none_or(|epoch| mark.offset > epoch.from);
        let has_gone = self.gone.len() >= GONE.max(table.len());
        has_judged && (has_gone || (has_changed && rest >= interval && is_worth_it))
    }

    fn write(
        &self,
        detector: &Detector,
        partition: i32,
        table: &SeriesTable,
        mark: &Progress,
        sweep: Option<Sweep>,
        written: &mut WrittenSnapshots,
    ) {
        let fingerprint = detector.fingerprint();
        let mut effect = Effect { part: None, floor: None, gone: Vec::new(), buried: Vec::new() };
        let mut send = |key: Vec<u8>, value: Option<Vec<u8>>| {
            written.bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            let record =
                OutgoingRecord { output: OutputTopic::State(partition), key: Some(key), value, headers: Vec::new() };
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
            let origin = SnapshotOrigin { settings: fingerprint, topic: self.floor.topic.clone(), partition };
            let mut part = table.part(sweep.cursor, sweep.part, mark.offset, &origin, detector.policies());
            written.snapshots += part.records.len() as u64;
            std::mem::take(&mut part.records).into_iter().for_each(|(key, value)| send(key, Some(value)));
            if part.next.is_none() {
                // No replay begins before the new floor: what was evicted before it needs no mention any more.
                for (key, _) in self.gone.iter().filter(|(_, begins)| **begins <= sweep.from) {
                    // What came back since has a record of its own, or will have.
                    if !table.contains(key) && !evicted_now.contains(key.as_ref()) {
                        send(record_key(key), None);
                        written.tombstones += 1;
                    }
                    effect.buried.push(key.clone());
                }
                let floor = self.floor.moved(sweep.from, sweep.passed, sweep.time.clone(), mark);
                written.floors += 1;
                written.records.push(floor.record(partition));
                effect.floor = Some(floor);
            }
            effect.part = Some((sweep, part));
        }
        if effect.part.is_some() || !effect.gone.is_empty() {
            written.effects.push((partition, effect));
        }
    }
}
