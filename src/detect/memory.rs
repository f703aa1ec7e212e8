//! The memory of a detector's series: how much it is, and what follows from a limit.

use super::Detector;
use crate::series::SeriesTable;

impl Detector {
    /// Returns the number of committed values of new series that were refused since the last call.
    pub fn take_refusals(&mut self) -> u64 {
        self.tables.values_mut().map(SeriesTable::take_refusals).sum()
    }

    /// Returns the approximate memory of all series in bytes.
    pub fn bytes(&self) -> u64 {
        self.tables.values().map(SeriesTable::bytes).sum()
    }

    /// Returns whether new series of a partition are refused.
    pub fn is_refusing(&self) -> bool {
        self.tables.values().any(SeriesTable::is_closed)
    }

    /// Sets whether new series of all partitions are refused from now on.
    pub fn set_closed(&mut self, is_closed: bool) {
        self.tables.values_mut().for_each(|table| table.set_closed(is_closed));
    }

    /// Sets for each table the bytes above which it evicts series, by the bytes that it has.
    pub fn limit_bytes(&mut self, allowance: impl Fn(u64) -> Option<u64>) {
        self.tables.values_mut().for_each(|table| table.limit_bytes(allowance(table.bytes())));
    }

    /// Evicts series of tables that are above their limit, before the next record of each partition.
    pub fn relieve(&mut self, next: impl Fn(i32) -> Option<i64>) {
        let bounds = self.settings.bounds();
        for (partition, table) in &mut self.tables {
            if let Some(next) = next(*partition).filter(|_| table.is_over()) {
                self.trail.lend(table);
                table.prune(next, bounds);
                self.trail.take_back(*partition, table);
            }
        }
    }
}
