//! Taking partitions over: find where each stands, read its windows, replay the input from their floor to the committed
//! offset without output, then let records come. All partitions at once, while those that are done are served.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Worker;
use super::checkpoint::{self, Checkpoint, Epoch};
use super::replay::PartitionReplay;
use super::restored::RestoredWindows;
use crate::config::resolved::StartPosition;
use crate::fail;
use crate::health::ComponentState;
use crate::series::TableRestore;
use crate::stream::client::{
    CommittedOffset, Fault, HistoryTopic, OffsetRanges, Positions, Remedy, TopicIdentity, TransactionalClient,
};
use crate::stream::progress::{Progress, ProgressByPartition};

/// What was found of a partition.
struct Found {
    restore: TableRestore,
    floor: Checkpoint,
    /// The floor's record is to be written.
    is_news: bool,
}

/// Partitions that were assigned and are not served yet. Windows are read of all of them, then the input; each is served once it
/// is replayed.
pub(super) struct PartitionRestore {
    standings: BTreeMap<i32, CommittedOffset>,
    identity: TopicIdentity,
    /// First offsets of the input.
    firsts: Positions,
    began: Duration,
    windows: BTreeMap<i32, RestoredWindows>,
    /// `None` while windows are read.
    replays: Option<BTreeMap<i32, PartitionReplay>>,
    /// What is still to be read of the topic that is read now, and how much it was.
    left: OffsetRanges,
    whole: i64,
}

impl PartitionRestore {
    /// Whether the partition is not served yet.
    pub fn has(&self, partition: i32) -> bool {
        self.replays.as_ref().map_or(self.firsts.contains_key(&partition), |replays| replays.contains_key(&partition))
    }

    /// Whether the offset to begin at is not committed yet, and may still turn out not to fit the windows.
    pub fn is_unconfirmed(&self, partition: i32) -> bool {
        self.replays.is_none() && !matches!(self.standings.get(&partition), Some(CommittedOffset::At(_)))
    }

    fn read(&mut self, ranges: &OffsetRanges) {
        self.left = ranges.clone();
        self.whole = ranges.values().map(|range| range.end - range.start).sum();
    }

    /// Moves on to these offsets; the partitions that came to their end.
    fn advance(&mut self, to: &Positions) -> Vec<i32> {
        for (partition, next) in to {
            if let Some(range) = self.left.get_mut(partition) {
                range.start = *next;
            }
        }
        self.left.extract_if(.., |_, range| range.is_empty()).map(|(partition, _)| partition).collect()
    }

    fn describe(&self) -> String {
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

impl<L: TransactionalClient> Worker<'_, L> {
    pub(super) fn join(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.part.set(ComponentState::Starting(format!("taking over {} partitions", partitions.len())));
        let began = self.log.now();
        let known = self.insist("reading the committed offsets", |log| log.committed(partitions))?;
        // Only kept windows can belong to another topic; librdkafka's mock does not answer this.
        let identity = match self.plan.keeps_state {
            true => self.insist("reading the topic's identity", |log| log.identity())?,
            false => TopicIdentity { id: None, partitions: 0 },
        };
        let standing = |partition: i32| (partition, known.get(&partition).copied().unwrap_or(CommittedOffset::New));
        let standings = partitions.iter().copied().map(standing).collect::<BTreeMap<_, _>>();
        let bounds =
            self.insist("reading the ends of the topic", |log| log.bounds_of(HistoryTopic::Input, partitions))?;
        let (mut at, mut firsts) = (ProgressByPartition::new(), Positions::new());
        for (&partition, &standing) in &standings {
            let Some(bounds) = bounds.get(&partition) else { continue };
            at.insert(partition, self.begin_at(partition, standing, bounds.start, bounds.end)?);
            firsts.insert(partition, bounds.start);
        }
        self.log.assign(&offsets(&at))?;
        fail::point("assigned");
        self.committed = at.clone();
        self.positions = at;
        let (left, windows) = match self.plan.keeps_state {
            true => self.open_windows(partitions)?,
            false => {
                (OffsetRanges::new(), partitions.iter().map(|partition| (*partition, self.no_windows())).collect())
            }
        };
        let mut restoring = PartitionRestore {
            standings,
            identity,
            firsts,
            began,
            windows,
            replays: None,
            left: OffsetRanges::new(),
            whole: 0,
        };
        restoring.read(&left);
        if left.is_empty() {
            self.begin_replays(&mut restoring)?;
        }
        self.go_on(restoring)
    }

    /// Reads on for partitions that are not served yet, and serves those that are done.
    pub(super) fn restore(&mut self) -> Result<(), Fault> {
        let Some(mut restoring) = self.restoring.take() else { return Ok(()) };
        let PartitionRestore { windows, replays, .. } = &mut restoring;
        let read = self.log.read_history(&mut |partition, records| match replays {
            None => {
                if let Some(windows) = windows.get_mut(&partition) {
                    windows.take(records);
                }
            }
            Some(replays) => {
                if let Some(replay) = replays.get_mut(&partition) {
                    replay.take(records);
                }
            }
        });
        self.check_damage(windows)?;
        let mut is_retried = false;
        let moved = match read {
            Err(fault) if fault.remedy == Remedy::Retry => {
                is_retried = true;
                if self.log.trouble().is_none() {
                    self.part.set(ComponentState::Degraded(fault.message));
                }
                Positions::new()
            }
            other => other?,
        };
        let done = restoring.advance(&moved);
        match &mut restoring.replays {
            None => {
                fail::point("reading windows");
                if restoring.left.is_empty() {
                    self.begin_replays(&mut restoring)?;
                }
            }
            Some(replays) => {
                fail::point("replaying");
                let done = done.iter().filter_map(|partition| Some((*partition, replays.remove(partition)?)));
                self.serve(done.collect(), restoring.began)?;
            }
        }
        // Else two states would take turns, with a line in the log for each.
        if !is_retried && self.log.trouble().is_none() {
            self.part.progress(restoring.describe());
        }
        self.go_on(restoring)
    }

    /// Keeps what is left for the next turn.
    fn go_on(&mut self, restoring: PartitionRestore) -> Result<(), Fault> {
        if restoring.replays.as_ref().is_none_or(|replays| !replays.is_empty()) {
            self.restoring = Some(restoring);
            return Ok(());
        }
        self.log.close_history();
        self.is_member = true;
        self.part.set(ComponentState::Running);
        Ok(())
    }

    /// All windows are read: writes down where partitions begin, and opens the input.
    fn begin_replays(&mut self, restoring: &mut PartitionRestore) -> Result<(), Fault> {
        let mut found = BTreeMap::new();
        for (partition, windows) in std::mem::take(&mut restoring.windows) {
            let (Some(&first), Some(at)) = (restoring.firsts.get(&partition), self.committed.get(&partition).copied())
            else {
                continue;
            };
            let standing = restoring.standings.get(&partition).copied().unwrap_or(CommittedOffset::New);
            found.insert(partition, self.find(partition, windows, standing, first, &at, &restoring.identity)?);
        }
        let is_new = restoring.standings.values().any(|standing| !matches!(standing, CommittedOffset::At(_)));
        let news = found.iter().filter(|(_, found)| found.is_news).map(|(at, found)| found.floor.record(*at));
        let news = news.collect::<Vec<_>>();
        if is_new || !news.is_empty() {
            // Before the first fetch, so that a crash now does not choose again.
            let at = self.committed.clone();
            self.log.begin()?;
            news.into_iter().try_for_each(|record| self.log.send(record))?;
            self.insist("committing where to begin", |log| log.commit(&at))?;
        }
        let (mut replays, mut ranges, mut done) = (BTreeMap::new(), OffsetRanges::new(), Vec::new());
        for (partition, Found { restore, floor, .. }) in found {
            let replay = PartitionReplay::new(restore, floor, restoring.firsts[&partition], self.committed[&partition]);
            if replay.from < replay.to.offset {
                ranges.insert(partition, replay.from..replay.to.offset);
                replays.insert(partition, replay);
            } else {
                done.push((partition, replay));
            }
        }
        if !ranges.is_empty() {
            self.insist("opening the history", |log| log.open_history(HistoryTopic::Input, &ranges))?;
        }
        restoring.read(&ranges);
        restoring.replays = Some(replays);
        self.serve(done, restoring.began)
    }

    /// These partitions are replayed: lets their records come.
    fn serve(&mut self, done: Vec<(i32, PartitionReplay)>, began: Duration) -> Result<(), Fault> {
        let partitions = done.iter().map(|(partition, _)| *partition).collect::<Vec<_>>();
        for (partition, mut replay) in done {
            self.staged.adopt(partition, std::mem::take(&mut replay.same_time));
            let (bytes, from, to, windows) = (replay.bytes, replay.from, replay.to, replay.windows);
            let missing = self.missing(partition, &replay);
            let (floor, table, gone) = replay.finish();
            tracing::info!(
                topic = self.plan.topic,
                partition,
                windows,
                from,
                to = to.offset,
                series = table.len(),
                milliseconds = self.log.now().saturating_sub(began).as_millis() as u64,
                "windows restored"
            );
            if missing > 0 {
                let values = (table.len() * self.detector.settings().window) as u64;
                self.shortfalls.add(partition, missing, to.counts.sum(), values);
            }
            self.detector.adopt(partition, table);
            if self.plan.keeps_state {
                self.keeper.begin(partition, floor, gone, bytes, self.log.now());
            }
        }
        if partitions.is_empty() { Ok(()) } else { self.log.resume(&partitions) }
    }

    /// Records that windows need and the input does not have.
    fn missing(&self, partition: i32, replay: &PartitionReplay) -> u64 {
        let (topic, from, to) = (&self.plan.topic, replay.from, replay.to.offset);
        let passed_by = from - replay.floor.offset;
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

    /// The mark to begin at: the committed one if the topic still has it.
    fn begin_at(&self, partition: i32, standing: CommittedOffset, first: i64, end: i64) -> Result<Progress, Fault> {
        let topic = &self.plan.topic;
        let anew = |offset| Ok(Progress { offset, ..Progress::default() });
        match standing {
            CommittedOffset::New if self.plan.start == StartPosition::Latest => anew(end),
            CommittedOffset::New => anew(first),
            CommittedOffset::Added => {
                if self.part.is_due(&format!("new partition {partition}")) {
                    tracing::info!(topic, partition, "the topic has a new partition: beginning at its first event");
                }
                anew(first)
            }
            CommittedOffset::At(Progress { offset, .. }) | CommittedOffset::Foreign(offset) if offset > end => {
                let why = "the topic was recreated or truncated";
                let remedy = checkpoint::begin_again(self.plan);
                let place = format_args!("{topic} [{partition}] ends at {end}, before the committed offset {offset}");
                Err(Fault::new(Remedy::Stop, format_args!("{place}: {why}. {remedy}")))
            }
            CommittedOffset::At(Progress { offset, counts }) if offset < first => {
                tracing::error!(
                    topic,
                    partition,
                    lost = first - offset,
                    "events were deleted by the topic's retention before they were judged; going on at the first that is left"
                );
                Ok(Progress { offset: first, counts })
            }
            CommittedOffset::At(mark) => Ok(mark),
            CommittedOffset::Foreign(offset) => anew(offset.max(first)),
        }
    }

    /// Windows and floor of a partition. Without any, the input alone must do: as much of it as the settings allow.
    fn find(
        &mut self,
        partition: i32,
        windows: RestoredWindows,
        standing: CommittedOffset,
        first: i64,
        at: &Progress,
        identity: &TopicIdentity,
    ) -> Result<Found, Fault> {
        let RestoredWindows { restore, floor, .. } = windows;
        let (topic, state) = (&self.plan.topic, &self.plan.state_topic);
        if let CommittedOffset::Foreign(offset) = standing {
            let since = floor.as_ref().map(|floor| floor.at);
            self.watch.note_foreign_commit(self.log.now(), partition, (since, first), offset);
        }
        let Some(mut floor) = floor else {
            if self.plan.keeps_state && matches!(standing, CommittedOffset::At(_) | CommittedOffset::Foreign(_)) {
                tracing::warn!(topic, partition, "{state} has no windows of this partition: reading the input back");
            }
            let mut floor = Checkpoint {
                group: self.plan.group.clone(),
                topic: topic.clone(),
                topic_id: identity.id.clone(),
                partitions: identity.partitions,
                offset: first.max(at.offset.saturating_sub(self.plan.history)).min(at.offset),
                clock: None,
                time: None,
                passed: None,
                at: at.offset,
                counts: at.counts.to_string(),
                epochs: Vec::new(),
            };
            floor.settle(Epoch::of(floor.offset, &self.detector, &self.plan.fields));
            return Ok(Found { restore, floor, is_news: self.plan.keeps_state });
        };
        let committed = match standing {
            CommittedOffset::At(Progress { offset, .. }) | CommittedOffset::Foreign(offset) => Some(offset),
            CommittedOffset::New | CommittedOffset::Added => None,
        };
        if let Err(fault) = floor.fits(self.plan, partition, identity, restore.newest(), committed) {
            // Who had the partition before us may have had its last commit after we asked.
            let now = self.insist("reading the committed offsets", |log| log.committed(&[partition]))?;
            let has_moved = now.get(&partition).copied().unwrap_or(CommittedOffset::New) != standing;
            return Err(if has_moved { Fault { remedy: Remedy::Rebuild, ..fault } } else { fault });
        }
        let mut is_news = floor.settle(Epoch::of(at.offset, &self.detector, &self.plan.fields));
        if is_news {
            tracing::info!(
                topic,
                partition,
                offset = at.offset,
                "settings changed: the new ones hold from this offset on"
            );
        }
        if floor.topic_id.is_none() && identity.id.is_some() {
            floor.topic_id.clone_from(&identity.id);
            is_news = true;
        }
        if floor.partitions != identity.partitions {
            tracing::warn!(
                topic,
                partition,
                "the topic had {} partitions and has {}: devices whose partition changed begin to learn anew",
                floor.partitions,
                identity.partitions
            );
            floor.partitions = identity.partitions;
            is_news = true;
        }
        Ok(Found { restore, floor, is_news })
    }
}

pub(super) fn offsets(marks: &ProgressByPartition) -> Positions {
    marks.iter().map(|(partition, mark)| (*partition, mark.offset)).collect()
}
