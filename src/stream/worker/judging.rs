//! Judging: polls records, judges them at once, and collects what the next transaction contains.

use std::time::Duration;

use super::BATCH_RECORDS;
use super::pending::PendingTransaction;
use crate::config::resolved::Settings;
use crate::detect::Detector;
use crate::event::Decoder;
use crate::series::BudgetShare;
use crate::stream::client::{Consumed, Fault, RecordFetch, Remedy};
use crate::stream::progress::ProgressByPartition;

/// Time between two commits that only move offsets to the ends of partitions.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// The series of the assigned partitions, and the outcome of the records since the last commit.
pub(super) struct RecordJudging {
    decoder: Decoder,
    pub detector: Detector,
    /// Progress including that of the pending transaction.
    pub positions: ProgressByPartition,
    pub pending: PendingTransaction,
    /// Time at which offsets were last advanced to the partitions' ends without any record.
    ends_moved: Duration,
    /// Maximum size of a dead letter's value in bytes. It is halved when the topic refuses a record as too large.
    dead_letter_limit: usize,
    pub budget: BudgetShare,
    /// Bytes of the series that are being restored.
    pub restoring_bytes: u64,
    /// Whether new series are refused from the next transaction on.
    pub refuses_series: bool,
}

impl RecordJudging {
    /// Creates the state of a worker without partitions.
    pub(crate) fn new(detector: Detector, settings: &Settings) -> Self {
        RecordJudging {
            decoder: Decoder::new(&settings.fields),
            detector,
            positions: ProgressByPartition::new(),
            pending: PendingTransaction::default(),
            ends_moved: Duration::ZERO,
            dead_letter_limit: usize::MAX,
            budget: BudgetShare::new(None),
            restoring_bytes: 0,
            refuses_series: false,
        }
    }

    /// Polls once, waiting at most `wait`, and judges the records. Returns their number.
    ///
    /// # Errors
    /// Returns the error of the poll. `Rebuild` if a partition that `is_restoring` delivers a record.
    pub(crate) fn take(
        &mut self,
        client: &mut impl RecordFetch,
        settings: &Settings,
        wait: Duration,
        is_restoring: impl Fn(i32) -> bool,
    ) -> Result<usize, Fault> {
        let RecordJudging { decoder, detector, positions, pending, dead_letter_limit, .. } = self;
        pending.tick();
        let mut leaked = false;
        let taken = client.poll(wait, BATCH_RECORDS, &mut |partition, consumed| {
            if is_restoring(partition) {
                leaked = true;
                return;
            }
            let Some(progress) = positions.get_mut(&partition) else { return };
            match consumed {
                Consumed::Records(records) => {
                    pending.judge(settings, decoder, detector, partition, records, progress, *dead_letter_limit);
                }
                Consumed::Oversized(batch) => pending.skip_batch(settings, partition, batch, progress),
            }
        })?;
        if leaked {
            return Err(Fault::new(Remedy::Rebuild, "the client returned a record of a paused partition"));
        }
        Ok(taken)
    }

    /// Moves past control records and aborted records at the ends of partitions, at most once a second. So no lag
    /// remains if nothing is left to judge. Returns whether there was one.
    pub(crate) fn move_to_ends(&mut self, client: &impl RecordFetch) -> bool {
        let now = client.now();
        // A record that stops the worker has been read, but must not be passed.
        if self.pending.poison.is_some() || now.saturating_sub(self.ends_moved) < MOVE_INTERVAL {
            return false;
        }
        let mut has_moved = false;
        for (partition, end) in client.reached() {
            if let Some(progress) = self.positions.get_mut(&partition).filter(|progress| progress.offset < end) {
                progress.offset = end;
                has_moved = true;
            }
        }
        if has_moved {
            self.ends_moved = now;
        }
        has_moved
    }

    /// Confirms the pending transaction after its commit, and returns it.
    pub(crate) fn confirm(&mut self) -> PendingTransaction {
        self.detector.commit();
        self.dead_letter_limit = usize::MAX;
        std::mem::take(&mut self.pending)
    }

    /// Rolls all changes back to the committed progress. The client's position does not change.
    pub(crate) fn rollback(&mut self, committed: &ProgressByPartition) {
        self.detector.rollback();
        self.pending = PendingTransaction::default();
        self.positions = committed.clone();
    }

    /// Halves the limit of dead letters, if the pending transaction has one. Returns the new limit.
    pub(crate) fn limit_dead_letters(&mut self) -> Option<usize> {
        let largest = self.pending.largest_dead_letter;
        if largest == 0 {
            return None;
        }
        self.dead_letter_limit = self.dead_letter_limit.min(largest.max(2)) / 2;
        Some(self.dead_letter_limit)
    }

    /// Halves the windows of anomalies, if the pending transaction has one with a window. Returns the new limit.
    pub(crate) fn limit_context(&mut self) -> Option<usize> {
        let longest = self.pending.anomalies.iter().map(|anomaly| anomaly.window.len()).max().filter(|n| *n > 0)?;
        self.detector.limit_context(longest / 2);
        Some(longest / 2)
    }

    /// Discards the state of all partitions.
    pub(crate) fn forget(&mut self) {
        self.positions.keys().for_each(|partition| self.detector.forget(*partition));
        self.positions.clear();
        self.budget.note(0);
    }
}
