//! Status of one partition.

use super::Tally;
use crate::event::Timestamp;

/// Status of a partition, as its worker last reported it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartitionStatus {
    /// Next offset to judge, as committed.
    pub committed: i64,
    /// Whether the offset and the outcomes are not the group's yet, because this detector takes the partition over and
    /// has not committed them. Readers keep the values that they knew.
    pub is_unconfirmed: bool,
    /// End of the readable part of the partition, once it is known.
    pub end: Option<i64>,
    /// End of the partition including open transactions, once it is known.
    pub high: Option<i64>,
    /// Time of the newest judged event.
    pub event_time: Option<Timestamp>,
    /// When the newest record was consumed, by this machine's clock.
    pub arrived: Option<Timestamp>,
    /// Outcomes since the group began, as committed.
    pub totals: Tally,
    /// Number of series in memory.
    pub series: u64,
}

impl PartitionStatus {
    /// Returns the number of records that are not judged yet, once an end is known. It includes records that an open
    /// transaction blocks.
    pub fn lag(&self) -> Option<i64> {
        self.confirmed(self.end.max(self.high)?).map(|end| (end - self.committed).max(0))
    }

    /// Returns a value that follows from the offset or the outcomes; `None` while they are not confirmed.
    pub fn confirmed<T>(&self, value: T) -> Option<T> {
        (!self.is_unconfirmed).then_some(value)
    }
}
