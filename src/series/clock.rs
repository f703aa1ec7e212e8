//! The clock of a partition: the number of seconds that have passed according to the times of its records. One device
//! with wrong times cannot move it. The clock depends on the records alone, never on the wall clock.
//!
//! The newest time of each device is stored in one of `CELLS` cells, which the device's name selects. The time of the
//! partition is the median of the cells that a record has updated within the last `CURRENT_OFFSETS` offsets. So a device with
//! wrong times is one time of many, however often it sends. 31 such devices are never the majority of 128 cells.
//!
//! Seconds pass when the median rises above the highest one so far. A median that stays below the highest for `CURRENT_OFFSETS`
//! offsets becomes the highest, so that time passes again after many wrong times. While fewer than `MIN_CELLS` cells are
//! current, no time passes.

use serde::{Deserialize, Serialize};

/// Number of cells of a clock; a device has one of them.
pub(crate) const CELLS: usize = 128;
/// Minimum number of current cells for a reliable median.
const MIN_CELLS: usize = 3;
/// Number of offsets after which a cell without a new record is not current.
const CURRENT_OFFSETS: i64 = 4_096;
/// Number of offsets between two medians while there are too few cells.
const RETRY_OFFSETS: i64 = 32;
/// Maximum number of seconds of one step: a year.
const LEAP: u32 = 366 * 86_400;
/// Offset of a cell that no record has updated; it is before every offset.
const NEVER: i64 = i64::MIN / 2;

/// The clock of one partition. Its offsets never decrease, except through [`PartitionClock::clone_from`].
#[derive(Debug)]
pub struct PartitionClock {
    /// Number of seconds that have passed.
    elapsed: u32,
    /// Highest median so far, in seconds since the epoch; `None` while there is none.
    high: Option<u32>,
    /// Offset at which the median was last seen at `high`.
    confirmed: i64,
    /// Offset before which no median is computed.
    next: i64,
    cells: Box<ClockCells>,
}

#[derive(Debug, Clone)]
struct ClockCells {
    /// Newest time of each cell, in seconds since the epoch.
    times: [u32; CELLS],
    /// Offset of the record with that time.
    seen: [i64; CELLS],
}

/// The clock of a partition as stored in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSnapshot {
    /// Number of seconds that have passed.
    pub elapsed: u32,
    high: Option<u32>,
    confirmed: i64,
    next: i64,
    /// Number, time and offset of each current cell.
    cells: Vec<(u8, u32, i64)>,
}

impl ClockSnapshot {
    /// Creates a clock of which only the passed seconds are known.
    pub fn at(elapsed: u32) -> Self {
        ClockSnapshot { elapsed, ..ClockSnapshot::default() }
    }
}

/// Returns the cell of a series: that of its device, which is the first part of its key.
pub(crate) fn cell_of(key: &str) -> u8 {
    let device = key.split('\0').next().unwrap_or_default();
    // FNV-1a is the same in every process, because a restart must find each device in its cell.
    let hash = device
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    ((hash ^ (hash >> 32) ^ (hash >> 15)) % CELLS as u64) as u8
}

/// Converts milliseconds to seconds since the epoch. Times outside the years 1970 to 2106 become the nearer end.
pub(crate) fn seconds(millis: i64) -> u32 {
    (millis / 1_000).clamp(0, i64::from(u32::MAX)) as u32
}

impl Default for PartitionClock {
    fn default() -> Self {
        let cells = Box::new(ClockCells { times: [0; CELLS], seen: [NEVER; CELLS] });
        PartitionClock { elapsed: 0, high: None, confirmed: 0, next: 0, cells }
    }
}

impl Clone for PartitionClock {
    fn clone(&self) -> Self {
        PartitionClock { cells: self.cells.clone(), ..*self }
    }

    /// Copies the cells without allocating memory.
    fn clone_from(&mut self, other: &Self) {
        (self.elapsed, self.high) = (other.elapsed, other.high);
        (self.confirmed, self.next) = (other.confirmed, other.next);
        self.cells.clone_from(&other.cells);
    }
}

impl PartitionClock {
    /// Returns the number of seconds that have passed.
    pub fn elapsed(&self) -> u32 {
        self.elapsed
    }

    /// Notes a record of a device in this cell. `time` is the record's own, in milliseconds since the epoch, if it has
    /// one.
    pub fn note(&mut self, cell: u8, offset: i64, time: Option<i64>) {
        let Some(time) = time.map(seconds) else { return };
        let at = usize::from(cell) % CELLS;
        (self.cells.times[at], self.cells.seen[at]) = (time, offset);
        let may_move = self.high.is_none_or(|high| time > high) || offset - self.confirmed >= CURRENT_OFFSETS;
        if may_move && offset >= self.next {
            self.take_median(offset);
        }
    }

    #[cold]
    fn take_median(&mut self, offset: i64) {
        let (mut current, mut n) = ([0; CELLS], 0);
        for (time, seen) in self.cells.times.iter().zip(&self.cells.seen) {
            if offset - seen < CURRENT_OFFSETS {
                current[n] = *time;
                n += 1;
            }
        }
        if n < MIN_CELLS {
            (self.high, self.confirmed, self.next) = (None, offset, offset + RETRY_OFFSETS);
            return;
        }
        // A few records hardly move the median of many cells.
        self.next = offset + (n as i64 / 8).max(1);
        // Of an even number of cells, the lower median counts.
        let (_, median, _) = current[..n].select_nth_unstable((n - 1) / 2);
        let high = self.high.unwrap_or(*median);
        if *median >= high {
            self.elapsed = self.elapsed.saturating_add((*median - high).min(LEAP));
        } else if offset - self.confirmed < CURRENT_OFFSETS {
            return;
        }
        (self.high, self.confirmed) = (Some(*median), offset);
    }

    /// Returns the clock for a checkpoint.
    pub fn read(&self) -> ClockSnapshot {
        let newest = self.cells.seen.iter().copied().max().unwrap_or(NEVER);
        let cells = (0..).zip(self.cells.times.iter().zip(&self.cells.seen));
        // Cells that are not current now never are again.
        let cells = cells.filter(|(_, (_, seen))| **seen > NEVER && newest - **seen < CURRENT_OFFSETS);
        ClockSnapshot {
            elapsed: self.elapsed,
            high: self.high,
            confirmed: self.confirmed,
            next: self.next,
            cells: cells.map(|(at, (time, seen))| (at, *time, *seen)).collect(),
        }
    }
}

/// Restores a clock from a checkpoint.
impl From<&ClockSnapshot> for PartitionClock {
    fn from(reading: &ClockSnapshot) -> Self {
        let ClockSnapshot { elapsed, high, confirmed, next, .. } = *reading;
        let mut clock = PartitionClock { elapsed, high, confirmed, next, ..PartitionClock::default() };
        for (at, time, seen) in &reading.cells {
            let at = usize::from(*at) % CELLS;
            (clock.cells.times[at], clock.cells.seen[at]) = (*time, *seen);
        }
        clock
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_764_000_000_000;
    const HOUR: u32 = 3_600;

    /// A clock, and the number of records that it has noted.
    #[derive(Default)]
    struct Partition {
        clock: PartitionClock,
        offset: i64,
    }

    impl Partition {
        fn send(&mut self, device: usize, time: i64) {
            self.clock.note(cell_of(&format!("device-{device:04}\0m")), self.offset, Some(time));
            self.offset += 1;
        }

        /// Returns the seconds that pass while each device sends the times of `time`, in order, second by second.
        fn run(&mut self, devices: usize, seconds: i64, time: impl Fn(usize, i64) -> i64) -> u32 {
            let before = self.clock.elapsed();
            for second in 0..seconds {
                (0..devices).for_each(|device| self.send(device, time(device, second)));
            }
            self.clock.elapsed() - before
        }
    }

    fn right(second: i64) -> i64 {
        NOW + second * 1_000
    }

    fn wrongs() -> [i64; 5] {
        // Times: 1 ms; microseconds; the year 2200; before the epoch; one day ahead.
        [1, NOW * 1_000, 7_258_118_400_000, -5, NOW + 86_400_000]
    }

    #[test]
    fn one_wrong_device_does_not_move_the_clock_wherever_it_stands_and_however_often_it_sends() {
        for wrong in wrongs() {
            let mut partition = Partition::default();
            partition.send(0, wrong);
            let passed = partition.run(10, 3_600, |device, second| if device == 0 { wrong } else { right(second) });
            assert!((3_590..=3_600).contains(&passed), "{passed} s with {wrong}");
            (0..1_000).for_each(|_| partition.send(0, wrong));
            let passed =
                partition.run(10, 60, |device, second| if device == 0 { wrong } else { right(3_600 + second) });
            assert!((55..=62).contains(&passed), "{passed} s after many of {wrong}");
        }
    }

    #[test]
    fn thirty_one_wrong_devices_of_a_thousand_do_not_move_it_even_when_they_send_together() {
        for wrong in wrongs() {
            let mut partition = Partition::default();
            partition.run(1_000, 3, |_, second| right(second));
            for second in 3..10 {
                for device in 0..31 {
                    (0..20).for_each(|_| partition.send(device, wrong));
                }
                (31..1_000).for_each(|device| partition.send(device, right(second)));
            }
            assert!((8..=10).contains(&partition.clock.elapsed()), "{:?} with {wrong}", partition.clock.elapsed());
        }
    }

    #[test]
    fn many_metrics_of_one_device_are_one_device_and_two_devices_have_no_clock() {
        let mut clock = PartitionClock::default();
        for offset in 0..10_000 {
            let key = format!("device-{}\0metric-{}", offset % 2, offset % 50);
            clock.note(cell_of(&key), offset, Some(right(offset * 60)));
        }
        assert_eq!(clock.elapsed(), 0);
    }

    #[test]
    fn records_without_a_time_let_no_time_pass() {
        let mut clock = PartitionClock::default();
        (0..10_000).for_each(|offset| clock.note((offset % 100) as u8, offset, None));
        assert_eq!(clock.read(), ClockSnapshot::default());
    }

    #[test]
    fn a_jump_of_all_devices_counts_and_time_passes_after_it_even_after_a_jump_back() {
        let mut partition = Partition::default();
        partition.run(20, 600, |_, second| right(second));
        let year = 365 * 86_400_000;
        let leap = partition.run(20, 600, |_, second| right(second) + year);
        assert!((365 * 24 * HOUR..365 * 24 * HOUR + 600).contains(&leap), "{leap} s");
        // Backwards: no time passes until the earlier time is confirmed.
        let back = partition.run(20, 600, |_, second| right(second));
        assert!((390..=410).contains(&back), "{back} s");
    }

    #[test]
    fn devices_that_stopped_sending_do_not_stop_the_clock() {
        let mut partition = Partition::default();
        partition.run(500, 10, |_, second| right(second));
        let passed = partition.run(5, 3_600, |_, second| right(10 + second));
        assert!(passed >= 3_500, "{passed} s");
    }

    #[test]
    fn a_checkpoint_stays_small() {
        let mut partition = Partition::default();
        partition.run(1_000, 10, |_, second| right(second));
        assert!(serde_json::to_vec(&partition.clock.read()).unwrap().len() < 4_096);
    }

    proptest! {
        #[test]
        fn a_clock_restored_from_a_checkpoint_continues_unchanged(
            records in prop::collection::vec((0..40usize, -3_000..3_000i64, 1..200i64), 0..400),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(records.len() + 1);
            let (mut clock, mut offset, mut restored) = (PartitionClock::default(), 0, PartitionClock::default());
            for (n, (device, jitter, step)) in records.iter().enumerate() {
                if n == at {
                    restored = PartitionClock::from(&clock.read());
                }
                let (cell, time) = (cell_of(&device.to_string()), Some(NOW + offset * 100 + jitter * 1_000));
                clock.note(cell, offset, time);
                if n >= at {
                    restored.note(cell, offset, time);
                }
                offset += step;
            }
            if at < records.len() {
                prop_assert_eq!(restored.read(), clock.read());
            }
        }
    }
}
