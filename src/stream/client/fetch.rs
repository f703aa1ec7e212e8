//! Fetching records of the assigned partitions, and the known end offsets.

use std::ops::Range;
use std::time::Duration;

use super::connection::ClusterConnection;
use super::failure::ReadFailures;
use super::fault::Fault;
use super::offsets::Positions;
use super::record::RecordVisitor;

/// Fetches the records of the assigned partitions.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait RecordFetch: ClusterConnection {
    /// Waits at most `wait` for the first record, then passes at most `most` available ones, by partition. Returns
    /// their number; 0 may also mean that the group changed. With `most` 0 it only stays in the group and waits for a
    /// change.
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault>;

    /// Resumes these assigned partitions at their assigned offsets.
    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault>;

    /// Moves assigned partitions to these offsets, or fails.
    fn seek(&mut self, to: &Positions) -> Result<(), Fault>;

    /// Requests the first available offset, and the offset after the last.
    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault>;

    /// Returns the first available offsets, if known without a request.
    fn starts(&self) -> Positions;

    /// Returns the ends of the readable parts of the partitions, if known without a request.
    fn ends(&self) -> Positions;

    /// Returns the ends of the partitions including open transactions, if known without a request.
    fn highs(&self) -> Positions;

    /// Returns partitions that were read to their end, with the end offset. `poll` has passed every record before it.
    /// The other offsets before it are control records and records of aborted transactions. The end is never beyond an
    /// open transaction.
    fn reached(&self) -> Positions;

    /// Returns the partitions that cannot be read at an offset now. `poll` has passed the records before this offset to
    /// `visit`, and passes none from there on. It reads such a partition again from time to time.
    fn failures(&self) -> ReadFailures;

    /// Skips the damaged batch at which a partition cannot be read, after some attempts. Returns the skipped offsets,
    /// which follow all records that `poll` has passed to `visit`; `None` if they are not known yet. The first call
    /// starts the search for them. The caller commits the offsets before the next poll, which may fail with `Rebuild`.
    fn skip(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault>;
}
