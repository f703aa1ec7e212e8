//! Reports partitions of topic `anomalies` that cannot be read or make no progress, and skips damaged batches if the
//! settings say so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Sink;
use crate::config::resolved::OnDamage;
use crate::health::ConditionCode;
use crate::stream::client::{Fault, GroupConsumer, Positions};
use crate::stream::standstill::describe_failures;

impl<R: GroupConsumer> Sink<'_, R> {
    /// Skips the batches at which partitions cannot be read, if `detector.on_damage` is `skip`. Everything before them
    /// must be stored.
    pub(super) fn skip_damage(&mut self) -> Result<(), Fault> {
        let is_ready = self.pending.is_empty() && !self.is_away && self.given.is_none();
        if self.settings.detector.on_damage != OnDamage::Skip || !is_ready {
            return Ok(());
        }
        for partition in self.reader.failures().into_keys() {
            let Some(next) = self.positions.get(&partition).copied() else { continue };
            let Some(range) = self.reader.skip(partition)? else { continue };
            let first = range.start.max(next);
            let moves = BTreeMap::from([(partition, (next, range.end.max(next)))]);
            if let Err(why) = self.ledger.write(&[], &moves) {
                // Without a stored offset, the batch must be found again.
                self.reader.seek(&Positions::from([(partition, next)]))?;
                return self.note_failure(why);
            }
            self.positions.insert(partition, range.end.max(next));
            let new = self.component.note_damaged(&self.settings.topics.anomalies, partition, first..range.end);
            self.meter.lost_records.add("skipped", new);
        }
        Ok(())
    }

    /// Raises or clears the conditions about records that cannot be read, and about partitions without progress.
    /// `reached` has the partitions that were read to their end. They count as complete, because `check_ledger` moves the
    /// ledger to the end.
    pub(super) fn report_damage(&mut self, ends: &Positions, reached: &Positions) {
        let (topic, now) = (&self.settings.topics.anomalies, self.reader.now());
        let failures = self.reader.failures();
        let consequence = "The anomalies before it are stored; the others wait until it can be read";
        self.component.set_degraded(ConditionCode::Unreadable, describe_failures(topic, &failures, consequence));
        self.component.report_damaged();
        let is_reported = |partition: &i32, end: i64| {
            failures.contains_key(partition)
                || (self.pending.is_empty() && reached.get(partition).is_some_and(|read| *read >= end))
        };
        let ends = self.positions.iter().filter_map(|(partition, next)| {
            let end = ends.get(partition).copied().filter(|end| !is_reported(partition, *end))?;
            Some((*partition, (*next, end)))
        });
        let standing = self.stall.watch(now, Duration::ZERO, ends);
        self.component.set_degraded(ConditionCode::NoProgress, self.stall.describe(topic, &standing, "stored"));
    }
}
