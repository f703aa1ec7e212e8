//! Skips records that cannot be read, if `detector.on_damage` is `skip`. They are counted as skipped.

use super::Worker;
use crate::config::resolved::OnDamage;
use crate::stream::client::{Fault, TransactionalClient};

impl<C: TransactionalClient> Worker<'_, C> {
    /// Skips the batches at which partitions cannot be read. Returns whether there was one. It must be committed before
    /// the next poll, because that poll may need a new client to continue after the batch.
    pub(super) fn skip_damage(&mut self) -> Result<bool, Fault> {
        let Worker { session, judging, committing, .. } = self;
        let mut has_skipped = false;
        if session.settings.detector.on_damage != OnDamage::Skip || judging.pending.poison.is_some() {
            return Ok(has_skipped);
        }
        for partition in session.client.failures().into_keys() {
            let Some(progress) = judging.positions.get_mut(&partition) else { continue };
            let Some(range) = session.client.skip(partition)? else { continue };
            let first = range.start.max(progress.offset);
            let count = (range.end - first).max(0).unsigned_abs();
            progress.offset = range.end.max(progress.offset);
            progress.counts.skipped += count;
            judging.pending.note_skipped(count);
            let topic = &session.settings.topics.raw_events;
            let new = session.component.note_damaged(topic, partition, first..range.end);
            session.meter.lost_records.add("skipped", new);
            has_skipped = true;
        }
        if has_skipped && committing.open.is_none() {
            committing.begin(session)?;
        }
        Ok(has_skipped)
    }
}
