//! Types for offsets by partition.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::stream::progress::Progress;

/// Next offset of each partition.
pub(crate) type Positions = BTreeMap<i32, i64>;

/// Range of offsets of each partition; its end is excluded.
pub(crate) type OffsetRanges = BTreeMap<i32, Range<i64>>;

/// The committed state of the group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommittedOffset {
    /// The group has committed this progress.
    At(Progress),
    /// No offset is committed, because the group is new.
    New,
    /// No offset is committed, because the partition was added after the group was created.
    Added {
        /// Generation of the topic, as the other partitions have it.
        generation: i32,
    },
    /// Another program has committed this offset in the group. No detector continues there by itself.
    Foreign {
        /// The committed offset.
        offset: i64,
        /// Progress of a detector that the program has copied from another offset, if it did so.
        was: Option<Progress>,
    },
    /// Another program has committed this offset, and the group had offsets of other programs before its first detector.
    /// It is foreign if a detector has had the partition since, which the state topic shows.
    Earlier(i64),
}
