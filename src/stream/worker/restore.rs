//! Restores partitions: the snapshots of the assigned partitions, then their input from the checkpoint to the committed
//! offset.

use std::collections::BTreeMap;
use std::time::Duration;

use super::replay::PartitionReplay;
use super::restored::{RestoredWindows, check_damage};
use super::session::WorkerSession;
use crate::config::resolved::{OnDamage, Settings};
use crate::health::ComponentState;
use crate::stream::client::{CommittedOffset, Fault, HistoryReader, OffsetRanges, Positions, Remedy, TopicIdentity};
use crate::stream::progress::ProgressByPartition;
use crate::stream::standstill::{STALL_TIME, describe_failures};

/// Maximum time between two calls that counts as silence of the cluster. A suspended process receives nothing.
const MAX_CALL_GAP: Duration = Duration::from_secs(1);

/// Restore of the assigned partitions. First the snapshots of all partitions are read, then the input. Each partition
/// is judged as soon as its replay ends.
pub(super) struct PartitionRestore {
    pub standings: BTreeMap<i32, CommittedOffset>,
    pub identity: TopicIdentity,
    /// First available offsets of the input.
    pub firsts: Positions,
    pub began: Duration,
    pub windows: BTreeMap<i32, RestoredWindows>,
    /// Replay of each partition; `None` while snapshots are read.
    pub replays: Option<BTreeMap<i32, PartitionReplay>>,
    /// Ranges of the current topic that are still to be read; `whole` is their initial size.
    left: OffsetRanges,
    whole: i64,
    /// Time of the last call, and time since a partition last advanced. Only time in which the process ran counts.
    looked: Duration,
    silence: Duration,
}

impl PartitionRestore {
    /// Creates a restore without ranges to read.
    pub(crate) fn new(
        standings: BTreeMap<i32, CommittedOffset>,
        identity: TopicIdentity,
        firsts: Positions,
        began: Duration,
        windows: BTreeMap<i32, RestoredWindows>,
    ) -> Self {
        let (replays, left, whole, silence) = (None, OffsetRanges::new(), 0, Duration::ZERO);
        let looked = began;
        PartitionRestore { standings, identity, firsts, began, windows, replays, left, whole, looked, silence }
    }

    /// Returns whether the partition is still being restored.
    pub(crate) fn has(&self, partition: i32) -> bool {
        self.replays.as_ref().map_or(self.firsts.contains_key(&partition), |replays| replays.contains_key(&partition))
    }

    /// Returns whether the start offset of a partition is not committed yet, and may not fit the snapshots.
    pub(crate) fn is_unconfirmed(&self, partition: i32) -> bool {
        self.replays.is_none() && !matches!(self.standings.get(&partition), Some(CommittedOffset::At(_)))
    }

    /// Returns the approximate memory of the series so far in bytes.
    pub(crate) fn series_bytes(&self) -> u64 {
        let windows = self.windows.values().map(|windows| windows.restore.bytes()).sum::<u64>();
        let replays = self.replays.iter().flat_map(|replays| replays.values());
        windows + replays.map(PartitionReplay::series_bytes).sum::<u64>()
    }

    /// Evicts series of each partition down to what `allowance` says for its bytes. `committed` is the progress from which
    /// the evictions apply.
    pub(crate) fn give_up(&mut self, allowance: impl Fn(u64) -> Option<u64>, committed: &ProgressByPartition) {
        for (partition, windows) in &mut self.windows {
            if let (Some(most), Some(at)) = (allowance(windows.restore.bytes()), committed.get(partition)) {
                windows.restore.give_up(most, at.offset);
            }
        }
        for replay in self.replays.iter_mut().flat_map(|replays| replays.values_mut()) {
            if let Some(most) = allowance(replay.series_bytes()) {
                replay.give_up(most);
            }
        }
    }

    /// Sets the ranges to read now.
    pub(crate) fn begin(&mut self, ranges: &OffsetRanges) {
        self.left = ranges.clone();
        self.whole = ranges.values().map(|range| range.end - range.start).sum();
        self.silence = Duration::ZERO;
    }

    /// Returns whether the current topic is read completely.
    pub(crate) fn is_read(&self) -> bool {
        self.left.is_empty()
    }

    /// Reads the next records into the windows or the replays.
    pub(crate) fn read_on<C: HistoryReader>(
        &mut self,
        session: &mut WorkerSession<'_, C>,
    ) -> Result<HistoryStep, Fault> {
        let PartitionRestore { windows, replays, .. } = self;
        // An oversized batch was skipped, so it changes no window.
        let read = session.client.read_history(&mut |partition, consumed| match replays {
            None => {
                if let Some(windows) = windows.get_mut(&partition) {
                    windows.take(consumed.records());
                }
            }
            Some(replays) => {
                if let Some(replay) = replays.get_mut(&partition) {
                    replay.take(consumed.records());
                }
            }
        });
        check_damage(&session.settings.topics.state, windows)?;
        let (mut moved, is_retried) = match read {
            Err(fault) if fault.remedy == Remedy::Retry => {
                if session.client.trouble().is_none() {
                    session.component.set(ComponentState::Degraded(fault.message));
                }
                (Positions::new(), true)
            }
            other => (other?, false),
        };
        moved.append(&mut self.skip_damage(session)?);
        let now = session.client.now();
        let passed = now.saturating_sub(self.looked).min(MAX_CALL_GAP);
        self.looked = now;
        let is_outage = is_retried || session.client.trouble().is_some();
        self.silence = if is_outage || !moved.is_empty() { Duration::ZERO } else { self.silence + passed };
        let obstacle = self.obstacle(session);
        Ok(HistoryStep { done: self.advance(&moved), is_retried, obstacle })
    }

    /// Skips records that cannot be read. Those of the input already have an outcome. If they were judged, the replay
    /// finds fewer records than the counts say, and reports this. Snapshots are skipped only if the settings say so.
    fn skip_damage<C: HistoryReader>(&mut self, session: &mut WorkerSession<'_, C>) -> Result<Positions, Fault> {
        let settings = session.settings;
        let mut passed = Positions::new();
        if self.replays.is_none() && settings.detector.on_damage != OnDamage::Skip {
            return Ok(passed);
        }
        let topic = if self.replays.is_none() { &settings.topics.state } else { &settings.topics.raw_events };
        for partition in session.client.history_failures().into_keys() {
            let range = match session.client.skip_history(partition) {
                Err(fault) if fault.remedy == Remedy::Retry => continue,
                other => other?,
            };
            if let Some(range) = range {
                passed.insert(partition, range.end);
                if let Some(windows) = self.windows.get_mut(&partition) {
                    // The settings accept that windows are missing.
                    windows.keys.forgive();
                }
                let new = session.component.note_damaged(topic, partition, range);
                session.meter.lost_records.add("skipped", new);
            }
        }
        Ok(passed)
    }

    /// Describes the partitions that cannot be read at an offset.
    pub(crate) fn describe_failures<C: HistoryReader>(&self, session: &WorkerSession<'_, C>) -> Option<String> {
        let topics = &session.settings.topics;
        let topic = if self.replays.is_none() { &topics.state } else { &topics.raw_events };
        // All windows of a worker are read before its first replay begins.
        let consequence = match self.replays {
            None => "No partition of this worker is judged until it can be read",
            Some(_) => "The partition is not judged until its windows are restored",
        };
        describe_failures(topic, &session.client.history_failures(), consequence)
    }

    /// Returns why the restore does not advance: a partition cannot be read at an offset, or nothing arrives.
    fn obstacle<C: HistoryReader>(&self, session: &WorkerSession<'_, C>) -> Option<String> {
        self.describe_failures(session).or_else(|| {
            (self.silence >= STALL_TIME && !self.left.is_empty()).then(|| {
                let minutes = self.silence.as_secs() / 60;
                format!("{}; nothing has arrived for {minutes} min", self.describe())
            })
        })
    }

    /// Advances the ranges to these offsets; returns the completed partitions.
    fn advance(&mut self, to: &Positions) -> Vec<i32> {
        for (partition, next) in to {
            if let Some(range) = self.left.get_mut(partition) {
                range.start = *next;
            }
        }
        self.left.extract_if(.., |_, range| range.is_empty()).map(|(partition, _)| partition).collect()
    }

    /// Describes the progress for the health report.
    pub(crate) fn describe(&self) -> String {
        let left = self.left.values().map(|range| range.end - range.start).sum::<i64>();
        let share = 100 - left * 100 / self.whole.max(1);
        match &self.replays {
            None => format!("reading windows of {} partitions: {share} %", self.firsts.len()),
            Some(replays) => {
                format!("restoring: {share} %, {} of {} partitions left", replays.len(), self.firsts.len())
            }
        }
    }
}

/// Result of one call of [`PartitionRestore::read_on`].
pub(super) struct HistoryStep {
    /// Partitions that were read to the end of their range.
    pub done: Vec<i32>,
    /// Whether the call failed and will be repeated.
    pub is_retried: bool,
    /// Why the restore does not advance.
    pub obstacle: Option<String>,
}

/// Returns the number of records that windows need and the input no longer has, and logs their offsets.
pub(super) fn replay_gap(settings: &Settings, partition: i32, replay: &PartitionReplay) -> u64 {
    let (topic, from, to) = (&settings.topics.raw_events, replay.from, replay.to.offset);
    let passed_by = from - replay.checkpoint.offset;
    if passed_by > 0 {
        tracing::error!(
            topic,
            partition,
            missing = passed_by,
            "events that windows need were deleted by the topic's retention: they have gaps now. Give {topic} a longer \
             retention, or set detector.snapshot_interval lower"
        );
    }
    let Some((from, expected, found)) = replay.shortfall() else { return passed_by.max(0).unsigned_abs() };
    tracing::error!(
        topic,
        partition,
        from,
        to,
        expected,
        found,
        "records that were judged are no longer in the topic: windows differ from those before the restart. Is {topic} \
         compacted? Set its cleanup.policy to delete"
    );
    expected - found
}

/// Returns the next offset of each partition.
pub(super) fn offsets(positions: &ProgressByPartition) -> Positions {
    positions.iter().map(|(partition, progress)| (*partition, progress.offset)).collect()
}
