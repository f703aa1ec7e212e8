//! What happened to a table since its last commit, and how it is taken back: each step undoes exactly one, newest first.

use super::{Cause, Series, Table};
use crate::window::Replaced;

#[derive(Debug)]
pub(super) enum Step {
    Created(u32),
    /// With what the series had before, and its newer neighbour then.
    Pushed {
        at: u32,
        replaced: Replaced,
        last: i64,
        touched: u32,
        newer: u32,
    },
    Evicted {
        series: Box<Series>,
        newer: u32,
    },
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
                Step::Pushed { at, replaced, last, touched, newer } => {
                    self.unlink(at);
                    let series = self.at_mut(at);
                    series.window.undo(replaced);
                    // It stays dirty: one snapshot too many is harmless.
                    (series.last, series.touched) = (last, touched);
                    self.link(at, newer);
                }
                Step::Created(at) => {
                    self.remove(at);
                }
                Step::Evicted { series, newer } => {
                    // Into the place that it left, which is the one freed last.
                    let at = self.insert(*series);
                    self.unlink(at);
                    self.link(at, newer);
                }
            }
        }
        self.evicted.clear();
        self.clock = self.committed_clock;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Bounds;
    use super::*;

    /// Everything that a verdict or an eviction can depend on, oldest series first.
    fn contents(table: &Table) -> Vec<(String, Vec<u64>, i64, u32)> {
        let mut all = Vec::new();
        let mut next = table.order.oldest();
        while let Some(at) = next {
            let series = table.at(at);
            let bits = series.window.iter().map(f64::to_bits).collect();
            assert_eq!(table.find(&series.key), Some(at));
            all.push((series.key.to_string(), bits, series.last, series.touched));
            next = (series.links.newer != super::super::order::NONE).then_some(series.links.newer);
        }
        assert_eq!(all.len(), table.len());
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
                    let (slot, _) = table.slot(&device.to_string(), offset, bounds);
                    table.push(slot, offset, offset as f64, 3);
                }
            };
            feed(&mut table, &before);
            table.commit();
            let (was, clock) = (contents(&table), table.clock());
            feed(&mut table, &after);
            prop_assert!(table.len() <= 6);
            table.rollback();
            prop_assert_eq!(contents(&table), was);
            prop_assert_eq!(table.clock(), clock);
            prop_assert!(table.evicted().is_empty());
        }
    }
}
