//! What is known of one partition.

use super::Tally;
use crate::event::Timestamp;

/// One partition, as its worker last knew it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartitionStatus {
    /// Next offset to judge, as committed.
    pub committed: i64,
    /// End of what can be read of the partition, once it is known.
    pub end: Option<i64>,
    /// End of the partition with open transactions included, once it is known.
    pub high: Option<i64>,
    /// Time of the newest judged event.
    pub event_time: Option<Timestamp>,
    /// When the newest record was taken, by this machine's clock.
    pub arrived: Option<Timestamp>,
    /// Outcomes since the group began, as committed.
    pub totals: Tally,
    /// Series held.
    pub series: u64,
}

impl PartitionStatus {
    /// Records not judged yet, once an end is known: those that an open transaction holds back are among them.
    pub fn lag(&self) -> Option<i64> {
        self.end.max(self.high).map(|end| (end - self.committed).max(0))
    }
}
