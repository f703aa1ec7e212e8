//! Reports records that a restart needed for its windows and did not find. The input is compacted, or its retention has
//! deleted them. It logs an error, and raises a condition while windows may differ.

use std::collections::BTreeMap;

use crate::health::{Component, ConditionCode, ConditionSeverity};
use crate::stream::progress::ProgressByPartition;

/// Missing records of the partitions of one worker.
#[derive(Default)]
pub(super) struct Shortfalls {
    /// Number of missing records, and the sum of counts at which all active windows have only newer values.
    missing: BTreeMap<i32, (u64, u64)>,
}

impl Shortfalls {
    /// Discards the shortfalls, because the partitions belong to others.
    pub(crate) fn clear(&mut self) {
        self.missing.clear();
    }

    /// Adds a shortfall. `passed` records have an outcome now; after `values` more the windows have only newer values.
    pub(crate) fn add(&mut self, partition: i32, missing: u64, passed: u64, values: u64) {
        self.missing.insert(partition, (missing, passed.saturating_add(values)));
    }

    /// Raises or clears the condition of missing records.
    pub(crate) fn watch(&mut self, topic: &str, positions: &ProgressByPartition, component: &Component) {
        self.missing.retain(|partition, (_, until)| {
            positions.get(partition).is_some_and(|progress| progress.counts.sum() < *until)
        });
        if self.missing.is_empty() {
            component.clear(ConditionCode::ReplayShortfall);
            return;
        }
        let missing = self.missing.values().map(|(missing, _)| missing).sum::<u64>();
        let partitions = self.missing.keys().map(i32::to_string).collect::<Vec<_>>().join(", ");
        component.raise(
            ConditionCode::ReplayShortfall,
            ConditionSeverity::Notice,
            format!(
                "{missing} records that windows need are no longer in {topic} [{partitions}]: verdicts differ from those without \
                 a restart until the windows are full of newer values. Set cleanup.policy=delete and a longer retention on {topic}, \
                 or detector.snapshot_interval lower"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use crate::stream::progress::{OutcomeCounts, Progress};

    #[test]
    fn the_condition_holds_until_windows_are_full_of_newer_values() {
        let component = Health::default().component("w");
        let positions = |passed| {
            ProgressByPartition::from([(
                3,
                Progress {
                    counts: OutcomeCounts { normal: passed, ..OutcomeCounts::default() },
                    ..Progress::default()
                },
            )])
        };
        let mut shortfalls = Shortfalls::default();
        shortfalls.add(3, 7, 100, 50);
        shortfalls.watch("raw", &positions(149), &component);
        assert!(component.conditions()[0].message.starts_with("7 records that windows need are no longer in raw [3]"));
        shortfalls.watch("raw", &positions(150), &component);
        assert!(component.conditions().is_empty());
    }
}
