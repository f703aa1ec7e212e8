//! Reads the snapshots of the state topic.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use super::live::{FoundKeys, LiveDigest};
use super::session::WorkerSession;
use crate::series::snapshot::{self, DamagedRecord};
use crate::series::{SeriesLimits, TableRestore};
use crate::stream::client::{ConsumedRecord, Fault, HistoryReader, HistoryTopic, OffsetRanges, Remedy};

/// Snapshots and checkpoint of one partition.
#[derive(Default)]
pub(super) struct RestoredWindows {
    pub restore: TableRestore,
    pub checkpoint: Option<Checkpoint>,
    /// Keys that have a record.
    pub keys: FoundKeys,
    /// Offset of the first unusable record, and the reason.
    damage: Option<(i64, DamagedRecord)>,
}

impl RestoredWindows {
    /// Creates the state for a worker without a state topic: everything follows from the records.
    pub(crate) fn none(limits: SeriesLimits) -> Self {
        RestoredWindows { restore: TableRestore::from_records_alone(limits), ..RestoredWindows::default() }
    }

    /// Reads the next records, in order.
    pub(crate) fn take(&mut self, records: &[ConsumedRecord<'_>]) {
        for record in records {
            let key = record.key.unwrap_or_default();
            let read = match (Checkpoint::read(key, record.value), snapshot::series_of(key)) {
                (Some(read), _) => read.map(|read| {
                    self.keys.set_expected(read.live);
                    self.checkpoint = Some(read);
                }),
                (None, Some(series)) => {
                    self.keys.note(key, record.value.is_some());
                    let read = record.value.map(|value| snapshot::decode(key, value)).transpose();
                    read.map(|snapshot| self.restore.load(series, snapshot))
                }
                (None, None) => match LiveDigest::read(key, record.value) {
                    Some(read) => read.map(|digest| self.keys.set_expected(Some(digest))),
                    // A kind of record that this program does not know is ignored.
                    None => Ok(()),
                },
            };
            if let Err(why) = read {
                self.damage.get_or_insert((record.offset, why));
            }
        }
    }
}

/// Starts to read the topic for these partitions, unless they are empty. Returns the ranges to read.
pub(super) fn open_windows<C: HistoryReader>(
    session: &mut WorkerSession<'_, C>,
    partitions: &[i32],
) -> Result<(OffsetRanges, BTreeMap<i32, RestoredWindows>), Fault> {
    let what = "reading the ends of the windows' topic";
    let mut ranges = session.insist(what, |client| client.bounds_of(HistoryTopic::State, partitions))?;
    ranges.retain(|_, range| !range.is_empty());
    if !ranges.is_empty() {
        session.insist("opening the windows' topic", |client| client.open_history(HistoryTopic::State, &ranges))?;
    }
    Ok((ranges, partitions.iter().map(|partition| (*partition, RestoredWindows::default())).collect()))
}

/// Returns `Stop` if a record is unusable.
pub(super) fn check_damage(state_topic: &str, windows: &BTreeMap<i32, RestoredWindows>) -> Result<(), Fault> {
    let damage = |(partition, windows): (&i32, &RestoredWindows)| Some((*partition, windows.damage?));
    let Some((partition, (offset, why))) = windows.iter().find_map(damage) else { return Ok(()) };
    Err(Fault::new(
        Remedy::Stop,
        format_args!(
            "{state_topic} [{partition}] offset {offset}: {why}. Start the program that wrote it, or delete the topic and create \
             it again with `anomaly topics`: windows are then read back from the input"
        ),
    ))
}
