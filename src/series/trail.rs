//! What happened to a table since its last commit, and how it is taken back: each step undoes exactly one, newest first.

use super::{Cause, Series, Table};
use crate::window::Replaced;

#[derive(Debug)]
pub(super) enum Step {
    Created(u32),
    /// With what the series had before.
    Pushed {
        at: u32,
        replaced: Replaced,
        last: i64,
        touched: u32,
    },
    Evicted(Box<Series>),
}

impl Table {
    /// What was done is final.
    pub fn commit(&mut self) {
        self.trail.clear();
        for evicted in self.evicted.drain(..) {
            match evicted.cause {
                Cause::Full => self.evictions.full += 1,
                Cause::Idle => self.evictions.idle += 1,
            }
        }
        self.committed_clock = self.clock;
    }

    /// Takes back everything since the last commit.
    pub fn rollback(&mut self) {
        while let Some(step) = self.trail.pop() {
            match step {
                Step::Pushed { at, replaced, last, touched } => {
                    let series = self.at_mut(at);
                    series.window.undo(replaced);
                    // It stays dirty: one snapshot too many is harmless.
                    (series.last, series.touched) = (last, touched);
                }
                Step::Created(at) => {
                    self.remove(at);
                }
                // Into the place that it left, which is the one freed last.
                Step::Evicted(series) => {
                    self.insert(*series);
                }
            }
        }
        // Newest records are older than they were.
        self.order.forget();
        self.evicted.clear();
        self.clock = self.committed_clock;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bounds, Guess};
    use super::*;

    /// Everything that a verdict or an eviction can depend on, oldest series first.
    fn contents(table: &Table) -> Vec<(String, Vec<u64>, i64, u32)> {
        let mut all = Vec::new();
        for (at, series) in (0..).zip(&table.series).filter_map(|(at, series)| Some((at, series.as_ref()?))) {
            let bits = series.window.iter().map(f64::to_bits).collect();
            assert_eq!(table.find(series.window.name()), Some(at));
            all.push((series.window.name().to_owned(), bits, series.last, series.touched));
        }
        assert_eq!(all.len(), table.len());
        all.sort_by_key(|(_, _, last, _)| *last);
        all
    }

    /// What leaves first when everything must.
    fn by_age(table: &mut Table) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(at) = table.oldest() {
            all.push(table.at(at).window.name().to_owned());
            table.remove(at);
        }
        all
    }

    proptest! {
        #[test]
        fn a_rollback_restores_windows_order_clock_and_what_was_evicted(
            before in prop::collection::vec((0..12u8, 0..90_000i64), 0..60),
            after in prop::collection::vec((0..12u8, 0..90_000i64), 0..60),
        ) {
            let bounds = Bounds { max_series: 6, idle_after: Some(120) };
            let mut table = Table::default();
            let (mut offset, mut time) = (0, 1_000_000);
            let mut feed = |table: &mut Table, events: &[(u8, i64)]| {
                for (device, step) in events {
                    (offset, time) = (offset + 1, time + step);
                    table.pass(offset, Some(time), bounds);
                    let (slot, _) = table.slot(&device.to_string(), Guess::NONE, offset, bounds);
                    table.push(slot, offset, offset as f64, 3);
                }
            };
            feed(&mut table, &before);
            table.commit();
            let (was, clock) = (contents(&table), table.clock());
            feed(&mut table, &after);
            prop_assert!(table.len() <= 6);
            table.rollback();
            prop_assert_eq!(&contents(&table), &was);
            prop_assert_eq!(table.clock(), clock);
            prop_assert!(table.evicted().is_empty());
            let names = was.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
            prop_assert_eq!(by_age(&mut table), names);
        }
    }
}
