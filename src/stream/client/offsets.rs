//! Offsets by partition.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::stream::progress::Progress;

/// The next offset of each partition.
pub(crate) type Positions = BTreeMap<i32, i64>;

/// Range of offsets of each partition, without its end.
pub(crate) type OffsetRanges = BTreeMap<i32, Range<i64>>;

/// The committed state of the group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommittedOffset {
    /// The committed progress.
    At(Progress),
    /// None: the group begins.
    New,
    /// None: the partition was added to the topic after the group had begun.
    Added,
    /// An offset that another program has committed in this group, without progress.
    Foreign(i64),
}
