//! Stores the pending records in the ledger, fewer at once if the database cancels a batch.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Sink;
use crate::health::ComponentState;
use crate::ledger::LedgerError;
use crate::stream::client::{Fault, GroupConsumer};

impl<R: GroupConsumer> Sink<'_, R> {
    /// Stores the pending records in the ledger.
    pub(super) fn store(&mut self) -> Result<(), Fault> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let count = self.batch_size.of(self.pending.len());
        let moves = self.moves(count);
        match self.ledger.write(&self.pending[..count], &moves) {
            Ok(written) => {
                self.meter.sink_rows.add("inserted", written.inserted);
                self.meter.sink_rows.add("present", written.present);
                self.meter.sink_rows.add("rejected", written.rejected);
                self.positions.extend(moves.into_iter().map(|(partition, (_, next))| (partition, next)));
                self.pending.drain(..count);
                self.batch_size.note_stored(self.reader.now());
                self.is_away = false;
                if written.rejected > 0 {
                    self.next_check = Duration::ZERO;
                }
                Ok(())
            }
            Err(LedgerError::Slow(why)) => {
                self.note_cancelled(count, why);
                Ok(())
            }
            Err(why) => self.note_failure(why),
        }
    }

    /// Halves the batch after the database has cancelled a statement for this many records. Reports a single record that
    /// takes too long.
    fn note_cancelled(&mut self, count: usize, why: String) {
        if self.batch_size.note_cancelled(count, self.reader.now()) {
            if self.component.is_due("cancelled") {
                tracing::warn!(records = count, "a batch takes too long; fewer records are stored at once: {why}");
            }
            return;
        }
        let place = self.pending.first().map_or_else(String::new, |entry| {
            format!("{} [{}] offset {}", self.settings.topics.anomalies, entry.partition, entry.offset)
        });
        self.component.set(ComponentState::Degraded(format!(
            "{why}, also for a single record ({place}). The anomalies wait in the topic. Set postgres.statement_timeout ({} s) \
             higher, or end the session that blocks the table: pg_stat_activity and pg_locks name it",
            self.settings.postgres.statement_timeout.as_secs_f64()
        )));
        self.is_away = true;
    }

    /// Returns the old and the new offset of each partition with records among the first pending ones.
    fn moves(&self, count: usize) -> BTreeMap<i32, (i64, i64)> {
        let mut moves = BTreeMap::new();
        for entry in &self.pending[..count] {
            // Partitions without a position have no pending records.
            let Some(old) = self.positions.get(&entry.partition) else { continue };
            let (_, new) = moves.entry(entry.partition).or_insert((*old, *old));
            *new = (entry.offset + 1).max(*new);
        }
        moves
    }
}
