//! Lists and sets the committed offsets of a stopped group, for `anomaly offsets`. A new offset is committed together with
//! the outcome counts and a checkpoint that belongs to it. Kafka refuses the commit while the group has members.

mod stored;

use std::ops::Range;
use std::time::Duration;

use super::advice;
use super::checkpoint::Checkpoint;
use crate::anomaly::FIRST_GENERATION;
use crate::config::resolved::Settings;
use crate::detect::Detector;
use crate::stream::client::{
    CommittedOffset, Fault, HistoryTopic, OffsetRanges, OutgoingRecord, OutputTopic, ReadLimits, Remedy, TopicIdentity,
    TransactionalClient, insist, read_to_end,
};
use crate::stream::progress::{OutcomeCounts, Progress, ProgressByPartition};
use stored::StoredState;

/// Longest wait for one answer of the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Limits for reading the state topic.
const STATE_READ_LIMITS: ReadLimits = ReadLimits { total: Duration::from_secs(600), silence: Duration::from_secs(30) };

/// The offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetReport {
    /// Number of the partition.
    pub partition: i32,
    /// The committed offset, and who has committed it.
    pub standing: CommittedOffset,
    /// Offsets that the input has, before the first open transaction.
    pub bounds: Range<i64>,
}

/// The offset that a partition gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetTarget {
    /// The first offset that the input still has.
    Earliest,
    /// The end of the input, before the first open transaction.
    Latest,
    /// This offset, which the input must have.
    At(i64),
}

/// A partition whose offset was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetChange {
    /// Number of the partition.
    pub partition: i32,
    /// Last known progress of a detector.
    pub last: Option<Progress>,
    /// The committed progress.
    pub next: Progress,
    /// Whether the stored windows were deleted, because they have records behind the offset or are incomplete. A start
    /// reads them back from the input.
    pub is_state_deleted: bool,
}

/// Returns the committed offsets of all partitions.
///
/// # Errors
/// Returns why they cannot be read.
pub(crate) fn list_offsets(client: &mut impl TransactionalClient) -> Result<Vec<OffsetReport>, Fault> {
    let partitions = all_partitions(&insist(client, ANSWER_TIMEOUT, |client| client.identity())?);
    let mut standings = insist(client, ANSWER_TIMEOUT, |client| client.committed(&partitions))?;
    let mut bounds = insist(client, ANSWER_TIMEOUT, |client| client.bounds_of(HistoryTopic::Input, &partitions))?;
    let report = |partition: i32| OffsetReport {
        partition,
        standing: standings.remove(&partition).unwrap_or(CommittedOffset::New),
        bounds: bounds.remove(&partition).unwrap_or(0..0),
    };
    Ok(partitions.into_iter().map(report).collect())
}

/// Sets the offset of one partition or of all. `note` receives each change after its commit.
///
/// # Errors
/// `Stop` if the partition does not exist, the input does not have the offset, or the state topic is of another group or
/// damaged. Otherwise why the cluster did not commit, for example because the group has members.
pub(crate) fn set_offsets<E: From<Fault>>(
    client: &mut impl TransactionalClient,
    settings: &Settings,
    detector: &Detector,
    partition: Option<i32>,
    target: OffsetTarget,
    mut note: impl FnMut(&OffsetChange) -> Result<(), E>,
) -> Result<(), E> {
    let mut writer = OffsetWriter::open(client, settings, detector)?;
    let count = writer.identity.partitions;
    if let Some(partition) = partition.filter(|partition| !(0..count).contains(partition)) {
        let topic = &settings.topics.raw_events;
        let text = format_args!("{topic} has no partition {partition}, but {count} partitions from 0 on");
        return Err(Fault::new(Remedy::Stop, text).into());
    }
    let reports = list_offsets(writer.client)?;
    let chosen = reports.iter().filter(|report| partition.is_none_or(|partition| partition == report.partition));
    // Every target is checked before the first commit.
    let targets =
        chosen.map(|report| Ok((report, writer.target(report, target)?))).collect::<Result<Vec<_>, Fault>>()?;
    for (report, offset) in targets {
        let stored = writer.read_state(report.partition)?;
        let is_rewritten = writer.is_rewritten(report)?;
        note(&writer.set(report, offset, stored, is_rewritten)?)?;
    }
    Ok(())
}

/// Accepts the committed offsets of all partitions with which a detector does not continue by itself. If the group has lost
/// its offset, it continues at the offset of the stored windows. `note` receives each change after its commit.
///
/// # Errors
/// Those of [`set_offsets`].
pub(crate) fn accept_offsets<E: From<Fault>>(
    client: &mut impl TransactionalClient,
    settings: &Settings,
    detector: &Detector,
    mut note: impl FnMut(&OffsetChange) -> Result<(), E>,
) -> Result<(), E> {
    let mut writer = OffsetWriter::open(client, settings, detector)?;
    for report in list_offsets(writer.client)? {
        let stored = writer.read_state(report.partition)?;
        let is_rewritten = writer.is_rewritten(&report)?;
        let Some(offset) = stored.accepted(&report, settings, is_rewritten) else { continue };
        // The stored windows may be newer than the report, if a detector runs.
        writer.confirm_offset(&report)?;
        let offset = writer.target(&report, OffsetTarget::At(offset.max(report.bounds.start)))?;
        note(&writer.set(&report, offset, stored, is_rewritten)?)?;
    }
    Ok(())
}

fn all_partitions(identity: &TopicIdentity) -> Vec<i32> {
    (0..identity.partitions).collect()
}

/// Writes offsets with their checkpoints.
struct OffsetWriter<'w, C> {
    client: &'w mut C,
    settings: &'w Settings,
    detector: &'w Detector,
    identity: TopicIdentity,
}

impl<'w, C: TransactionalClient> OffsetWriter<'w, C> {
    fn open(client: &'w mut C, settings: &'w Settings, detector: &'w Detector) -> Result<Self, Fault> {
        insist(client, ANSWER_TIMEOUT, |client| client.init_transactions())?;
        let identity = insist(client, ANSWER_TIMEOUT, |client| client.identity())?;
        Ok(OffsetWriter { client, settings, detector, identity })
    }

    /// Returns the offset that the target means.
    fn target(&self, report: &OffsetReport, target: OffsetTarget) -> Result<i64, Fault> {
        let OffsetReport { partition, bounds: Range { start, end }, .. } = report;
        match target {
            OffsetTarget::Earliest => Ok(*start),
            OffsetTarget::Latest => Ok(*end),
            OffsetTarget::At(offset) if (*start..=*end).contains(&offset) => Ok(offset),
            OffsetTarget::At(offset) => {
                let topic = &self.settings.topics.raw_events;
                let place = format_args!("{topic} [{partition}] has the offsets {start} to {end}, and not {offset}");
                Err(Fault::new(Remedy::Stop, format_args!("{place}: {}", advice::begin_again(self.settings))))
            }
        }
    }

    fn state_bounds(&mut self, partition: i32) -> Result<OffsetRanges, Fault> {
        let bounds = insist(self.client, ANSWER_TIMEOUT, |client| client.bounds_of(HistoryTopic::State, &[partition]))?;
        Ok(bounds.into_iter().collect())
    }

    /// Reads what the state topic has of a partition.
    fn read_state(&mut self, partition: i32) -> Result<StoredState, Fault> {
        let mut stored = StoredState::default();
        if !self.settings.detector.keeps_state() {
            return Ok(stored);
        }
        let state = &self.settings.topics.state;
        let ranges = self.state_bounds(partition)?;
        stored.end = ranges.get(&partition).map(|range| range.end);
        let read = read_to_end(self.client, HistoryTopic::State, &ranges, STATE_READ_LIMITS, |_, consumed| {
            consumed.records().iter().try_for_each(|record| {
                let place = format_args!("{state} [{partition}] offset {}", record.offset);
                stored.take(record).map_err(|why| Fault::new(Remedy::Stop, format_args!("{place}: {why}")))
            })
        });
        self.client.close_history();
        read?;
        if let Some(checkpoint) =
            stored.checkpoint.as_ref().filter(|checkpoint| !checkpoint.has_names_of(self.settings))
        {
            return Err(Fault::new(
                Remedy::Stop,
                format_args!(
                    "{state} [{partition}] contains windows of group {} on {}: give each group a topics.state of its own",
                    checkpoint.group, checkpoint.topic
                ),
            ));
        }
        Ok(stored)
    }

    /// Returns whether the log has another record in place of the one that was judged last.
    fn is_rewritten(&mut self, report: &OffsetReport) -> Result<bool, Fault> {
        let CommittedOffset::At(Progress { last: Some(last), .. }) = report.standing else { return Ok(false) };
        let mut is_rewritten = false;
        if report.bounds.contains(&last.offset) {
            let ranges = OffsetRanges::from([(report.partition, last.offset..last.offset + 1)]);
            let read = read_to_end(self.client, HistoryTopic::Input, &ranges, STATE_READ_LIMITS, |_, consumed| {
                let records = consumed.records();
                is_rewritten |= records.iter().any(|record| record.offset == last.offset && record.note() != last);
                Ok::<_, Fault>(())
            });
            self.client.close_history();
            read?;
        }
        Ok(is_rewritten)
    }

    /// Commits an offset with its counts and its checkpoint. The generation is raised if the log has other records at
    /// the same offsets: the topic was recreated, or cut and written again (`is_rewritten`).
    fn set(
        &mut self,
        report: &OffsetReport,
        offset: i64,
        stored: StoredState,
        is_rewritten: bool,
    ) -> Result<OffsetChange, Fault> {
        let partition = report.partition;
        let is_recreated = stored.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_of(&self.identity));
        let known = stored.last(report.standing);
        let is_other = is_recreated || is_rewritten || known.is_some_and(|known| known.offset > report.bounds.end);
        let generation = known.map_or(FIRST_GENERATION, |known| known.generation) + i32::from(is_other);
        // The counts of a recreated topic begin again.
        let last = known.filter(|_| !is_recreated);
        let is_same = |last: &Progress| !is_rewritten && last.offset == offset;
        let record = last.filter(is_same).and_then(|last| last.last);
        let next = Progress { offset, counts: counts_at(offset, last), last: record, generation };
        self.confirm_state(partition, stored.end)?;
        let (records, is_state_deleted) = match self.settings.detector.keeps_state() {
            true => self.records(report, &next, stored),
            false => (Vec::new(), false),
        };
        let committed = self.commit(report, next, records);
        if committed.is_err() {
            // The next transaction of this id aborts it otherwise.
            let _ = self.client.abort();
        }
        committed.map(|()| OffsetChange { partition, last, next, is_state_deleted })
    }

    /// Returns the records of the state topic that belong to this progress, and whether they delete the windows.
    fn records(&self, report: &OffsetReport, next: &Progress, stored: StoredState) -> (Vec<OutgoingRecord>, bool) {
        let (partition, is_usable) = (report.partition, stored.is_usable(next.offset, &self.identity));
        if let Some(checkpoint) = stored.checkpoint.filter(|_| is_usable) {
            let live = Some(stored.found.digest());
            let (at, counts, generation) = (next.offset, next.counts.to_string(), next.generation);
            let checkpoint = Checkpoint { at, counts, live, generation, ..checkpoint };
            return (vec![checkpoint.record(partition)], false);
        }
        let tombstone = |key: Vec<u8>| OutgoingRecord {
            output: OutputTopic::State(partition),
            key: Some(key),
            value: None,
            timestamp: None,
            headers: Vec::new(),
        };
        let is_state_deleted = !stored.keys.is_empty();
        let first = report.bounds.start;
        let checkpoint = Checkpoint::begin(self.settings, self.detector, &self.identity, first, next);
        let records = stored.keys.into_keys().map(tombstone).chain([checkpoint.record(partition)]);
        (records.collect(), is_state_deleted)
    }

    /// Checks that nothing was written to the state topic since it was read. A detector that was stopped just before may
    /// still have had an open transaction.
    fn confirm_state(&mut self, partition: i32, read: Option<i64>) -> Result<(), Fault> {
        let Some(read) = read else { return Ok(()) };
        let end = self.state_bounds(partition)?.get(&partition).map(|range| range.end);
        if end == Some(read) {
            return Ok(());
        }
        let what = format_args!(
            "{} [{partition}] got records while this command was running: stop the detectors, and repeat it",
            self.settings.topics.state
        );
        Err(Fault::new(Remedy::Abort, what))
    }

    /// Commits an offset with these records, unless another one was committed since the report.
    fn commit(&mut self, report: &OffsetReport, next: Progress, records: Vec<OutgoingRecord>) -> Result<(), Fault> {
        let partition = report.partition;
        let progress = ProgressByPartition::from([(partition, next)]);
        self.client.begin()?;
        records.into_iter().try_for_each(|record| self.client.send(record))?;
        self.confirm_offset(report)?;
        insist(self.client, ANSWER_TIMEOUT, |client| client.commit(&progress))
    }

    /// Checks that no other offset was committed since the report.
    fn confirm_offset(&mut self, report: &OffsetReport) -> Result<(), Fault> {
        let partition = report.partition;
        let now = insist(self.client, ANSWER_TIMEOUT, |client| client.committed(&[partition]))?;
        if now.get(&partition).is_none_or(|standing| *standing == report.standing) {
            return Ok(());
        }
        let what = format_args!(
            "an offset of {} [{partition}] was committed while this command was running: stop the detectors, and repeat \
             it",
            self.settings.topics.raw_events
        );
        Err(Fault::new(Remedy::Abort, what))
    }
}

/// Returns the counts at an offset. Records between the last known progress and a later offset are skipped. Before it the
/// counts begin again, because their outcomes are not stored one by one.
fn counts_at(offset: i64, last: Option<Progress>) -> OutcomeCounts {
    match last {
        Some(Progress { offset: was, mut counts, .. }) if offset >= was => {
            counts.skipped += (offset - was).unsigned_abs();
            counts
        }
        _ => OutcomeCounts::default(),
    }
}
