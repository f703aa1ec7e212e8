//! Evicts series from a table, and records why. The live loop decides: it evicts at an offset of the partition, a
//! limited number at a time. It writes each eviction in the transaction that commits the offset. A restart applies the
//! recorded evictions and makes no decision itself, so a limit may change at any time.

use super::undo::{EvictedSeries, UndoStep};
use super::{STORED, SeriesTable};

/// Maximum number of series that one record evicts, so that a lowered limit does not delay the loop.
const EVICTED_AT_ONCE: usize = 64;
/// Maximum number of series that a table evicts before the next commit, apart from one for each new series.
const EVICTED_TOGETHER: usize = 4_096;
/// Number of the partition's records per series before a series is idle. After a jump of the clock each series that
/// still sends has the time to do so.
const ROUNDS: i64 = 2;
/// Maximum number of records to wait for, whatever the number of series.
const MOST_RECORDS: i64 = 65_536;

/// Limits of a partition's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesLimits {
    /// Maximum number of series; above it the series that has been silent longest is evicted.
    pub max_series: usize,
    /// Seconds without a value, by the partition's clock, after which a series is evicted; `None` means never.
    pub idle_after: Option<u32>,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        SeriesLimits { max_series: u32::MAX as usize - 1, idle_after: None }
    }
}

/// Reason why a series was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionCause {
    /// The table had too many series.
    Full,
    /// The series was silent for too long.
    Idle,
    /// The series of the process used too much memory.
    Memory,
}

impl EvictionCause {
    /// Returns the cause as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            EvictionCause::Full => "full",
            EvictionCause::Idle => "idle",
            EvictionCause::Memory => "memory",
        }
    }
}

/// Numbers of evicted series by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evictions {
    /// Number of evictions with [`EvictionCause::Full`].
    pub full: u64,
    /// Number of evictions with [`EvictionCause::Idle`].
    pub idle: u64,
    /// Number of evictions with [`EvictionCause::Memory`].
    pub memory: u64,
}

impl Evictions {
    /// Adds other evictions.
    pub fn add(&mut self, other: Evictions) {
        self.full += other.full;
        self.idle += other.idle;
        self.memory += other.memory;
    }
}

/// A series that was evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Key of the series, see [`key`](super::key).
    pub key: Box<str>,
    /// Offset from which on records start the series again. It has no record between its newest one and this offset.
    pub at: i64,
    /// Reason of the eviction.
    pub cause: EvictionCause,
    /// Whether the state topic has an earlier record with this key.
    pub is_stored: bool,
}

impl SeriesTable {
    /// Returns the evictions since the last commit.
    pub fn evicted(&self) -> &[Evicted] {
        &self.evicted
    }

    /// Returns the numbers of committed evictions since the last call.
    pub fn take_evictions(&mut self) -> Evictions {
        std::mem::take(&mut self.evictions)
    }

    /// Evicts one series if the table is full and the record at `offset` starts another one. A series with a value in
    /// this record stays until the record is judged, because a restart replays whole records.
    pub(super) fn make_room(&mut self, offset: i64, bounds: SeriesLimits) {
        if self.len() >= bounds.max_series.max(1)
            && let Some(oldest) = self.oldest().filter(|oldest| self.at(*oldest).last < offset)
        {
            self.evict(oldest, offset, EvictionCause::Full);
        }
    }

    /// Evicts series that are due before the record at `next`. Series above a limit are evicted first, then idle ones. The next records evict the rest.
    pub fn prune(&mut self, next: i64, bounds: SeriesLimits) {
        let is_full = self.len() > bounds.max_series.max(1);
        let may_be_idle = bounds.idle_after.is_some_and(|idle_after| {
            let limit = self.clock.elapsed().saturating_sub(idle_after);
            self.may_be_older(limit)
        });
        if is_full || may_be_idle || self.is_over() {
            self.evict_due(next, bounds);
        }
    }

    #[cold]
    fn evict_due(&mut self, next: i64, bounds: SeriesLimits) {
        for _ in 0..EVICTED_AT_ONCE.min(EVICTED_TOGETHER.saturating_sub(self.evicted.len())) {
            match self.due(next, bounds) {
                Some((oldest, cause)) => self.evict(oldest, next, cause),
                None => return,
            }
        }
    }

    /// Returns the series to evict before the record at `next`, if there is one.
    fn due(&mut self, next: i64, bounds: SeriesLimits) -> Option<(u32, EvictionCause)> {
        let oldest = self.oldest()?;
        if self.len() > bounds.max_series.max(1) {
            return Some((oldest, EvictionCause::Full));
        }
        if self.is_over() {
            return Some((oldest, EvictionCause::Memory));
        }
        self.is_idle(oldest, next, bounds).then_some((oldest, EvictionCause::Idle))
    }

    fn is_idle(&self, at: u32, next: i64, bounds: SeriesLimits) -> bool {
        let (last, touched) = (self.at(at).last, self.at(at).touched);
        let silence = self.clock.elapsed().saturating_sub(touched);
        let records = (ROUNDS * self.len() as i64).min(MOST_RECORDS);
        bounds.idle_after.is_some_and(|idle_after| silence > idle_after) && next - last > records
    }

    /// Evicts a series, which must be the [`oldest`](SeriesTable::oldest).
    fn evict(&mut self, oldest: u32, at: i64, cause: EvictionCause) {
        self.order.leave();
        if let Some(series) = self.remove(oldest) {
            let is_stored = series.has(STORED);
            self.evicted.push(Evicted { key: series.block.name().into(), at, cause, is_stored });
            let carried = self.carried.remove(series.block.name());
            self.trail.push(UndoStep::Evicted(Box::new(EvictedSeries { series, carried })));
        }
    }
}

/// Methods for tests that check evictions against those of a worker.
#[cfg(test)]
impl SeriesTable {
    /// Evicts a series as recorded, before the record at `at` or to make room for a series of that record. Returns
    /// false if the series is not the next to evict, or not due. `record` is the series of that record, of which an
    /// older one may already have its value.
    pub fn obey(
        &mut self,
        key: &str,
        at: i64,
        bounds: SeriesLimits,
        record: &std::collections::BTreeSet<String>,
    ) -> bool {
        let Some(place) = self.find(key) else { return false };
        let last = self.at(place).last;
        let is_oldest =
            self.series.iter().flatten().all(|series| series.last >= last || record.contains(series.block.name()));
        let new = record.iter().filter(|series| !self.contains(series)).count();
        let is_full = self.len() + new > bounds.max_series.max(1);
        if !is_oldest || !(is_full || self.is_idle(place, at, bounds)) {
            return false;
        }
        // The series need not be the first of those with the same newest record.
        self.order.forget();
        self.evict(place, at, if is_full { EvictionCause::Full } else { EvictionCause::Idle });
        true
    }

    /// Evicts a series as recorded, for which the process had no memory.
    pub fn give_up(&mut self, key: &str, at: i64) -> bool {
        let Some(place) = self.find(key).filter(|place| self.at(*place).last < at) else { return false };
        self.order.forget();
        self.evict(place, at, EvictionCause::Memory);
        true
    }

    /// Returns a series that must be evicted before the record at `next`.
    pub fn overdue(&mut self, next: i64, bounds: SeriesLimits) -> Option<String> {
        let (oldest, _) = self.due(next, bounds)?;
        Some(self.at(oldest).block.name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::SlotHint;
    use super::*;

    fn feed(table: &mut SeriesTable, key: &str, offset: i64, time: Option<i64>, bounds: SeriesLimits) {
        let (slot, _) = table.slot(key, SlotHint::NONE, offset, bounds);
        table.tick(slot, offset, time);
        table.push(slot, offset, offset as f64, 3);
        table.prune(offset + 1, bounds);
    }

    fn evicted(table: &SeriesTable) -> Vec<(&str, i64, EvictionCause)> {
        table.evicted().iter().map(|e| (e.key.as_ref(), e.at, e.cause)).collect()
    }

    #[test]
    fn above_the_limit_the_series_that_was_silent_longest_is_evicted() {
        let bounds = SeriesLimits { max_series: 2, idle_after: None };
        let mut table = SeriesTable::default();
        for (offset, key) in ["a", "b", "a", "c"].into_iter().enumerate() {
            feed(&mut table, key, offset as i64, Some(0), bounds);
        }
        assert_eq!(evicted(&table), [("b", 3, EvictionCause::Full)]);
        assert!(table.contains("a") && table.contains("c") && table.len() == 2);
    }

    #[test]
    fn above_the_memory_series_are_evicted_by_silence_until_it_suffices() {
        let mut table = SeriesTable::default();
        for (offset, key) in (0..).zip(["a", "b", "c", "d", "a"]) {
            feed(&mut table, key, offset, None, SeriesLimits::default());
        }
        table.commit();
        let each = table.bytes() / 4;
        table.limit_bytes(Some(2 * each));
        feed(&mut table, "d", 5, None, SeriesLimits::default());
        assert_eq!(evicted(&table), [("b", 6, EvictionCause::Memory), ("c", 6, EvictionCause::Memory)]);
        assert!(!table.is_over() && table.contains("a") && table.contains("d"));
        table.commit();
        assert_eq!(table.take_evictions(), Evictions { memory: 2, ..Evictions::default() });
    }

    #[test]
    fn a_lowered_limit_is_reached_without_new_series_and_with_a_limited_number_of_evictions_at_a_time() {
        let mut table = SeriesTable::default();
        for offset in 0..10_000 {
            feed(&mut table, &offset.to_string(), offset, None, SeriesLimits::default());
        }
        let bounds = SeriesLimits { max_series: 100, idle_after: None };
        for offset in 10_000..10_200 {
            let before = table.len();
            feed(&mut table, "9999", offset, None, bounds);
            assert!(before - table.len() <= EVICTED_AT_ONCE);
        }
        assert_eq!(table.evicted().len(), EVICTED_TOGETHER, "in one transaction");
        for offset in 10_200..10_400 {
            table.commit();
            feed(&mut table, "9999", offset, None, bounds);
        }
        assert_eq!(table.len(), 100);
        assert!(table.contains("9999") && !table.contains("0"));
    }

    const NOW: i64 = 1_764_000_000_000;
    const IDLE: SeriesLimits = SeriesLimits { max_series: 1_000, idle_after: Some(600) };

    /// Creates a table of ten devices that send a value per second, and one that sent only at the beginning. `time`
    /// returns the times of their clocks.
    fn silent(time: impl Fn(i64, i64) -> i64) -> SeriesTable {
        let mut table = SeriesTable::default();
        let mut offset = 0;
        for second in 0..1_000 {
            for device in 0..10 {
                feed(&mut table, &format!("d{device}"), offset, Some(time(device, second)), IDLE);
                offset += 1;
            }
            if second == 50 {
                feed(&mut table, "silent", offset, Some(time(99, second)), IDLE);
                offset += 1;
            }
        }
        table
    }

    #[test]
    fn a_series_that_was_silent_for_too_long_is_evicted_once_and_no_wrong_time_changes_that() {
        for wrong in [None, Some(1), Some(NOW * 1_000), Some(7_258_118_400_000), Some(NOW - 3_600_000)] {
            let table = silent(|device, second| match wrong {
                Some(wrong) if device == 0 => wrong,
                _ => NOW + second * 1_000,
            });
            let [(key, at, EvictionCause::Idle)] = evicted(&table)[..] else {
                panic!("{wrong:?}: {:?}", evicted(&table))
            };
            assert_eq!(key, "silent");
            assert!((6_500..6_540).contains(&at), "evicted at {at} with {wrong:?}");
        }
    }

    #[test]
    fn a_jump_of_the_clock_evicts_no_series_that_still_sends() {
        let year = 365 * 86_400_000;
        let table = silent(|_, second| NOW + second * 1_000 + if second >= 300 { year } else { 0 });
        let [(key, at, EvictionCause::Idle)] = evicted(&table)[..] else { panic!("{:?}", evicted(&table)) };
        assert_eq!(key, "silent");
        assert!((3_000..3_030).contains(&at), "evicted at {at}");
    }

    #[test]
    fn without_times_or_with_two_devices_nothing_is_idle() {
        let mut table = SeriesTable::default();
        for offset in 0..10_000 {
            feed(&mut table, &format!("d{}", offset.min(20) % 20), offset, None, IDLE);
        }
        assert_eq!(evicted(&table), []);
        let mut table = SeriesTable::default();
        for offset in 0..10_000 {
            let (device, time) = (offset % 2, NOW + offset * 60_000);
            feed(&mut table, &format!("d{device}\0{}", offset.min(5)), offset, Some(time), IDLE);
        }
        assert_eq!(evicted(&table), []);
    }
}
