//! What became of records: totals of a partition, by minute of the event, and by minute of arrival.

use std::ops::AddAssign;

/// How many records of a partition had which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Normal or anomalous.
    pub judged: u64,
    /// Too few values before them.
    pub learning: u64,
    /// Dead letters and dropped records.
    pub rejected: u64,
    /// Null values, and records that `fields.ignore` names.
    pub ignored: u64,
}

impl Tally {
    /// Records in all.
    pub fn sum(self) -> u64 {
        self.judged + self.learning + self.rejected + self.ignored
    }

    /// What was added since an earlier tally.
    pub fn since(self, earlier: Tally) -> Tally {
        Tally {
            judged: self.judged.saturating_sub(earlier.judged),
            learning: self.learning.saturating_sub(earlier.learning),
            rejected: self.rejected.saturating_sub(earlier.rejected),
            ignored: self.ignored.saturating_sub(earlier.ignored),
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.judged += other.judged;
        self.learning += other.learning;
        self.rejected += other.rejected;
        self.ignored += other.ignored;
    }
}

/// An event is late when its time is so many seconds before its arrival.
pub const LATE: i64 = 900;
/// An event is early when its time is so many seconds after its arrival.
pub const EARLY: i64 = 60;

/// What arrived in a minute of the detector's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Outcomes.
    pub tally: Tally,
    /// Events that are [`LATE`].
    pub late: u64,
    /// By how many seconds, all of them together.
    pub late_seconds: i64,
    /// Events that are [`EARLY`].
    pub early: u64,
    /// By how many seconds, all of them together.
    pub early_seconds: i64,
}

impl Activity {
    /// Notes how far an event's time is from its arrival: seconds, negative when it is late.
    pub fn note_offset(&mut self, seconds: i64) {
        if seconds <= -LATE {
            self.late += 1;
            self.late_seconds = self.late_seconds.saturating_sub(seconds);
        } else if seconds >= EARLY {
            self.early += 1;
            self.early_seconds = self.early_seconds.saturating_add(seconds);
        }
    }
}

impl AddAssign for Activity {
    fn add_assign(&mut self, other: Activity) {
        self.tally += other.tally;
        self.late += other.late;
        self.late_seconds = self.late_seconds.saturating_add(other.late_seconds);
        self.early += other.early;
        self.early_seconds = self.early_seconds.saturating_add(other.early_seconds);
    }
}
