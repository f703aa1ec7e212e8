//! A sweep writes snapshots of all series that changed since their last one. It takes them slot by slot in parts of
//! limited size, so that no transaction has to contain a million windows.

use super::snapshot::{EncodedSeries, SnapshotOrigin, encode_series, record_key};
use super::{DIRTY, STORED, SeriesTable};
use crate::policy::PolicyTable;

/// Maximum number of slots that one part visits.
const PLACES: usize = 50_000;

/// Some records of a sweep. They count as written once [`SeriesTable::swept`] is called with them.
#[derive(Debug, Default)]
pub struct SweepPart {
    /// The records.
    pub records: Vec<SweptRecord>,
    /// Slot at which the next part starts; `None` at the end.
    pub next: Option<u32>,
    /// Total size of keys and values in bytes.
    pub bytes: usize,
    /// Series whose snapshots are too large.
    pub oversize: OversizeSeries,
    places: Vec<u32>,
}

/// A snapshot to write.
#[derive(Debug, PartialEq, Eq)]
pub struct SweptRecord {
    /// Key of the record.
    pub key: Vec<u8>,
    /// Value of the record.
    pub value: Vec<u8>,
    /// Whether the state topic has an earlier record with this key.
    pub is_stored: bool,
}

/// Series that a sweep leaves out, because their snapshots are too large.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OversizeSeries {
    /// Number of series.
    pub count: u64,
    /// Size of the largest snapshot in bytes.
    pub largest: usize,
    /// Key of its series, see [`key`](super::key).
    pub name: String,
}

impl OversizeSeries {
    /// Adds other series.
    pub fn add(&mut self, other: &OversizeSeries) {
        self.count += other.count;
        if other.largest > self.largest {
            (self.largest, self.name) = (other.largest, other.name.clone());
        }
    }
}

impl SeriesTable {
    /// Returns the number of series that differ from their newest snapshot.
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// Returns the approximate total size of their snapshots, in bytes.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Returns snapshots of changed series from a slot on, until they are `most` bytes or more. `as_of` is the next
    /// offset; everything before it must be in the windows. Snapshots of `too_large` bytes or more are left out, and
    /// their series stay changed.
    pub fn part(
        &self,
        from: u32,
        most: usize,
        too_large: usize,
        as_of: i64,
        origin: &SnapshotOrigin,
        policies: &PolicyTable,
    ) -> SweepPart {
        let mut part = SweepPart::default();
        let last = self.series.len().min(from as usize + PLACES);
        let mut at = from as usize;
        while at < last && part.bytes < most {
            if let Some(record) = self.record(at, as_of, origin, policies) {
                let size = record.key.len() + record.value.len();
                if size < too_large {
                    part.bytes += size;
                    part.records.push(record);
                    part.places.push(at as u32);
                } else {
                    let name = self.series[at].as_ref().map_or("", |series| series.block.name()).to_owned();
                    part.oversize.add(&OversizeSeries { count: 1, largest: size, name });
                }
            }
            at += 1;
        }
        part.next = (at < self.series.len()).then_some(at as u32);
        part
    }

    /// Marks the series of a committed part as written.
    pub fn swept(&mut self, part: &SweepPart) {
        for &at in &part.places {
            if let Some(series) = self.series[at as usize].as_mut().filter(|series| series.has(DIRTY)) {
                series.raise(STORED);
                series.lower(DIRTY);
                (self.dirty, self.dirty_bytes) = (self.dirty - 1, self.dirty_bytes - series.snapshot_bytes());
            }
        }
    }

    /// Returns the record of the series in this slot, if it changed.
    fn record(&self, at: usize, as_of: i64, origin: &SnapshotOrigin, policies: &PolicyTable) -> Option<SweptRecord> {
        let series = self.series[at].as_ref().filter(|series| series.has(DIRTY))?;
        let key = record_key(series.block.name());
        let carried = self.carried.get(series.block.name()).map_or(&[][..], |carried| carried);
        let (last, touched, state) = (series.last, series.touched, series.block.state());
        let (count, values) = (series.block.len(), series.block.iter());
        let method = policies.method_of(series.policy, series.block.name());
        let encoded = EncodedSeries { last, touched, count, values, method: &method, state, carried };
        let value = encode_series(&key, origin, as_of, encoded);
        Some(SweptRecord { key, value, is_stored: series.has(STORED) })
    }
}

/// Methods for tests that check which series have a record.
#[cfg(test)]
impl SeriesTable {
    /// Returns the keys of the series that have a record in the state topic.
    pub fn stored(&self) -> impl Iterator<Item = &str> {
        self.series.iter().flatten().filter(|series| series.has(STORED)).map(|series| series.block.name())
    }
}
