//! Counts of outcomes: totals of a partition, by minute of the event, and by minute of arrival.

use std::ops::AddAssign;

/// Counts of a partition per outcome: values where a series has a verdict, otherwise records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of values judged normal or anomalous.
    pub judged: u64,
    /// Number of values that only join the window, because their series had too few before them.
    pub learning: u64,
    /// Number of rejected records: dead letters and dropped records.
    pub rejected: u64,
    /// Number of ignored records: null values, and records that match `fields.ignore`.
    pub ignored: u64,
    /// Number of values of series that an override excludes.
    pub excluded: u64,
}

impl Tally {
    /// Returns the sum of all counts.
    pub fn sum(self) -> u64 {
        self.judged + self.learning + self.rejected + self.ignored + self.excluded
    }

    /// Returns the difference to an earlier count.
    pub fn since(self, earlier: Tally) -> Tally {
        Tally {
            judged: self.judged.saturating_sub(earlier.judged),
            learning: self.learning.saturating_sub(earlier.learning),
            rejected: self.rejected.saturating_sub(earlier.rejected),
            ignored: self.ignored.saturating_sub(earlier.ignored),
            excluded: self.excluded.saturating_sub(earlier.excluded),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.judged += other.judged;
        self.learning += other.learning;
        self.rejected += other.rejected;
        self.ignored += other.ignored;
        self.excluded += other.excluded;
    }
}

/// An event is late if its time is this many seconds before its arrival.
pub const LATE_SECONDS: i64 = 900;
/// An event is early if its time is this many seconds after its arrival.
pub const EARLY_SECONDS: i64 = 60;

/// Arrivals in a minute of the detector's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Counts per outcome.
    pub tally: Tally,
    /// Number of records, each of which may have several values. The database does not keep it.
    pub records: u64,
    /// Number of records that were judged by their valid values only. The database does not keep it.
    pub partial: u64,
    /// Number of events that are late by [`LATE_SECONDS`] or more.
    pub late: u64,
    /// Sum of their delays in seconds.
    pub late_seconds: i64,
    /// Number of events that are early by [`EARLY_SECONDS`] or more.
    pub early: u64,
    /// Sum of their leads in seconds.
    pub early_seconds: i64,
}

impl Activity {
    /// Counts how far an event's time is from its arrival: seconds, negative if it is late.
    pub fn note_offset(&mut self, seconds: i64) {
        if seconds <= -LATE_SECONDS {
            self.late += 1;
            self.late_seconds = self.late_seconds.saturating_sub(seconds);
        } else if seconds >= EARLY_SECONDS {
            self.early += 1;
            self.early_seconds = self.early_seconds.saturating_add(seconds);
        }
    }
}

impl AddAssign for Activity {
    fn add_assign(&mut self, other: Activity) {
        self.tally += other.tally;
        self.records += other.records;
        self.partial += other.partial;
        self.late += other.late;
        self.late_seconds = self.late_seconds.saturating_add(other.late_seconds);
        self.early += other.early;
        self.early_seconds = self.early_seconds.saturating_add(other.early_seconds);
    }
}
