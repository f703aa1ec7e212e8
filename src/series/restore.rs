//! Restores a table as it was before an offset: from snapshots, each with its own offset, and from the partition's
//! records since the checkpoint. A series takes only the records that its snapshot does not have yet.

use std::collections::{HashMap, HashSet};

use super::clock::PartitionClock;
use super::snapshot::{SeriesContent, SeriesSnapshot, SnapshotContent};
use super::{DIRTY, STORED, Series, SeriesLimits, SeriesTable, Slot, SlotHint};
use crate::method::MethodId;
use crate::policy::{PolicyTable, ResolvedPolicy, UNRESOLVED};
use crate::series_block::SeriesBlock;

/// A restore in progress: first all calls of [`load`](TableRestore::load), then [`replay`](TableRestore::replay) in
/// offset order.
#[derive(Debug, Default)]
pub(crate) struct TableRestore {
    table: SeriesTable,
    /// Origin of each series, by slot.
    origins: Vec<Origin>,
    /// Methods whose states were read or updated; they are few.
    methods: Vec<MethodId>,
    /// Policies of the records that are replayed now.
    policies: Option<PolicyTable>,
    /// Evicted series.
    gone: HashMap<Box<str>, GoneSeries>,
    /// Keys of series that this restore evicted, and of which no later record was loaded.
    given_up: HashSet<Box<str>>,
    bounds: Option<SeriesLimits>,
}

/// An evicted series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoneSeries {
    /// Offset from which on records start the series again.
    pub begins: i64,
    /// Whether the state topic has a record with the series' key: of the eviction, or an earlier one.
    pub has_record: bool,
}

/// Origin of a series' state.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// Offset up to which the state accounts for all records; `i64::MIN` without a snapshot.
    as_of: i64,
    /// Index of the state's method in `methods`.
    method: usize,
}

/// Origin of a slot that was never used.
const NOWHERE: Origin = Origin { as_of: i64::MIN, method: usize::MAX };

/// A replayed event, which already has its verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplayedEvent {
    /// Offset of the record.
    pub offset: i64,
    /// Time of the record itself, in milliseconds; it advances the partition's clock.
    pub time: Option<i64>,
    /// Time of the event, in milliseconds.
    pub event_time: Option<i64>,
    /// Value of the event.
    pub value: f64,
    /// Whether more events of the same record follow.
    pub has_more: bool,
}

/// A restored table, the evicted series with the offsets of their evictions, and those that the memory limit evicted.
pub(crate) type FinishedTable = (SeriesTable, HashMap<Box<str>, GoneSeries>, Vec<Box<str>>);

impl TableRestore {
    /// Starts a restore without snapshots. All records are replayed, and idle series are evicted as when they were
    /// judged first.
    pub(crate) fn from_records_alone(bounds: SeriesLimits) -> Self {
        TableRestore { bounds: Some(bounds), ..TableRestore::default() }
    }

    /// Loads a snapshot. A later one of the same series replaces an earlier one; `None` is a tombstone.
    pub(crate) fn load(&mut self, key: &str, snapshot: Option<SeriesSnapshot>) {
        if let Some(at) = self.table.find(key) {
            self.table.remove(at);
            self.table.carried.remove(key);
        }
        self.gone.remove(key);
        self.given_up.remove(key);
        let Some(SeriesSnapshot { as_of, content, .. }) = snapshot else { return };
        match content {
            SnapshotContent::Evicted => {
                self.gone.insert(key.into(), GoneSeries { begins: as_of, has_record: true });
            }
            SnapshotContent::Series(series) => {
                let SeriesContent { values, method, state, last, touched, carried, .. } = series;
                let mut window = SeriesBlock::with(key, &values);
                window.set_state(&state);
                let mut series = Series::with(window, last, touched);
                series.raise(STORED);
                let at = self.table.insert(series);
                let method = number_of(&mut self.methods, &method);
                set_origin(&mut self.origins, Slot(at), Origin { as_of, method });
                if !carried.is_empty() {
                    self.table.carried.insert(key.into(), carried.into());
                }
            }
        }
    }

    /// Returns the greatest offset of any snapshot or eviction that was not replaced or deleted since; 0 without any.
    pub(crate) fn newest(&self) -> i64 {
        let has_series = |slot: usize| self.table.series.get(slot).is_some_and(Option::is_some);
        let origins = self.origins.iter().enumerate().filter(|(slot, _)| has_series(*slot));
        let offsets = origins.map(|(_, origin)| origin.as_of).chain(self.gone.values().map(|gone| gone.begins));
        offsets.max().unwrap_or_default().max(0)
    }

    /// Returns the number of series so far.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns the approximate memory of the series in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.table.bytes()
    }

    /// Evicts the series that were silent for longest until the others use at most this many bytes. The evictions apply
    /// from the committed offset `at` on: no series takes part in the replay before it.
    pub(crate) fn give_up(&mut self, most: u64, at: i64) {
        self.table.commit();
        while self.table.bytes() > most
            && let Some(oldest) = self.table.oldest()
            && let Some(series) = self.table.remove(oldest)
        {
            let key = Box::<str>::from(series.block.name());
            self.table.carried.remove(&key);
            let has_record = series.has(STORED) || self.gone.get(&key).is_some_and(|gone| gone.has_record);
            self.gone.insert(key.clone(), GoneSeries { begins: at, has_record });
            self.given_up.insert(key);
        }
    }

    /// Sets the partition's clock to that of the checkpoint.
    pub(crate) fn set_clock(&mut self, clock: PartitionClock) {
        (self.table.clock, self.table.has_ticked) = (clock, true);
    }

    /// Returns a slot hint, see [`SeriesTable::guess`].
    pub(crate) fn guess(&self, key: &str) -> SlotHint {
        self.table.guess(key)
    }

    /// Loads series into the caches, see [`SeriesTable::approach`].
    pub(crate) fn approach(&self, guesses: impl Iterator<Item = SlotHint> + Clone) {
        self.table.approach(guesses);
    }

    /// Replays an event that already has its verdict.
    pub(crate) fn replay(&mut self, key: &str, guess: SlotHint, event: ReplayedEvent) {
        let ReplayedEvent { offset, time, event_time, value, has_more } = event;
        let (bounds, is_decided) = (self.bounds.unwrap_or_default(), self.bounds.is_some());
        let TableRestore { table, methods, policies: Some(policies), .. } = self else { return };
        let found = table.find_slot(key, guess);
        let is_gone = self.gone.get(key).is_some_and(|gone| offset < gone.begins);
        let is_refused = found.is_none() && table.is_closed();
        if is_gone || is_refused || policies.excludes(found.map(|slot| table.policy(slot)), key) {
            // The record advances the clock, although its series was evicted later or is not judged.
            table.pass_by(key, offset, time);
        } else {
            let slot = found.unwrap_or_else(|| table.create(key, offset, bounds));
            let (policy, number) = policies.of(table.policy(slot), key);
            table.set_policy(slot, number);
            if found.is_none() {
                // The state of the series starts with this record.
                let method = number_of(methods, &policy.id);
                set_origin(&mut self.origins, slot, Origin { method, ..NOWHERE });
            }
            table.tick(slot, offset, time);
            if offset >= self.origins[slot.0 as usize].as_of {
                if policy.has_state {
                    table.update_state(slot, policy.method.as_ref(), value, event_time);
                }
                table.push(slot, offset, value, policy.limits.window);
            }
        }
        if is_decided && !is_gone && !has_more {
            table.prune(offset + 1, bounds);
        }
    }

    /// Sets the policies that apply from this offset on.
    ///
    /// A series now differs from its snapshot if its window has more values than its policy allows, or if its state is
    /// of another method. The next sweep must write it, because no other record contains the change. This includes
    /// excluded series, whose state is kept.
    pub(crate) fn set_epoch(&mut self, from: i64, mut policies: PolicyTable) {
        let TableRestore { table, origins, methods, .. } = self;
        for (series, origin) in table.series.iter_mut().zip(origins) {
            let Some(series) = series else { continue };
            let (policy, number) = policies.of(UNRESOLVED, series.block.name());
            series.policy = number;
            if origin.as_of > from {
                continue;
            }
            let before = series.snapshot_bytes();
            let has_changed = adapt(series, &mut origin.method, policy, methods);
            if series.has(DIRTY) {
                table.dirty_bytes = table.dirty_bytes + series.snapshot_bytes() - before;
            } else if has_changed {
                series.raise(DIRTY);
                (table.dirty, table.dirty_bytes) = (table.dirty + 1, table.dirty_bytes + series.snapshot_bytes());
            }
        }
        table.weigh();
        self.policies = Some(policies);
    }

    /// Sets whether records of unknown series were refused at the offsets that follow.
    pub(crate) fn set_closed(&mut self, is_closed: bool) {
        self.table.set_closed(is_closed);
    }

    /// Makes the replayed events final, so that their undo steps can be discarded.
    pub(crate) fn settle(&mut self) {
        self.table.commit();
    }

    /// Returns the table, the evicted series whose records are still to be deleted, and those of them whose evictions are
    /// still to be recorded.
    pub(crate) fn finish(mut self) -> FinishedTable {
        self.table.commit();
        // The numbers belong to another table of policies.
        self.table.series.iter_mut().flatten().for_each(|series| series.policy = UNRESOLVED);
        self.table.weigh();
        self.table.evictions.memory += self.given_up.len() as u64;
        (self.table, self.gone, self.given_up.into_iter().collect())
    }
}

/// Returns the index of a method in `methods`, and adds it if it is new.
fn number_of(methods: &mut Vec<MethodId>, method: &MethodId) -> usize {
    methods.iter().position(|known| known == method).unwrap_or_else(|| {
        methods.push(method.clone());
        methods.len() - 1
    })
}

fn set_origin(origins: &mut Vec<Origin>, slot: Slot, origin: Origin) {
    let at = slot.0 as usize;
    if origins.len() <= at {
        origins.resize(at + 1, NOWHERE);
    }
    origins[at] = origin;
}

/// Applies the window and the method of a policy to a series; returns whether it changed. `origin` is the index of the
/// method whose state it has.
fn adapt(series: &mut Series, origin: &mut usize, policy: &ResolvedPolicy, methods: &mut Vec<MethodId>) -> bool {
    let mut has_changed = series.block.shrink(policy.limits.window);
    let method = number_of(methods, &policy.id);
    if *origin != method {
        series.block.set_state(&policy.method.state_from(&series.block));
        *origin = method;
        has_changed = true;
    }
    has_changed
}

/// Methods for tests that check changes against those of a worker.
#[cfg(test)]
impl SeriesTable {
    /// Changes the policy of all series. Each series keeps the newest values that fit into its window, and a new method
    /// starts from these.
    pub fn change(&mut self, before: &crate::policy::Policy, after: &crate::policy::Policy) {
        for series in self.series.iter_mut().flatten() {
            let name = series.block.name().to_owned();
            let (device, metric) = name.split_once('\0').unwrap_or((&name, ""));
            let [before, after] = [before, after].map(|policy| policy.resolve(device, metric));
            let mut window = SeriesBlock::with(&name, &series.block.newest(after.window.value));
            if before.method.value == after.method.value {
                window.set_state(series.block.state());
            } else {
                let method = MethodId { name: after.method.value, version: 1 };
                let method = crate::method::by_id(&method, after.window.value).expect("a method");
                let mut state = vec![0; method.state_len()];
                window.iter().for_each(|value| method.update(&mut state, value, None));
                window.set_state(&state);
            }
            let bytes = series.snapshot_bytes();
            (series.block, series.policy) = (window, UNRESOLVED);
            if series.has(DIRTY) {
                self.dirty_bytes = self.dirty_bytes + series.snapshot_bytes() - bytes;
            }
        }
        self.weigh();
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{SnapshotOrigin, decode, encode_evicted, record_key};
    use super::super::tests::{method_of, origin, policies_of};
    use super::*;
    use crate::method::Method;
    use crate::policy::{Policy, PolicyOverride};

    fn snapshot(as_of: i64, values: &[f64], method: &dyn Method) -> SeriesSnapshot {
        let state = method.state_from(&SeriesBlock::with("", values));
        let SnapshotOrigin { settings, topic, partition } = origin();
        let method = method.id();
        let (values, last, touched) = (values.to_vec(), as_of - 1, 0);
        let carried = Vec::new();
        let content = SeriesContent { values, method, state, topic, partition, last, touched, carried };
        SeriesSnapshot { settings, as_of, content: SnapshotContent::Series(content) }
    }

    /// Returns the values and the state of the only series in a sweep.
    fn swept(table: &SeriesTable, method: &dyn Method) -> (Vec<f64>, Vec<u64>) {
        assert_eq!(table.dirty(), 1);
        let part = table.part(0, 1_000, usize::MAX, 30, &origin(), &policies_of(method.name(), 4));
        let record = &part.records[0];
        match decode(&record.key, &record.value).unwrap().content {
            SnapshotContent::Series(SeriesContent { values, state, .. }) => (values, state),
            SnapshotContent::Evicted => panic!("evicted"),
        }
    }

    #[test]
    fn a_silent_series_that_shrank_is_written_by_the_next_sweep() {
        let mut restore = TableRestore::default();
        let sigma = method_of("sigma", 4);
        restore.load("a", Some(snapshot(10, &[1.0, 2.0, 3.0, 4.0], sigma.as_ref())));
        restore.set_epoch(20, policies_of("sigma", 3));
        let (table, ..) = restore.finish();
        assert_eq!(swept(&table, sigma.as_ref()), (vec![2.0, 3.0, 4.0], vec![]));
    }

    #[test]
    fn another_method_starts_from_the_window_in_order_and_the_next_sweep_writes_its_state() {
        let (sigma, ewma) = (method_of("sigma", 4), method_of("ewma", 4));
        let values = [1.0, 2.0, 4.0, 8.0];
        let from_window = ewma.state_from(&SeriesBlock::with("", &values));
        for (before, after, state) in [(&sigma, "ewma", from_window), (&ewma, "sigma", vec![])] {
            let mut restore = TableRestore::default();
            restore.load("a", Some(snapshot(10, &values, before.as_ref())));
            restore.set_epoch(0, policies_of(&before.id().name, 4));
            restore.set_epoch(20, policies_of(after, 4));
            let (table, ..) = restore.finish();
            assert_eq!(swept(&table, method_of(after, 4).as_ref()), (values.to_vec(), state));
        }
    }

    #[test]
    fn a_restore_beyond_the_memory_gives_up_the_series_that_were_silent_longest_and_their_replayed_records() {
        let mut restore = TableRestore::default();
        let sigma = method_of("sigma", 4);
        for (as_of, key) in [(30, "c"), (10, "a"), (20, "b"), (40, "d")] {
            restore.load(key, Some(snapshot(as_of, &[1.0, 2.0], sigma.as_ref())));
        }
        restore.give_up(restore.bytes() / 2, 60);
        // Later snapshots in the topic.
        restore.load("b", Some(snapshot(50, &[3.0], sigma.as_ref())));
        restore.load("a", Some(snapshot(15, &[1.0, 2.0], sigma.as_ref())));
        restore.give_up(restore.bytes() - 1, 60);
        // A recorded eviction of a series that was given up.
        restore.load("e", Some(snapshot(5, &[1.0, 2.0], sigma.as_ref())));
        restore.give_up(restore.bytes() - 1, 60);
        let evicted = encode_evicted(&record_key("e"), *b"abcdef", 60);
        restore.load("e", Some(decode(&record_key("e"), &evicted).unwrap()));
        restore.set_epoch(0, policies_of("sigma", 4));
        for key in ["a", "b", "c"] {
            let event = ReplayedEvent { offset: 55, time: None, event_time: None, value: 9.0, has_more: false };
            restore.replay(key, SlotHint::NONE, event);
        }
        let (mut table, gone, given_up) = restore.finish();
        let gone_at_60 = GoneSeries { begins: 60, has_record: true };
        assert_eq!(gone, HashMap::from([("a".into(), gone_at_60), ("e".into(), gone_at_60)]));
        assert_eq!(given_up, vec!["a".into()]);
        let kept = ["a", "b", "c", "d"].map(|key| Some(table.block(table.find_slot(key, SlotHint::NONE)?).newest(9)));
        assert_eq!(kept, [None, Some(vec![3.0, 9.0]), Some(vec![1.0, 2.0, 9.0]), Some(vec![1.0, 2.0])]);
        assert_eq!(table.take_evictions().memory, 1);
    }

    #[test]
    fn a_state_that_the_method_has_already_is_kept() {
        let ewma = method_of("ewma", 3);
        let mut snapshot = snapshot(10, &[1.0, 2.0], ewma.as_ref());
        let SnapshotContent::Series(series) = &mut snapshot.content else { panic!() };
        let state = [40.0, 1.25, 0.5].map(f64::to_bits);
        series.state = state.to_vec();
        let mut restore = TableRestore::default();
        restore.load("a", Some(snapshot));
        restore.set_epoch(20, policies_of("ewma", 3));
        let (table, ..) = restore.finish();
        assert_eq!(table.dirty(), 0);
        assert_eq!(table.series[0].as_ref().unwrap().block.state(), state);
    }

    fn on(device: &str) -> PolicyOverride {
        PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() }
    }

    fn policies(window: usize, overrides: &[PolicyOverride]) -> PolicyTable {
        PolicyTable::new(&Policy { window, overrides: overrides.to_vec(), ..Policy::default() }).unwrap()
    }

    #[test]
    fn each_series_is_replayed_with_the_method_and_the_window_of_its_epoch() {
        let ewma = PolicyOverride { method: Some("ewma".into()), ..on("a*") };
        let short = PolicyOverride { window: Some(2), ..on("b") };
        let excluded = PolicyOverride { enabled: Some(false), ..on("*x") };
        let mut restore = TableRestore::default();
        let replay = |restore: &mut TableRestore, offsets: std::ops::Range<i64>| {
            for offset in offsets {
                for key in ["a", "b", "c", "ax", "x"] {
                    let event =
                        ReplayedEvent { offset, time: None, event_time: None, value: offset as f64, has_more: false };
                    restore.replay(key, SlotHint::NONE, event);
                }
            }
        };
        restore.set_epoch(0, policies(4, &[ewma.clone(), short.clone()]));
        replay(&mut restore, 0..5);
        restore.set_epoch(5, policies(3, &[short, ewma, excluded]));
        replay(&mut restore, 5..7);
        let (table, ..) = restore.finish();
        let window = |key| table.block(table.find_slot(key, SlotHint::NONE).unwrap());
        assert_eq!(window("a").newest(9), [4.0, 5.0, 6.0]);
        let values = |key| f64::from_bits(window(key).state()[0]);
        assert_eq!(values("a"), 7.0, "seven values since the beginning");
        assert_eq!((window("b").newest(9), window("b").state()), (vec![5.0, 6.0], &[][..]));
        assert_eq!(window("c").newest(9), [4.0, 5.0, 6.0]);
        // Excluded series keep their window and state.
        assert_eq!((window("ax").newest(9), values("ax")), (vec![2.0, 3.0, 4.0], 5.0));
        assert_eq!(window("x").newest(9), [2.0, 3.0, 4.0]);
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn deleted_snapshots_do_not_count_as_the_newest_ones() {
        let sigma = method_of("sigma", 4);
        let mut restore = TableRestore::default();
        restore.load("a", Some(snapshot(10, &[1.0], sigma.as_ref())));
        restore.load("b", Some(snapshot(30, &[1.0], sigma.as_ref())));
        let evicted = encode_evicted(&record_key("c"), *b"abcdef", 20);
        restore.load("c", Some(decode(&record_key("c"), &evicted).unwrap()));
        assert_eq!(restore.newest(), 30);
        restore.load("b", None);
        assert_eq!(restore.newest(), 20);
        restore.load("c", None);
        assert_eq!(restore.newest(), 10);
        restore.load("a", None);
        assert_eq!(restore.newest(), 0);
    }

    #[test]
    fn unknown_sections_are_written_again_and_removed_by_an_eviction() {
        let sigma = method_of("sigma", 4);
        let mut known = snapshot(10, &[1.0, 2.0, 3.0, 4.0], sigma.as_ref());
        let SnapshotContent::Series(series) = &mut known.content else { panic!() };
        series.carried = vec![200, 2, 0, 0, 0, 7, 9];
        let mut restore = TableRestore::default();
        restore.load("a", Some(known));
        restore.set_epoch(20, policies_of("sigma", 3));
        let table = restore.finish().0;
        let record = table.part(0, 1_000, usize::MAX, 30, &origin(), &policies_of("sigma", 3)).records.remove(0);
        let read = decode(&record.key, &record.value).unwrap();
        let SnapshotContent::Series(SeriesContent { carried, .. }) = &read.content else { panic!() };
        assert_eq!(carried, &[200, 2, 0, 0, 0, 7, 9]);
        let mut restore = TableRestore::default();
        restore.load("a", Some(read));
        let evicted = encode_evicted(&record_key("a"), *b"abcdef", 40);
        restore.load("a", Some(decode(&record_key("a"), &evicted).unwrap()));
        assert!(restore.finish().0.carried.is_empty());
    }
}
