//! Keeps the series of a worker within the budget of the process, between two transactions. The decisions take effect
//! with the commit that records them.

use super::Worker;
use super::judging::RecordJudging;
use super::restore::PartitionRestore;
use crate::health::ConditionCode;
use crate::stream::progress::ProgressByPartition;

impl RecordJudging {
    /// Reports the memory of the series, and decides whether new series are refused from the next transaction on. If the
    /// process uses too much, evicts the series that were silent for longest. `next` is the progress to commit.
    pub(crate) fn weigh(&mut self, next: &ProgressByPartition) {
        if !self.budget.is_limited() {
            return;
        }
        self.budget.note(self.detector.bytes() + self.restoring_bytes);
        self.refuses_series = self.budget.refuses(self.refuses_series);
        let budget = &self.budget;
        self.detector.limit_bytes(|bytes| budget.allowance(bytes));
        self.detector.relieve(|partition| next.get(&partition).map(|progress| progress.offset));
    }
}

impl RecordJudging {
    /// Evicts series of a restore, if the process uses too much. So a worker can take over more series than it has memory
    /// for. The commits record these evictions.
    pub(crate) fn weigh_restore(&mut self, restoring: &mut PartitionRestore, committed: &ProgressByPartition) {
        if !self.budget.is_limited() {
            return;
        }
        self.restoring_bytes = restoring.series_bytes();
        self.budget.note(self.detector.bytes() + self.restoring_bytes);
        restoring.give_up(|bytes| self.budget.allowance(bytes), committed);
    }
}

impl<C> Worker<'_, C> {
    /// Counts the values of new series that were refused, and raises or clears the condition.
    pub(super) fn report_memory(&mut self) {
        let refused = self.judging.detector.take_refusals();
        self.session.meter.refused_values.inc_by(refused);
        let is_refusing = self.judging.detector.is_refusing();
        let message = self.judging.budget.level().filter(|_| is_refusing).map(|(used, limit)| {
            let mebibytes = |bytes: u64| bytes >> 20;
            format!(
                "the series use {} MiB of the {} MiB that detector.max_memory leaves for them, so that new series are not \
                 judged: their records count as excluded ({} values so far). Set detector.max_memory and MemoryMax of the unit \
                 higher, detector.idle_after or detector.max_series lower, or add instances",
                mebibytes(used),
                mebibytes(limit),
                self.session.meter.refused_values.get()
            )
        });
        self.session.component.set_degraded(ConditionCode::MemoryLimit, message);
    }
}
