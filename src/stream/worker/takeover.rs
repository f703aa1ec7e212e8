//! Takes over partitions: finds the start of each, reads its snapshots, and replays the input up to the committed
//! offset. Then its records are judged. All partitions are restored at once, while completed ones are judged already.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Worker;
use super::advice;
use super::beginning::FoundPartition;
use super::replay::PartitionReplay;
use super::restore::{HistoryStep, PartitionRestore, offsets, replay_gap};
use super::restored::{RestoredWindows, open_windows};
use crate::detect::DetectionSettings;
use crate::fail;
use crate::health::ComponentState;
use crate::stream::client::{
    CommittedOffset, Fault, HistoryTopic, OffsetRanges, Positions, TopicIdentity, TransactionalClient,
};
use crate::stream::progress::ProgressByPartition;

impl<C: TransactionalClient> Worker<'_, C> {
    /// Accepts the assigned partitions, and begins to restore them.
    pub(super) fn take_over(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.session.component.set(ComponentState::Starting(format!("taking over {} partitions", partitions.len())));
        let began = self.session.client.now();
        self.check_assignment(partitions)?;
        let known = self.session.insist("reading the committed offsets", |client| client.committed(partitions))?;
        // Only stored snapshots can belong to an earlier topic. Without them the id is compared from now on, if it is known.
        let (identity, id) = if self.session.settings.detector.keeps_state() {
            let identity = self.session.insist("reading the topic's identity", |client| client.identity())?;
            let id = identity.id.clone();
            (identity, id)
        } else {
            (TopicIdentity { id: None, partitions: 0 }, self.session.client.topic_id())
        };
        self.identity.note(id, self.session.client.now());
        let standing = |partition: i32| (partition, known.get(&partition).copied().unwrap_or(CommittedOffset::New));
        let standings = partitions.iter().copied().map(standing).collect::<BTreeMap<_, _>>();
        self.refuse_foreign(&standings)?;
        if self.session.settings.detector.keeps_state() {
            self.check_policy()?;
        }
        let bounds = self
            .session
            .insist("reading the ends of the topic", |client| client.bounds_of(HistoryTopic::Input, partitions))?;
        let (mut at, mut firsts) = (ProgressByPartition::new(), Positions::new());
        for (&partition, &standing) in &standings {
            let Some(bounds) = bounds.get(&partition) else { continue };
            at.insert(partition, self.begin_at(partition, standing, bounds.start, bounds.end)?);
            firsts.insert(partition, bounds.start);
        }
        self.session.client.assign(&offsets(&at))?;
        fail::point("assigned");
        self.committing.committed = at.clone();
        self.judging.positions = at;
        let (left, windows) = match self.session.settings.detector.keeps_state() {
            true => open_windows(&mut self.session, partitions)?,
            false => {
                let bounds = self.judging.detector.settings().bounds();
                let none = |partition: &i32| (*partition, RestoredWindows::none(bounds));
                (OffsetRanges::new(), partitions.iter().map(none).collect())
            }
        };
        let mut restoring = PartitionRestore::new(standings, identity, firsts, began, windows);
        restoring.begin(&left);
        if left.is_empty() {
            self.begin_replays(&mut restoring)?;
        }
        self.go_on(restoring)
    }

    /// Reads more of the partitions that are being restored, and starts judging those that are complete.
    pub(super) fn restore(&mut self) -> Result<(), Fault> {
        let Some(mut restoring) = self.restoring.take() else { return Ok(()) };
        let HistoryStep { done, is_retried, obstacle } = restoring.read_on(&mut self.session)?;
        self.judging.weigh_restore(&mut restoring, &self.committing.committed);
        match &mut restoring.replays {
            None => {
                fail::point("reading windows");
                if restoring.is_read() {
                    self.begin_replays(&mut restoring)?;
                }
            }
            Some(replays) => {
                fail::point("replaying");
                let done = done.iter().filter_map(|partition| Some((*partition, replays.remove(partition)?)));
                self.serve(done.collect(), restoring.began)?;
            }
        }
        // During an outage two states would alternate, with a line in the log for each.
        if !is_retried && self.session.client.trouble().is_none() {
            match obstacle {
                Some(why) => self.session.component.set(ComponentState::Degraded(why)),
                None => self.session.component.progress(restoring.describe()),
            }
        }
        self.go_on(restoring)
    }

    /// Stores the rest of the restore for the next turn.
    fn go_on(&mut self, restoring: PartitionRestore) -> Result<(), Fault> {
        if restoring.replays.as_ref().is_none_or(|replays| !replays.is_empty()) {
            self.restoring = Some(restoring);
            return Ok(());
        }
        self.session.client.close_history();
        self.judging.restoring_bytes = 0;
        self.is_member = true;
        self.session.component.set(ComponentState::Running);
        Ok(())
    }

    /// Ends the reading of snapshots: commits where partitions start, and opens the input.
    fn begin_replays(&mut self, restoring: &mut PartitionRestore) -> Result<(), Fault> {
        let mut found = BTreeMap::new();
        for (partition, windows) in std::mem::take(&mut restoring.windows) {
            let (Some(&first), Some(at)) =
                (restoring.firsts.get(&partition), self.committing.committed.get(&partition).copied())
            else {
                continue;
            };
            let standing = restoring.standings.get(&partition).copied().unwrap_or(CommittedOffset::New);
            found.insert(partition, self.find(partition, windows, standing, first, &at, &restoring.identity)?);
        }
        let is_new = restoring.standings.values().any(|standing| !matches!(standing, CommittedOffset::At(_)));
        let news = found.iter().filter(|(_, found)| found.is_news).map(|(at, found)| found.checkpoint.record(*at));
        let news = news.collect::<Vec<_>>();
        if is_new || !news.is_empty() {
            // The commit precedes the first fetch, so that a crash now does not decide again.
            let at = self.committing.committed.clone();
            self.session.client.begin()?;
            news.into_iter().try_for_each(|record| self.session.client.send(record))?;
            self.session.insist("committing where to begin", |client| client.commit(&at))?;
        }
        let (mut replays, mut ranges, mut done) = (BTreeMap::new(), OffsetRanges::new(), Vec::new());
        for (partition, FoundPartition { restore, checkpoint, live, .. }) in found {
            let mut replay = PartitionReplay::new(
                restore,
                checkpoint,
                restoring.firsts[&partition],
                self.committing.committed[&partition],
            );
            replay.live = live;
            if replay.read_from < replay.to.offset {
                ranges.insert(partition, replay.read_from..replay.to.offset);
                replays.insert(partition, replay);
            } else {
                done.push((partition, replay));
            }
        }
        if !ranges.is_empty() {
            self.session.insist("opening the history", |client| client.open_history(HistoryTopic::Input, &ranges))?;
        }
        restoring.begin(&ranges);
        restoring.replays = Some(replays);
        self.serve(done, restoring.began)
    }

    /// Starts the judging of partitions that are replayed.
    fn serve(&mut self, done: Vec<(i32, PartitionReplay)>, began: Duration) -> Result<(), Fault> {
        if let Some((partition, replay)) = done.iter().find(|(_, replay)| replay.is_rewritten) {
            return Err(advice::rewritten(self.session.settings, *partition, &replay.to));
        }
        let partitions = done.iter().map(|(partition, _)| *partition).collect::<Vec<_>>();
        for (partition, mut replay) in done {
            self.judging.pending.adopt(partition, std::mem::take(&mut replay.same_time));
            let (bytes, from, to, windows) = (replay.bytes, replay.from, replay.to, replay.windows);
            let missing = replay_gap(self.session.settings, partition, &replay);
            let live = replay.live;
            let (checkpoint, (table, gone, given_up)) = replay.finish();
            tracing::info!(
                topic = self.session.settings.topics.raw_events,
                partition,
                windows,
                from,
                to = to.offset,
                series = table.len(),
                milliseconds = self.session.client.now().saturating_sub(began).as_millis() as u64,
                "windows restored"
            );
            if missing > 0 {
                let DetectionSettings { policy, max_series, .. } = self.judging.detector.settings();
                let window = policy.largest_window() as u64;
                // Series whose whole window is lost are not in the table; the missing records bound their values.
                let values = (table.len() as u64 * window).max(missing.min(*max_series as u64 * window));
                self.shortfalls.add(partition, missing, to.counts.sum(), values);
            }
            self.judging.detector.adopt(partition, table);
            if self.session.settings.detector.keeps_state() {
                let now = self.session.client.now();
                self.snapshots.begin(partition, checkpoint, live, (gone, given_up), bytes, now);
            }
        }
        if partitions.is_empty() { Ok(()) } else { self.session.client.resume(&partitions) }
    }
}
