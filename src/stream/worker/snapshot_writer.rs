//! Decides which snapshots are written to `anomaly_state`, and when. No event causes a write. A sweep writes every
//! series that changed since the last one, in parts, each in the transaction of other output. The checkpoint that
//! completes it has the offset from which the input must be replayed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::live::LiveDigest;
use super::oversize::{LeftOut, StateLimits};
use super::partition_sweep::{PartitionSweep, Sweep, WrittenSnapshots};
use crate::detect::Detector;
use crate::series::snapshot::series_of;
use crate::series::{GoneSeries, OversizeSeries, SeriesTable};
use crate::stream::client::Positions;
use crate::stream::progress::{Progress, ProgressByPartition};

/// Maximum number of snapshot bytes per transaction. A part is otherwise a hundredth of its sweep.
const LARGEST_PART: usize = 4 << 20;
/// Maximum bytes of an eviction's value.
const LARGEST_EVICTION: usize = 32;

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
        live: LiveDigest,
        (gone, owed): (HashMap<Box<str>, GoneSeries>, Vec<Box<str>>),
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
            if let Some(checkpoint) = &effect.checkpoint {
                tracing::debug!(partition, checkpoint = checkpoint.offset, "checkpoint written");
            }
            if let (Some(place), Some(table)) = (self.places.get_mut(&partition), detector.table_mut(partition)) {
                place.apply(effect, table, now);
            }
        }
    }
}
