//! Checks for `anomaly check` whether a start would accept the stored snapshots. It reads outside of the group, and
//! changes nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::advice;
use super::checkpoint::Checkpoint;
use crate::config::resolved::Settings;
use crate::stream::client::{
    CommittedOffset, Fault, GroupAdministration, HistoryReader, HistoryTopic, OffsetRanges, ReadLimits, Remedy,
    TopicAdministration, read_to_end,
};

/// Number of newest records of a partition that are searched for its checkpoint. Each sweep writes the checkpoint
/// again.
const RECENT_RECORDS: i64 = 10_000;
/// Longest time for reading them.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Checks the checkpoints of partitions as a start does; returns how many partitions have one.
///
/// # Errors
/// Returns what a start would stop with, or why it is unknown.
pub(crate) fn check_stored_state(
    client: &mut (impl GroupAdministration + TopicAdministration + HistoryReader),
    settings: &Settings,
    partitions: &[i32],
) -> Result<usize, Fault> {
    let identity = client.identity()?;
    let all = client.bounds_of(HistoryTopic::State, partitions)?;
    let recent = |range: &Range<i64>| range.start.max(range.end - RECENT_RECORDS)..range.end;
    let mut checkpoints =
        checkpoints(client, &all.iter().map(|(partition, range)| (*partition, recent(range))).collect())?;
    let without = all.into_iter().filter(|(partition, _)| !checkpoints.contains_key(partition)).collect();
    checkpoints.append(&mut self::checkpoints(client, &without)?);
    client.close_history();
    // A running detector may commit meanwhile, and its checkpoints must not be newer than these offsets.
    let known = client.committed(partitions)?;
    for (&partition, &standing) in &known {
        let foreign = advice::foreign(settings, partition, standing);
        let is_undecided = matches!(standing, CommittedOffset::Earlier(_)) && !checkpoints.contains_key(&partition);
        if let Some(fault) = foreign.filter(|_| !is_undecided) {
            return Err(fault);
        }
    }
    for (partition, checkpoint) in &checkpoints {
        let committed = match known.get(partition) {
            Some(CommittedOffset::At(progress)) => Some(progress.offset),
            _ => None,
        };
        checkpoint.fits(settings, *partition, &identity, i64::MIN, committed)?;
    }
    Ok(checkpoints.len())
}

/// Reads the newest checkpoint of each partition within its range. A running detector has a transaction open most of
/// the time, so the call waits for its end.
fn checkpoints(client: &mut impl HistoryReader, ranges: &OffsetRanges) -> Result<BTreeMap<i32, Checkpoint>, Fault> {
    let mut checkpoints = BTreeMap::new();
    let limits = ReadLimits { total: READ_TIMEOUT, silence: READ_TIMEOUT };
    read_to_end(client, HistoryTopic::State, ranges, limits, |partition, consumed| {
        for record in consumed.records() {
            match Checkpoint::read(record.key.unwrap_or_default(), record.value) {
                Some(Ok(read)) => drop(checkpoints.insert(partition, read)),
                Some(Err(why)) => {
                    let place = format_args!("[{partition}] offset {}: {why}", record.offset);
                    return Err(Fault::new(Remedy::Stop, place));
                }
                None => {}
            }
        }
        Ok(())
    })?;
    Ok(checkpoints)
}
