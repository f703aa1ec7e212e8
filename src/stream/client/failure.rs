//! Offsets at which a partition cannot be read.

use std::collections::BTreeMap;

/// An offset at which a partition cannot be read, for example because a batch is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadFailure {
    /// Offset of the first record that cannot be read. It may be the first of a batch.
    pub offset: i64,
    /// The cause, as text for messages.
    pub cause: String,
}

/// The failure of each partition that cannot be read.
pub(crate) type ReadFailures = BTreeMap<i32, ReadFailure>;
