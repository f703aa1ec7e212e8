//! A table as it was before an offset: from snapshots, each of its own offset, and the partition's records from the floor
//! on, of which a series takes those that its snapshot does not have yet.

use std::collections::HashMap;

use super::clock::{self, PartitionClock};
use super::snapshot::{SeriesSnapshot, SnapshotContent};
use super::{Series, SeriesLimits, SeriesTable, Slot, SlotHint};
use crate::window::Window;

/// Under way: first all of [`load`](TableRestore::load), then [`replay`](TableRestore::replay) in offset order.
#[derive(Debug, Default)]
pub struct TableRestore {
    table: SeriesTable,
    /// By place: the offset that the window stands for, `i64::MIN` without a snapshot.
    as_of: Vec<i64>,
    /// Evicted series, and where each begins anew.
    gone: HashMap<Box<str>, i64>,
    newest: i64,
    bounds: Option<SeriesLimits>,
}

impl TableRestore {
    /// Without snapshots: everything is replayed, and what is due is evicted as if it were judged for the first time.
    pub fn from_records_alone(bounds: SeriesLimits) -> Self {
        TableRestore { bounds: Some(bounds), ..TableRestore::default() }
    }

    /// A later record of the same series replaces an earlier one; `None` is a tombstone.
    pub fn load(&mut self, key: &str, snapshot: Option<SeriesSnapshot>) {
        if let Some(at) = self.table.find(key) {
            self.table.remove(at);
        }
        self.gone.remove(key);
        let Some(SeriesSnapshot { as_of, content, .. }) = snapshot else { return };
        self.newest = self.newest.max(as_of);
        match content {
            SnapshotContent::Evicted => {
                self.gone.insert(key.into(), as_of);
            }
            SnapshotContent::Window { last, touched, values } => {
                let window = Window::with(key, &values);
                let cell = clock::cell_of(key);
                let at = self.table.insert(Series { window, last, touched, cell, is_dirty: false });
                self.stands_for(Slot(at), as_of);
            }
        }
    }

    fn stands_for(&mut self, slot: Slot, as_of: i64) {
        let at = slot.0 as usize;
        if self.as_of.len() <= at {
            self.as_of.resize(at + 1, i64::MIN);
        }
        self.as_of[at] = as_of;
    }

    /// Greatest offset that any snapshot stands for; 0 without any.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Series so far.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// None so far.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The partition's clock at the floor.
    pub fn set_clock(&mut self, clock: PartitionClock) {
        (self.table.clock, self.table.has_ticked) = (clock, true);
    }

    /// See [`SeriesTable::guess`].
    pub fn guess(&self, key: &str) -> SlotHint {
        self.table.guess(key)
    }

    /// See [`SeriesTable::approach`].
    pub fn approach(&self, guesses: impl Iterator<Item = SlotHint> + Clone) {
        self.table.approach(guesses);
    }

    /// An event that has its verdict already; `time` is the record's own, `capacity` that of the windows then.
    pub fn replay(&mut self, key: &str, guess: SlotHint, offset: i64, time: Option<i64>, value: f64, capacity: usize) {
        if self.gone.get(key).is_some_and(|begins| offset < *begins) {
            // The record moved the clock, although its series was evicted later.
            self.table.clock.note(clock::cell_of(key), offset, time);
            return;
        }
        let bounds = self.bounds.unwrap_or_default();
        let (slot, created) = self.table.slot(key, guess, offset, bounds);
        if created {
            self.stands_for(slot, i64::MIN);
        }
        self.table.tick(slot, offset, time);
        if offset >= self.as_of[slot.0 as usize] {
            self.table.push(slot, offset, value, capacity);
        }
        if self.bounds.is_some() {
            self.table.prune(offset + 1, bounds);
        }
    }

    /// From this offset on windows hold `capacity` values. One that held more differs from its snapshot now, and is written
    /// by the next sweep, after which nobody knows of the change any more.
    pub fn resize(&mut self, from: i64, capacity: usize) {
        for (at, series) in self.table.series.iter_mut().enumerate() {
            let is_older = self.as_of.get(at).is_none_or(|as_of| *as_of <= from);
            if let Some(series) = series.as_mut().filter(|_| is_older)
                && series.window.shrink(capacity)
                && !std::mem::replace(&mut series.is_dirty, true)
            {
                self.table.dirty += 1;
            }
        }
    }

    /// What was replayed until now needs no way back.
    pub fn settle(&mut self) {
        self.table.commit();
    }

    /// The table, and the evicted series whose records are still to be deleted.
    pub fn finish(mut self) -> (SeriesTable, HashMap<Box<str>, i64>) {
        self.table.commit();
        (self.table, self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_series_that_shrank_is_written_by_the_next_sweep() {
        let mut restore = TableRestore::default();
        let content = SnapshotContent::Window { last: 9, touched: 0, values: vec![1.0, 2.0, 3.0, 4.0] };
        restore.load("a", Some(SeriesSnapshot { settings: *b"abcdef", as_of: 10, content }));
        restore.resize(20, 3);
        let (table, _) = restore.finish();
        assert_eq!(table.dirty(), 1);
        let part = table.part(0, 1_000, 30, *b"fedcba");
        let (key, value) = &part.records[0];
        let written = super::super::snapshot::decode(key, value).unwrap();
        assert_eq!(written.content, SnapshotContent::Window { last: 9, touched: 0, values: vec![2.0, 3.0, 4.0] });
    }
}
