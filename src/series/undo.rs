//! Records the changes of tables since the last commit, and undoes them. Each step undoes exactly one change, newest
//! first.
//!
//! All tables of a worker share one log, because a transaction would otherwise touch the separate logs of hundreds of
//! tables.

use std::collections::BTreeMap;

use super::{EvictionCause, Series, SeriesTable, VALUE_BYTES};
use crate::series_block::Replaced;

#[derive(Debug)]
pub(super) enum UndoStep {
    Created(u32),
    /// A value was appended; the fields have what the series had before.
    Pushed {
        at: u32,
        replaced: Replaced,
        last: i64,
        touched: u32,
    },
    /// The method's state of a series was copied before it changed.
    StateSaved,
    Evicted(Box<EvictedSeries>),
}

/// Data that an eviction removed from the table.
#[derive(Debug)]
pub(super) struct EvictedSeries {
    pub series: Series,
    /// Unknown sections of the series' snapshot, see [`SeriesTable`].
    pub carried: Option<Box<[u8]>>,
}

/// Steps of all tables, in order, with the indexes where those of each partition end.
#[derive(Debug, Default)]
pub(crate) struct UndoLog {
    steps: Vec<UndoStep>,
    ends: Vec<(i32, usize)>,
}

impl UndoLog {
    /// Lends the steps to a table, which appends to them until [`take_back`](Self::take_back).
    pub(crate) fn lend(&mut self, table: &mut SeriesTable) {
        table.trail = std::mem::take(&mut self.steps);
    }

    /// Takes the steps back, with those that the table of that partition has added.
    pub(crate) fn take_back(&mut self, partition: i32, table: &mut SeriesTable) {
        self.steps = std::mem::take(&mut table.trail);
        match self.ends.last_mut().filter(|(last, _)| *last == partition) {
            Some((_, end)) => *end = self.steps.len(),
            None => self.ends.push((partition, self.steps.len())),
        }
    }

    /// Returns whether a step of this partition can still be undone.
    pub(crate) fn has_steps(&self, partition: i32) -> bool {
        self.ends.iter().any(|(of, _)| *of == partition)
    }

    /// Makes all changes final.
    pub(crate) fn commit(&mut self, tables: &mut BTreeMap<i32, SeriesTable>) {
        self.steps.clear();
        self.ends.clear();
        tables.values_mut().for_each(SeriesTable::commit);
    }

    /// Undoes all changes since the last commit.
    pub(crate) fn rollback(&mut self, tables: &mut BTreeMap<i32, SeriesTable>) {
        while let Some((partition, end)) = self.ends.pop() {
            let start = self.ends.last().map_or(0, |(_, end)| *end);
            if let Some(table) = tables.get_mut(&partition) {
                self.steps.drain(start..end).rev().for_each(|step| table.undo(step));
            }
            self.steps.truncate(start);
        }
        tables.values_mut().for_each(SeriesTable::settle);
    }
}

impl SeriesTable {
    /// Makes all changes of this table final.
    pub fn commit(&mut self) {
        self.trail.clear();
        self.forget_saved_states();
        for evicted in self.evicted.drain(..) {
            match evicted.cause {
                EvictionCause::Full => self.evictions.full += 1,
                EvictionCause::Idle => self.evictions.idle += 1,
                EvictionCause::Memory => self.evictions.memory += 1,
            }
        }
        self.refusals += std::mem::take(&mut self.refused);
        if std::mem::take(&mut self.has_ticked) {
            self.committed_clock.clone_from(&self.clock);
        }
    }

    fn undo(&mut self, step: UndoStep) {
        match step {
            UndoStep::Pushed { at, replaced, last, touched } => {
                let series = self.at_mut(at);
                series.block.undo(replaced);
                // The series stays dirty, because an unnecessary snapshot is harmless.
                (series.last, series.touched) = (last, touched);
                if replaced == Replaced::Nothing {
                    self.dirty_bytes -= VALUE_BYTES;
                }
            }
            UndoStep::StateSaved => self.put_back_state(),
            UndoStep::Created(at) => {
                self.remove(at);
            }
            // The series returns to its old slot, which is the one freed last.
            UndoStep::Evicted(evicted) => {
                let EvictedSeries { series, carried } = *evicted;
                if let Some(carried) = carried {
                    self.carried.insert(series.block.name().into(), carried);
                }
                self.insert(series);
            }
        }
    }

    /// Completes a rollback after all steps were undone.
    fn settle(&mut self) {
        // The newest records are older than before.
        self.order.forget();
        self.evicted.clear();
        self.refused = 0;
        if std::mem::take(&mut self.has_ticked) {
            self.clock.clone_from(&self.committed_clock);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{DIRTY, STATE_SAVED, SeriesLimits, SlotHint};
    use super::*;
    use crate::policy::{Policy, PolicyOverride, PolicyTable};
    use crate::series_block::SeriesBlock;

    /// Kinds of series, by the first part of their names. Each has a policy of its own.
    const KINDS: [&str; 6] = ["plain", "short", "weighted", "long", "adaptive", "off"];

    /// Returns a table with all methods, three windows and an excluded kind of series.
    fn policies() -> PolicyTable {
        let on = |device: &str| PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() };
        let ewma = || Some("ewma".to_owned());
        let overrides = vec![
            PolicyOverride { window: Some(2), ..on("short-*") },
            PolicyOverride { method: ewma(), ..on("weighted-*") },
            PolicyOverride { method: ewma(), window: Some(5), ..on("long-*") },
            PolicyOverride { method: Some("adaptive".to_owned()), ..on("adaptive-*") },
            PolicyOverride { enabled: Some(false), ..on("off-*") },
        ];
        PolicyTable::new(&Policy { window: 3, overrides, ..Policy::default() }).unwrap()
    }

    /// Returns whether a series has the state and at most the window that its own policy says.
    fn fits(window: &SeriesBlock) -> bool {
        let (kind, _) = window.name().split_once('-').unwrap();
        let (capacity, has_state) = match kind {
            "plain" => (3, false),
            "short" => (2, false),
            "weighted" | "adaptive" => (3, true),
            "long" => (5, true),
            _ => return false,
        };
        window.len() <= capacity && window.state().is_empty() != has_state
    }

    /// Returns everything that a verdict or an eviction can depend on, oldest series first.
    fn contents(table: &SeriesTable) -> Vec<(String, Vec<u64>, i64, u32)> {
        let dirty = table.series.iter().flatten().filter(|series| series.has(DIRTY));
        assert_eq!(table.dirty_bytes, dirty.map(Series::snapshot_bytes).sum::<u64>());
        assert_eq!(table.heap_bytes, table.series.iter().flatten().map(|s| s.block.bytes() as u64).sum::<u64>());
        let mut all = Vec::new();
        for (at, series) in (0..).zip(&table.series).filter_map(|(at, series)| Some((at, series.as_ref()?))) {
            assert!(!series.has(STATE_SAVED));
            let bits = series.block.iter().map(f64::to_bits).chain(series.block.state().iter().copied()).collect();
            assert_eq!(table.find(series.block.name()), Some(at));
            all.push((series.block.name().to_owned(), bits, series.last, series.touched));
        }
        assert_eq!(all.len(), table.len());
        all.sort_by_key(|(_, _, last, _)| *last);
        all
    }

    /// Returns the series in the order in which they are evicted.
    fn by_age(table: &mut SeriesTable) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(at) = table.oldest() {
            all.push(table.at(at).block.name().to_owned());
            table.remove(at);
        }
        all
    }

    proptest! {
        #[test]
        fn a_rollback_restores_windows_order_clock_and_what_was_evicted(
            before in prop::collection::vec((0..2i32, 0..15usize, 0..90_000i64), 0..60),
            after in prop::collection::vec((0..2i32, 0..15usize, 0..90_000i64), 0..60),
        ) {
            let mut policies = policies();
            let bounds = SeriesLimits { max_series: 6, idle_after: Some(120) };
            let mut trail = UndoLog::default();
            let mut tables = BTreeMap::from([0, 1].map(|partition| (partition, SeriesTable::default())));
            let (mut offset, mut time) = (0, 1_000_000);
            let mut feed = |trail: &mut UndoLog, tables: &mut BTreeMap<i32, SeriesTable>, events: &[(i32, usize, i64)]| {
                for (partition, device, step) in events {
                    let table = tables.get_mut(partition).unwrap();
                    trail.lend(table);
                    (offset, time) = (offset + 1, time + step);
                    let key = format!("{}-{device}", KINDS[device % KINDS.len()]);
                    let found = table.find_slot(&key, SlotHint::NONE).map(|slot| table.policy(slot));
                    if policies.excludes(found, &key) {
                        table.pass_by(&key, offset, Some(time));
                    } else {
                        let (slot, _) = table.slot(&key, SlotHint::NONE, offset, bounds);
                        let (policy, number) = policies.of(table.policy(slot), &key);
                        table.set_policy(slot, number);
                        table.tick(slot, offset, Some(time));
                        if policy.has_state {
                            table.update_state(slot, policy.method.as_ref(), offset as f64, Some(time));
                        }
                        table.push(slot, offset, offset as f64, policy.limits.window);
                    }
                    table.prune(offset + 1, bounds);
                    trail.take_back(*partition, table);
                }
            };
            let carries = |tables: &BTreeMap<i32, SeriesTable>| {
                tables.values().map(|table| table.carried.clone()).collect::<Vec<_>>()
            };
            let state = |tables: &BTreeMap<i32, SeriesTable>| {
                tables.values().map(|table| (contents(table), table.clock().read())).collect::<Vec<_>>()
            };
            feed(&mut trail, &mut tables, &before);
            trail.commit(&mut tables);
            for table in tables.values_mut() {
                let first = table.series.iter().flatten().next().map(|series| series.block.name().into());
                table.carried.extend(first.map(|name| (name, [1, 2, 3].into())));
            }
            let carried = carries(&tables);
            let was = state(&tables);
            feed(&mut trail, &mut tables, &after);
            prop_assert!(tables.values().all(|table| table.len() <= 6));
            let mut windows = tables.values().flat_map(|table| table.series.iter().flatten()).map(|of| &of.block);
            prop_assert!(windows.all(fits));
            trail.rollback(&mut tables);
            prop_assert_eq!(&state(&tables), &was);
            prop_assert_eq!(carries(&tables), carried);
            for (table, (was, _)) in tables.values_mut().zip(was) {
                prop_assert!(table.evicted().is_empty());
                let names = was.into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
                prop_assert_eq!(by_age(table), names);
            }
            // A second rollback changes nothing.
            trail.rollback(&mut tables);
            prop_assert!(tables.values().all(SeriesTable::is_empty));
        }
    }
}
