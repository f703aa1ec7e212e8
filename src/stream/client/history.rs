//! Reading outside of the group: the state topic, and the input to replay.

use std::ops::Range;
use std::time::Duration;

use super::connection::ClusterConnection;
use super::failure::ReadFailures;
use super::fault::{Fault, Remedy};
use super::offsets::{OffsetRanges, Positions};
use super::record::{Consumed, RecordVisitor};

/// The topics that can be read outside of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HistoryTopic {
    /// The topic `raw_events`, which the detector judges.
    Input,
    /// The topic `anomaly_state` with snapshots and checkpoints.
    State,
    /// The topic `raw_events_dlq` with rejected records.
    DeadLetters,
}

/// Reads ranges of offsets outside of the group.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait HistoryReader: ClusterConnection {
    /// Returns the available offsets of all these partitions with one request: those of the input before the first open
    /// transaction, and all of the other topics.
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault>;

    /// Returns the `cleanup.policy` of a topic; `None` if the cluster does not tell it to this user.
    fn cleanup_policy(&mut self, of: HistoryTopic) -> Result<Option<String>, Fault>;

    /// Starts to read all partitions at the same time, each within its range, which must not be empty. A partition with
    /// an open transaction before the end of its range waits for it, while the others continue.
    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault>;

    /// Passes the next records of some of these partitions, each in order. Returns the next offset of each partition
    /// that advanced. At the end of its range the partition is complete.
    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault>;

    /// Returns the partitions that cannot be read at an offset now, as [`RecordFetch::failures`](super::RecordFetch).
    fn history_failures(&self) -> ReadFailures;

    /// Skips the batch at which a partition cannot be read, as [`RecordFetch::skip`](super::RecordFetch). The offsets
    /// are within the range of the partition.
    fn skip_history(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault>;

    /// Ends the reading, and releases its resources.
    fn close_history(&mut self);
}

/// Time limits of [`read_to_end`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadLimits {
    /// Longest duration of the whole call.
    pub total: Duration,
    /// Longest duration without any progress.
    pub silence: Duration,
}

/// Passes every record of these ranges, and the oversized batches of the input, each partition in order. Empty ranges are
/// skipped.
///
/// # Errors
/// Returns the errors of the client, and of `visit`, which end the reading. If a limit is exceeded, `Stop` if a partition
/// cannot be read at an offset, otherwise `Retry`.
pub(crate) fn read_to_end<E: From<Fault>>(
    client: &mut impl HistoryReader,
    of: HistoryTopic,
    ranges: &OffsetRanges,
    limits: ReadLimits,
    mut visit: impl FnMut(i32, Consumed<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut left = ranges.clone();
    left.retain(|_, range| !range.is_empty());
    let (began, mut advanced) = (client.now(), client.now());
    if !left.is_empty() {
        client.open_history(of, &left)?;
    }
    while !left.is_empty() {
        let mut visited = Ok(());
        let read = client.read_history(&mut |partition, consumed| {
            if visited.is_ok() {
                visited = visit(partition, consumed);
            }
        });
        visited?;
        match read {
            Ok(moved) => {
                if !moved.is_empty() {
                    advanced = client.now();
                }
                left.retain(|partition, range| moved.get(partition).is_none_or(|next| *next < range.end));
            }
            Err(fault) if fault.remedy == Remedy::Retry => {}
            Err(fault) => return Err(fault.into()),
        }
        let now = client.now();
        let is_late = now.saturating_sub(began) > limits.total || now.saturating_sub(advanced) > limits.silence;
        if is_late && !left.is_empty() {
            if let Some((partition, failure)) = client.history_failures().pop_first() {
                let place =
                    format_args!("[{partition}] cannot be read at offset {}: {}", failure.offset, failure.cause);
                return Err(Fault::new(Remedy::Stop, place).into());
            }
            let why = client.trouble().unwrap_or_else(|| "the end was not reached in time".into());
            return Err(Fault::new(Remedy::Retry, why).into());
        }
    }
    Ok(())
}
