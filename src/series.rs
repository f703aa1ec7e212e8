//! The table of all series of one partition. It finds a series by its key and appends one value at a time. It evicts
//! series when there are too many or when they were silent for too long. It restores the last committed state when a
//! transaction is aborted. It does not depend on Kafka.
//!
//! The partition's records alone decide which series are due for eviction, never the wall clock. The live loop decides
//! when a series is evicted, and records the decision; see `evict`.

pub(crate) mod budget;
pub(crate) mod clock;
mod evict;
mod recency;
mod restore;
mod saved_states;
pub(crate) mod snapshot;
pub(crate) mod sweep;
mod undo;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::policy::{PolicyNumber, UNRESOLVED};
use crate::series_block::{Replaced, SeriesBlock};
pub(crate) use budget::{BudgetShare, SeriesBudget};
use clock::PartitionClock;
pub(crate) use evict::{Evicted, EvictionCause, Evictions, SeriesLimits};
use recency::RecencyList;
pub(crate) use restore::{FinishedTable, GoneSeries, ReplayedEvent, TableRestore};
use saved_states::SavedStates;
pub(crate) use sweep::OversizeSeries;
pub(crate) use undo::UndoLog;
use undo::UndoStep;

/// Bytes of a snapshot without the series' name, its values and its state.
const SNAPSHOT_OVERHEAD_BYTES: u64 = 128;
/// Bytes of a value, or of a number of the state.
const VALUE_BYTES: u64 = 8;
/// Bytes of a series outside of its window: its slot, its places in the index and in the order, and free slots.
const SERIES_BYTES: u64 = 80;
/// Number of series above which [`SeriesTable::is_far`] returns true.
const FAR_SERIES: usize = 4_096;
/// Flag of a series that differs from its newest snapshot.
const DIRTY: u8 = 1;
/// Flag of a series whose method's state at the last commit is saved for a rollback.
const STATE_SAVED: u8 = 2;
/// Flag of a series that has a record in the state topic: a snapshot, or an earlier eviction of the same key.
const STORED: u8 = 4;

/// State of one series in the table.
#[derive(Debug)]
struct Series {
    /// Block of the series; its name is the series' key, see [`key`].
    block: SeriesBlock,
    /// Offset of the newest record of the series.
    last: i64,
    /// Time of the partition's clock at that record, in seconds.
    touched: u32,
    /// Cell of the partition's clock, see [`clock::cell_of`].
    cell: u8,
    /// Bits [`DIRTY`], [`STATE_SAVED`] and [`STORED`].
    flags: u8,
    /// Number of the resolved policy, in the table of the detector that judges the series.
    policy: PolicyNumber,
}

/// The series of one partition.
#[derive(Debug, Default)]
pub struct SeriesTable {
    /// Indexes into `series`, by hash of the key.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The series; `None` is a free slot.
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    /// The series ordered by their newest records.
    order: RecencyList,
    clock: PartitionClock,
    dirty: usize,
    /// Sum of [`Series::snapshot_bytes`] of the dirty series.
    dirty_bytes: u64,
    saved_states: SavedStates,
    /// Sum of the sizes of all windows, in bytes.
    heap_bytes: u64,
    /// Bytes above which series are evicted; `None` without a limit.
    most_bytes: Option<u64>,
    /// Whether records of unknown series are refused.
    is_closed: bool,
    /// Number of values that were refused since the last commit, and since they were last read.
    refused: u64,
    refusals: u64,
    /// Unknown sections of snapshots, by the series' keys. This program writes them again unchanged.
    carried: HashMap<Box<str>, Box<[u8]>>,
    /// Changes since the last commit, in order; see [`UndoLog`], which lends this list.
    trail: Vec<UndoStep>,
    committed_clock: PartitionClock,
    has_ticked: bool,
    evicted: Vec<Evicted>,
    /// Numbers of committed evictions since they were last read.
    evictions: Evictions,
}

/// Index of a series within its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

/// Slot hint; a stale hint is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHint(u32);

impl SlotHint {
    /// A hint without a slot.
    pub const NONE: SlotHint = SlotHint(u32::MAX);
}

/// Builds the key of a series in `buffer`: both names, separated by U+0000, which is in neither.
pub(crate) fn key<'b>(buffer: &'b mut String, device_id: &str, metric_name: Option<&str>) -> &'b str {
    buffer.clear();
    buffer.push_str(device_id);
    if let Some(metric) = metric_name {
        buffer.push('\0');
        buffer.push_str(metric);
    }
    buffer
}

impl SeriesTable {
    /// Returns the number of series.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether the table has no series.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns the approximate memory of the series in bytes.
    pub fn bytes(&self) -> u64 {
        self.heap_bytes + SERIES_BYTES * self.len() as u64
    }

    /// Sums up the sizes of the windows again, after changes of many.
    fn weigh(&mut self) {
        self.heap_bytes = self.series.iter().flatten().map(|series| series.block.bytes() as u64).sum();
    }

    /// Returns whether the series use more memory than they may.
    pub fn is_over(&self) -> bool {
        self.most_bytes.is_some_and(|most| self.bytes() > most)
    }

    /// Sets the bytes above which the next records evict series; `None` without a limit.
    pub fn limit_bytes(&mut self, most: Option<u64>) {
        self.most_bytes = most;
    }

    /// Returns whether records of unknown series are refused.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Sets whether records of unknown series are refused from now on.
    pub fn set_closed(&mut self, is_closed: bool) {
        self.is_closed = is_closed;
    }

    /// Counts a value of an unknown series that was refused. Its record advances the clock.
    pub fn refuse(&mut self, key: &str, offset: i64, time: Option<i64>) {
        self.refused += 1;
        self.pass_by(key, offset, time);
    }

    /// Returns the number of values that were refused in committed transactions since the last call.
    pub fn take_refusals(&mut self) -> u64 {
        std::mem::take(&mut self.refusals)
    }

    /// Returns whether the table has a series with this key.
    pub fn contains(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Notes that the state topic has a record with this key, if the table has the series.
    pub fn note_stored(&mut self, key: &str) {
        if let Some(at) = self.find(key) {
            self.at_mut(at).raise(STORED);
        }
    }

    /// Returns the partition's clock.
    pub fn clock(&self) -> &PartitionClock {
        &self.clock
    }

    fn find(&self, key: &str) -> Option<u32> {
        let is_it = |at: &u32| self.at(*at).block.name_bytes() == key.as_bytes();
        self.index.find(self.hash(key), is_it).copied()
    }

    fn find_near(&self, guess: u32, key: &str) -> Option<u32> {
        match self.series.get(guess as usize) {
            Some(Some(series)) if series.block.name_bytes() == key.as_bytes() => Some(guess),
            _ => self.find(key),
        }
    }

    /// Returns a hint for [`slot`](Self::slot) where a series may be.
    pub fn guess(&self, key: &str) -> SlotHint {
        SlotHint(self.index.find(self.hash(key), |_| true).copied().unwrap_or(u32::MAX))
    }

    /// Returns whether there are more series than fit into a processor's caches.
    pub fn is_far(&self) -> bool {
        self.len() >= FAR_SERIES
    }

    /// Loads series into the processor's caches. The data of each series is spread over memory. Reads that do not
    /// depend on one another are in flight together.
    pub fn approach(&self, guesses: impl Iterator<Item = SlotHint> + Clone) {
        let series = || guesses.clone().filter_map(|guess| self.series.get(guess.0 as usize)?.as_ref());
        black_box(series().map(|series| series.touched).fold(0, u32::wrapping_add));
        black_box(series().map(|series| series.block.len()).fold(0, usize::wrapping_add));
        black_box(series().filter_map(|series| series.block.iter().next()).fold(0.0, f64::max));
    }

    fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key.as_bytes())
    }

    fn at(&self, at: u32) -> &Series {
        match &self.series[at as usize] {
            Some(series) => series,
            None => unreachable!("the index and the order hold only places that are taken"),
        }
    }

    fn at_mut(&mut self, at: u32) -> &mut Series {
        match &mut self.series[at as usize] {
            Some(series) => series,
            None => unreachable!("the index and the order hold only places that are taken"),
        }
    }

    /// Returns the series with this key, and whether it was created now. `offset` is that of the current record.
    pub fn slot(&mut self, key: &str, guess: SlotHint, offset: i64, bounds: SeriesLimits) -> (Slot, bool) {
        match self.find_slot(key, guess) {
            Some(slot) => (slot, false),
            None => (self.create(key, offset, bounds), true),
        }
    }

    /// Returns the series with this key, if the table has it.
    pub fn find_slot(&self, key: &str, guess: SlotHint) -> Option<Slot> {
        self.find_near(guess.0, key).map(Slot)
    }

    /// Creates a series with a new key for the record at `offset`.
    pub fn create(&mut self, key: &str, offset: i64, bounds: SeriesLimits) -> Slot {
        self.make_room(offset, bounds);
        let at = self.insert(Series::new(key));
        self.trail.push(UndoStep::Created(at));
        Slot(at)
    }

    /// Returns the number of the series' policy, initially [`UNRESOLVED`].
    pub fn policy(&self, slot: Slot) -> PolicyNumber {
        self.at(slot.0).policy
    }

    /// Stores the number of the series' policy. A rollback keeps it, because it follows from the series' name.
    pub fn set_policy(&mut self, slot: Slot, policy: PolicyNumber) {
        self.at_mut(slot.0).policy = policy;
    }

    /// Returns the block of the series.
    pub fn block(&self, slot: Slot) -> &SeriesBlock {
        &self.at(slot.0).block
    }

    /// Advances the partition's clock by a record of this series. `time` is the record's own, in milliseconds.
    pub fn tick(&mut self, slot: Slot, offset: i64, time: Option<i64>) {
        let cell = self.at(slot.0).cell;
        self.clock.note(cell, offset, time);
        self.has_ticked = true;
    }

    /// Advances the partition's clock by a record of an excluded series, which changes nothing else.
    pub fn pass_by(&mut self, key: &str, offset: i64, time: Option<i64>) {
        self.clock.note(clock::cell_of(key), offset, time);
        self.has_ticked = true;
    }

    /// Appends the value of the record at `offset` to a series; see [`SeriesBlock::push`].
    pub fn push(&mut self, slot: Slot, offset: i64, value: f64, capacity: usize) {
        let touched = self.clock.elapsed();
        self.order.lower(touched);
        let series = self.at_mut(slot.0);
        let bytes = series.block.bytes();
        let replaced = series.block.push(value, capacity);
        let grown = if replaced == Replaced::Nothing { series.block.bytes() - bytes } else { 0 };
        let last = std::mem::replace(&mut series.last, offset);
        let touched = std::mem::replace(&mut series.touched, touched);
        if !series.raise(DIRTY) {
            let bytes = series.snapshot_bytes();
            (self.dirty, self.dirty_bytes) = (self.dirty + 1, self.dirty_bytes + bytes);
        } else if replaced == Replaced::Nothing {
            self.dirty_bytes += VALUE_BYTES;
        }
        self.heap_bytes += grown as u64;
        self.trail.push(UndoStep::Pushed { at: slot.0, replaced, last, touched });
    }

    fn insert(&mut self, series: Series) -> u32 {
        let hash = self.hash(series.block.name());
        let at = self.free.pop().unwrap_or_else(|| {
            self.series.push(None);
            (self.series.len() - 1) as u32
        });
        if series.has(DIRTY) {
            (self.dirty, self.dirty_bytes) = (self.dirty + 1, self.dirty_bytes + series.snapshot_bytes());
        }
        self.order.enter(at, series.last);
        self.heap_bytes += series.block.bytes() as u64;
        self.series[at as usize] = Some(series);
        let SeriesTable { index, series, hasher, .. } = self;
        index.insert_unique(hash, at, |at| match &series[*at as usize] {
            Some(series) => hasher.hash_one(series.block.name_bytes()),
            None => 0,
        });
        at
    }

    /// Removes a series; its slot is free afterwards.
    fn remove(&mut self, at: u32) -> Option<Series> {
        let hash = self.hash(self.at(at).block.name());
        if let Ok(entry) = self.index.find_entry(hash, |found| *found == at) {
            entry.remove();
        }
        let series = self.series[at as usize].take();
        self.heap_bytes -= series.as_ref().map_or(0, |series| series.block.bytes() as u64);
        if let Some(series) = series.as_ref().filter(|series| series.has(DIRTY)) {
            (self.dirty, self.dirty_bytes) = (self.dirty - 1, self.dirty_bytes - series.snapshot_bytes());
        }
        self.free.push(at);
        series
    }
}

impl Series {
    fn new(key: &str) -> Self {
        Series::with(SeriesBlock::named(key), -1, 0)
    }

    fn with(block: SeriesBlock, last: i64, touched: u32) -> Self {
        let cell = clock::cell_of(block.name());
        Series { block, last, touched, cell, flags: 0, policy: UNRESOLVED }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sets a flag; returns whether it was set before.
    fn raise(&mut self, flag: u8) -> bool {
        let had = self.has(flag);
        self.flags |= flag;
        had
    }

    fn lower(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    /// Returns the approximate size of the series' snapshot in bytes, including the broker's overhead.
    fn snapshot_bytes(&self) -> u64 {
        SNAPSHOT_OVERHEAD_BYTES
            + self.block.name_bytes().len() as u64
            + VALUE_BYTES * (self.block.len() + self.block.state().len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::snapshot::SnapshotOrigin;
    use super::*;
    use crate::method::{self, Method, MethodId};
    use crate::policy::{Policy, PolicyTable};

    #[test]
    fn an_absent_metric_and_an_empty_one_are_two_series() {
        let (mut one, mut two) = (String::new(), String::new());
        assert_ne!(key(&mut one, "d", None), key(&mut two, "d", Some("")));
    }

    /// Returns the bits of all windows and states, by key.
    fn windows(table: &SeriesTable) -> std::collections::BTreeMap<String, Vec<u64>> {
        let bits =
            |window: &SeriesBlock| window.iter().map(f64::to_bits).chain(window.state().iter().copied()).collect();
        table.series.iter().flatten().map(|s| (s.block.name().to_owned(), bits(&s.block))).collect()
    }

    /// Returns a method for windows of this many values.
    pub(super) fn method_of(name: &str, window: usize) -> Box<dyn Method> {
        method::by_id(&MethodId { name: name.into(), version: 1 }, window).unwrap()
    }

    /// Returns a table in which all series have this method and window.
    pub(super) fn policies_of(method: &str, window: usize) -> PolicyTable {
        PolicyTable::new(&Policy { method: method.into(), window, ..Policy::default() }).unwrap()
    }

    pub(super) fn origin() -> SnapshotOrigin {
        SnapshotOrigin { settings: *b"abcdef", topic: "raw".into(), partition: 0 }
    }

    #[test]
    fn snapshots_of_different_offsets_and_the_records_since_the_checkpoint_restore_the_table() {
        let bounds = SeriesLimits { max_series: 4, idle_after: None };
        let keys = ["a", "b", "c", "a", "d", "e", "a", "b", "f", "c", "a", "a", "b"];
        for method in crate::method::NAMES.map(|name| method_of(name, 3)) {
            let (origin, policies) = (origin(), policies_of(method.name(), 3));
            let mut table = SeriesTable::default();
            let (mut records, mut reading) = (Vec::new(), clock::ClockSnapshot::default());
            let (mut cursor, checkpoint) = (0, 4);
            for (offset, key) in (0..).zip(keys) {
                let (slot, _) = table.slot(key, SlotHint::NONE, offset, bounds);
                table.tick(slot, offset, Some(offset * 1_000));
                table.update_state(slot, method.as_ref(), offset as f64, Some(offset * 1_000));
                table.push(slot, offset, offset as f64, 3);
                table.prune(offset + 1, bounds);
                for gone in table.evicted() {
                    let key = snapshot::record_key(&gone.key);
                    let value = snapshot::encode_evicted(&key, *b"abcdef", gone.at);
                    records.push((key, value));
                }
                table.commit();
                if offset == checkpoint - 1 {
                    reading = table.clock().read();
                }
                // From the checkpoint on, all records are replayed in one table.
                if offset >= checkpoint - 1 {
                    let part = table.part(cursor, 1, usize::MAX, offset + 1, &origin, &policies);
                    table.swept(&part);
                    records.extend(part.records.into_iter().map(|record| (record.key, record.value)));
                    cursor = part.next.unwrap_or(u32::MAX / 2);
                }
            }
            let mut restore = TableRestore::default();
            for (key, value) in &records {
                let read = snapshot::decode(key, value).unwrap();
                restore.load(snapshot::series_of(key).unwrap(), Some(read));
            }
            restore.set_clock(clock::PartitionClock::from(&reading));
            restore.set_epoch(0, policies);
            for (offset, key) in (0..).zip(keys).skip(checkpoint as usize) {
                let time = Some(offset * 1_000);
                let value = offset as f64;
                let event = ReplayedEvent { offset, time, event_time: time, value, has_more: false };
                restore.replay(key, restore.guess(key), event);
            }
            let (mut restored, ..) = restore.finish();
            assert_eq!(windows(&restored), windows(&table));
            assert_eq!(restored.clock().read(), table.clock().read());
            let oldest = |table: &mut SeriesTable| table.oldest().map(|at| table.at(at).block.name().to_owned());
            assert_eq!(oldest(&mut restored), oldest(&mut table));
            assert!(oldest(&mut table).is_some());
        }
    }
}
