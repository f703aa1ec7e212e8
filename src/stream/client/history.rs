//! Reading outside the group: the state topic, and the input to replay.

use super::connection::ClusterConnection;
use super::fault::Fault;
use super::offsets::{OffsetRanges, Positions};
use super::record::RecordVisitor;

/// The topics that can be read outside the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryTopic {
    /// Topic `raw_events`.
    Input,
    /// Topic `anomaly_state`.
    State,
}

/// Reads ranges of offsets outside the group.
#[allow(clippy::missing_errors_doc)]
pub trait HistoryReader: ClusterConnection {
    /// Returns the available offsets of all these partitions with one request: those of the input before the first open
    /// transaction, and all of `anomaly_state`.
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault>;

    /// Starts to read partitions, all at once, each within its range, which is not empty. A partition with an open
    /// transaction before the end of its range waits for it, while the others continue.
    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault>;

    /// Passes the next records of some of these partitions, each in order. Returns the next offset of each partition
    /// that advanced. At the end of its range the partition is complete.
    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault>;

    /// Ends the reading.
    fn close_history(&mut self);
}
