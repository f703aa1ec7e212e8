//! A table as it was before an offset: from snapshots, each of its own offset, and the partition's records from the floor
//! on, of which a series takes those that its snapshot does not have yet.

use std::collections::HashMap;

use super::clock::{self, PartitionClock};
use super::snapshot::{SeriesContent, SeriesSnapshot, SnapshotContent};
use super::{Series, SeriesLimits, SeriesTable, Slot, SlotHint};
use crate::method::{Method, MethodId};
use crate::window::Window;

/// Under way: first all of [`load`](TableRestore::load), then [`replay`](TableRestore::replay) in offset order.
#[derive(Debug, Default)]
pub struct TableRestore {
    table: SeriesTable,
    /// By place.
    origins: Vec<Origin>,
    /// Those whose states were read or updated; few.
    methods: Vec<MethodId>,
    /// Of the records that are replayed now.
    method: Option<Box<dyn Method>>,
    /// Its place in `methods`.
    current: usize,
    capacity: usize,
    /// Evicted series, and where each begins anew.
    gone: HashMap<Box<str>, i64>,
    newest: i64,
    bounds: Option<SeriesLimits>,
}

/// Where a series' state comes from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The offset that it stands for, `i64::MIN` without a snapshot.
    as_of: i64,
    /// Whose state it is, in `methods`.
    method: usize,
}

/// Of a place that was never taken.
const NOWHERE: Origin = Origin { as_of: i64::MIN, method: usize::MAX };

/// A record that has its verdict already.
#[derive(Debug, Clone, Copy)]
pub struct ReplayedEvent {
    /// Of the record.
    pub offset: i64,
    /// The record's own, in milliseconds; it moves the partition's clock.
    pub time: Option<i64>,
    /// That of the event, in milliseconds.
    pub event_time: Option<i64>,
    /// Of the event.
    pub value: f64,
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
            self.table.carried.remove(key);
        }
        self.gone.remove(key);
        let Some(SeriesSnapshot { as_of, content, .. }) = snapshot else { return };
        self.newest = self.newest.max(as_of);
        match content {
            SnapshotContent::Evicted => {
                self.gone.insert(key.into(), as_of);
            }
            SnapshotContent::Series(series) => {
                let SeriesContent { values, method, state, last, touched, carried, .. } = series;
                let mut window = Window::with(key, &values);
                window.set_state(&state);
                let at = self.table.insert(Series::with(window, last, touched));
                let method = self.number_of(method);
                self.set_origin(Slot(at), Origin { as_of, method });
                if !carried.is_empty() {
                    self.table.carried.insert(key.into(), carried.into());
                }
            }
        }
    }

    /// Its place in `methods`.
    fn number_of(&mut self, method: MethodId) -> usize {
        self.methods.iter().position(|known| *known == method).unwrap_or_else(|| {
            self.methods.push(method);
            self.methods.len() - 1
        })
    }

    fn set_origin(&mut self, slot: Slot, origin: Origin) {
        let at = slot.0 as usize;
        if self.origins.len() <= at {
            self.origins.resize(at + 1, NOWHERE);
        }
        self.origins[at] = origin;
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

    /// An event that has its verdict already.
    pub fn replay(&mut self, key: &str, guess: SlotHint, event: ReplayedEvent) {
        let ReplayedEvent { offset, time, event_time, value } = event;
        if self.gone.get(key).is_some_and(|begins| offset < *begins) {
            // The record moved the clock, although its series was evicted later.
            self.table.clock.note(clock::cell_of(key), offset, time);
            return;
        }
        let bounds = self.bounds.unwrap_or_default();
        let (slot, created) = self.table.slot(key, guess, offset, bounds);
        if created {
            // Its state begins with this record.
            self.set_origin(slot, Origin { method: self.current, ..NOWHERE });
        }
        self.table.tick(slot, offset, time);
        if offset >= self.origins[slot.0 as usize].as_of {
            if let Some(method) = self.method.as_deref().filter(|method| method.state_len() > 0) {
                self.table.update_state(slot, method, value, event_time);
            }
            self.table.push(slot, offset, value, self.capacity);
        }
        if self.bounds.is_some() {
            self.table.prune(offset + 1, bounds);
        }
    }

    /// From this offset on windows hold `capacity` values, and states are those of `method`. A series whose window held more, or
    /// which has the state of another method, differs from its snapshot now. The next sweep writes it, after which nothing
    /// recalls the change.
    pub fn set_epoch(&mut self, from: i64, capacity: usize, method: Box<dyn Method>) {
        let number = self.number_of(method.id());
        let TableRestore { table, origins, .. } = self;
        for (series, origin) in table.series.iter_mut().zip(origins) {
            let Some(series) = series.as_mut().filter(|_| origin.as_of <= from) else { continue };
            let before = series.snapshot_bytes();
            let mut has_changed = series.window.shrink(capacity);
            if origin.method != number {
                series.window.set_state(&method.state_from(&series.window));
                origin.method = number;
                has_changed = true;
            }
            if series.is_dirty {
                table.dirty_bytes = table.dirty_bytes + series.snapshot_bytes() - before;
            } else if has_changed {
                series.is_dirty = true;
                (table.dirty, table.dirty_bytes) = (table.dirty + 1, table.dirty_bytes + series.snapshot_bytes());
            }
        }
        (self.capacity, self.method, self.current) = (capacity, Some(method), number);
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
    use super::super::snapshot::{SnapshotOrigin, decode, encode_evicted, record_key};
    use super::super::tests::{method_of, origin_of};
    use super::*;

    fn snapshot(as_of: i64, values: &[f64], method: &dyn Method) -> SeriesSnapshot {
        let state = method.state_from(&Window::with("", values));
        let SnapshotOrigin { settings, method, topic, partition } = origin_of(method);
        let (values, last, touched) = (values.to_vec(), as_of - 1, 0);
        let carried = Vec::new();
        let content = SeriesContent { values, method, state, topic, partition, last, touched, carried };
        SeriesSnapshot { settings, as_of, content: SnapshotContent::Series(content) }
    }

    /// Values and state of the only series in a sweep.
    fn swept(table: &SeriesTable, method: &dyn Method) -> (Vec<f64>, Vec<f64>) {
        assert_eq!(table.dirty(), 1);
        let part = table.part(0, 1_000, 30, &origin_of(method));
        let (key, value) = &part.records[0];
        match decode(key, value).unwrap().content {
            SnapshotContent::Series(SeriesContent { values, state, .. }) => (values, state),
            SnapshotContent::Evicted => panic!("evicted"),
        }
    }

    #[test]
    fn a_silent_series_that_shrank_is_written_by_the_next_sweep() {
        let mut restore = TableRestore::default();
        let sigma = method_of("sigma", 4);
        restore.load("a", Some(snapshot(10, &[1.0, 2.0, 3.0, 4.0], sigma.as_ref())));
        restore.set_epoch(20, 3, method_of("sigma", 3));
        let (table, _) = restore.finish();
        assert_eq!(swept(&table, sigma.as_ref()), (vec![2.0, 3.0, 4.0], vec![]));
    }

    #[test]
    fn another_method_starts_from_the_window_in_order_and_the_next_sweep_writes_its_state() {
        let (sigma, ewma) = (method_of("sigma", 4), method_of("ewma", 4));
        let values = [1.0, 2.0, 4.0, 8.0];
        let from_window = ewma.state_from(&Window::with("", &values));
        for (before, after, state) in [(&sigma, "ewma", from_window), (&ewma, "sigma", vec![])] {
            let mut restore = TableRestore::default();
            restore.load("a", Some(snapshot(10, &values, before.as_ref())));
            restore.set_epoch(0, 4, method_of(&before.id().name, 4));
            restore.set_epoch(20, 4, method_of(after, 4));
            let (table, _) = restore.finish();
            assert_eq!(swept(&table, method_of(after, 4).as_ref()), (values.to_vec(), state));
        }
    }

    #[test]
    fn a_state_that_the_method_has_already_is_kept() {
        let ewma = method_of("ewma", 3);
        let mut snapshot = snapshot(10, &[1.0, 2.0], ewma.as_ref());
        let SnapshotContent::Series(series) = &mut snapshot.content else { panic!() };
        series.state = vec![40.0, 1.25, 0.5];
        let mut restore = TableRestore::default();
        restore.load("a", Some(snapshot));
        restore.set_epoch(20, 3, method_of("ewma", 3));
        let (table, _) = restore.finish();
        assert_eq!(table.dirty(), 0);
        assert_eq!(table.series[0].as_ref().unwrap().window.state(), [40.0, 1.25, 0.5]);
    }

    #[test]
    fn sections_that_are_not_known_are_written_again_and_go_with_an_eviction() {
        let sigma = method_of("sigma", 4);
        let mut known = snapshot(10, &[1.0, 2.0, 3.0, 4.0], sigma.as_ref());
        let SnapshotContent::Series(series) = &mut known.content else { panic!() };
        series.carried = vec![200, 2, 0, 0, 0, 7, 9];
        let mut restore = TableRestore::default();
        restore.load("a", Some(known));
        restore.set_epoch(20, 3, method_of("sigma", 3));
        let table = restore.finish().0;
        let (key, value) = table.part(0, 1_000, 30, &origin_of(sigma.as_ref())).records.remove(0);
        let read = decode(&key, &value).unwrap();
        let SnapshotContent::Series(SeriesContent { carried, .. }) = &read.content else { panic!() };
        assert_eq!(carried, &[200, 2, 0, 0, 0, 7, 9]);
        let mut restore = TableRestore::default();
        restore.load("a", Some(read));
        let evicted = encode_evicted(&record_key("a"), *b"abcdef", 40);
        restore.load("a", Some(decode(&record_key("a"), &evicted).unwrap()));
        assert!(restore.finish().0.carried.is_empty());
    }
}
