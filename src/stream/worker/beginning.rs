//! Decides where a partition starts: at its committed offset, with the snapshots that belong to it or without any.

use std::collections::BTreeMap;

use super::Worker;
use super::advice;
use super::checkpoint::{Checkpoint, Epoch};
use super::live::LiveDigest;
use super::restored::RestoredWindows;
use crate::config::resolved::StartPosition;
use crate::series::TableRestore;
use crate::stream::client::{
    CommittedOffset, Fault, GroupAdministration, HistoryReader, HistoryTopic, Remedy, TopicAdministration,
    TopicIdentity,
};
use crate::stream::identity::TopicSameness;
use crate::stream::progress::Progress;

/// State of a partition as found at its assignment.
pub(super) struct FoundPartition {
    pub restore: TableRestore,
    pub checkpoint: Checkpoint,
    /// Number and hash of the keys of the state topic that have a record.
    pub live: LiveDigest,
    /// Whether the checkpoint must still be written.
    pub is_news: bool,
}

impl<C: GroupAdministration + HistoryReader + TopicAdministration> Worker<'_, C> {
    /// Returns the progress to start from: the committed one if the topic still has its records.
    pub(super) fn begin_at(
        &self,
        partition: i32,
        standing: CommittedOffset,
        first: i64,
        end: i64,
    ) -> Result<Progress, Fault> {
        let topic = &self.session.settings.topics.raw_events;
        let start_at = |offset| Ok(Progress { offset, ..Progress::default() });
        match standing {
            // No detector has had the partition, unless the state topic says so.
            CommittedOffset::Earlier(_) if self.session.settings.detector.start == StartPosition::Earliest => {
                start_at(first)
            }
            CommittedOffset::New | CommittedOffset::Earlier(_)
                if self.session.settings.detector.start == StartPosition::Latest =>
            {
                // Offsets that have expired look like those of a new group. Nothing shows how far an earlier run came.
                self.session.component.note_start_at_end(partition, first..end);
                start_at(end)
            }
            CommittedOffset::New | CommittedOffset::Earlier(_) => start_at(first),
            CommittedOffset::Added { generation } => {
                if self.session.component.is_due(&format!("new partition {partition}")) {
                    tracing::info!(topic, partition, "the topic has a new partition: beginning at its first event");
                }
                Ok(Progress { offset: first, generation, ..Progress::default() })
            }
            CommittedOffset::At(Progress { offset, .. }) | CommittedOffset::Foreign { offset, .. } if offset > end => {
                let why = "the topic was recreated or truncated";
                let remedy = advice::begin_again(self.session.settings);
                let place = format_args!("{topic} [{partition}] ends at {end}, before the committed offset {offset}");
                Err(Fault::new(Remedy::Stop, format_args!("{place}: {why}. {remedy}")))
            }
            CommittedOffset::At(Progress { offset, counts, generation, .. }) if offset < first => {
                let lost = self.session.component.note_deleted(partition, offset..first);
                self.session.meter.lost_records.add("unjudged", lost);
                tracing::error!(
                    topic,
                    partition,
                    lost = first - offset,
                    "events were deleted by the topic's retention before they were judged; continuing at the first available record"
                );
                Ok(Progress { offset: first, counts, last: None, generation })
            }
            CommittedOffset::At(progress) => Ok(progress),
            // The caller refuses this offset before.
            CommittedOffset::Foreign { offset, .. } => start_at(offset.max(first)),
        }
    }

    /// Returns windows and checkpoint of a partition. Without any, it replays as much of the input as the settings
    /// allow.
    pub(super) fn find(
        &mut self,
        partition: i32,
        windows: RestoredWindows,
        standing: CommittedOffset,
        first: i64,
        at: &Progress,
        identity: &TopicIdentity,
    ) -> Result<FoundPartition, Fault> {
        let RestoredWindows { restore, checkpoint, keys, .. } = windows;
        let settings = self.session.settings;
        let topic = &settings.topics.raw_events;
        if let Some((expected, found)) = keys.difference() {
            let fault = advice::missing(settings, partition, expected, found);
            return Err(self.confirm(fault, partition, standing)?);
        }
        let live = keys.digest();
        let Some(mut checkpoint) = checkpoint else {
            self.warn_without_checkpoint(partition, standing, at);
            let mut checkpoint = Checkpoint::begin(settings, &self.judging.detector, identity, first, at);
            checkpoint.live = Some(live);
            return Ok(FoundPartition { restore, checkpoint, live, is_news: settings.detector.keeps_state() });
        };
        let committed = match standing {
            CommittedOffset::At(Progress { offset, .. }) => Some(offset),
            _ => None,
        };
        let fits = checkpoint.fits(settings, partition, identity, restore.newest(), committed);
        // The state topic shows that a detector has had the partition.
        if let Some(fault) = advice::foreign(settings, partition, standing).or(fits.err()) {
            return Err(self.confirm(fault, partition, standing)?);
        }
        checkpoint.live = Some(live);
        let mut is_news =
            checkpoint.settle(Epoch::of(at.offset, &self.judging.detector, &self.session.settings.fields));
        if is_news {
            tracing::info!(
                topic,
                partition,
                offset = at.offset,
                "settings changed: the new settings apply from this offset"
            );
        }
        is_news |= note_identity(&mut checkpoint, partition, identity);
        Ok(FoundPartition { restore, checkpoint, live, is_news })
    }

    /// Logs why a partition begins without stored windows, if that is unexpected.
    fn warn_without_checkpoint(&self, partition: i32, standing: CommittedOffset, at: &Progress) {
        let settings = self.session.settings;
        let (topic, state) = (&settings.topics.raw_events, &settings.topics.state);
        if settings.detector.keeps_state() && matches!(standing, CommittedOffset::At(_)) {
            tracing::warn!(topic, partition, "{state} has no windows of this partition: reading the input back");
        }
        if let CommittedOffset::Earlier(offset) = standing {
            tracing::warn!(
                topic,
                partition,
                offset,
                from = at.offset,
                "the committed offset is of another program, and no detector has judged this partition: detector.start \
                 decides where judging begins"
            );
        }
    }

    /// Checks before a commit that the input was not recreated since the takeover. After a fault it waits for the answer.
    ///
    /// # Errors
    /// `Stop` with the remedy if two readings agree; `Rebuild` if the cluster does not answer.
    pub(super) fn confirm_identity(&mut self) -> Result<(), Fault> {
        let (topic, identity) = (&self.session.settings.topics.raw_events, &mut self.identity);
        let sameness = self.session.insist("reading the topic's id", |client| match identity.confirm(client) {
            TopicSameness::Unknown => {
                let why = "nothing is committed until Kafka shows that the topic was not recreated during the outage";
                Err(Fault::new(Remedy::Retry, format_args!("no answer about the id of {topic}: {why}")))
            }
            known => Ok(known),
        })?;
        self.refuse_recreated(sameness)
    }

    /// Checks from time to time that the input was not recreated since the takeover.
    ///
    /// # Errors
    /// `Stop` with the remedy if two readings agree.
    pub(super) fn watch_identity(&mut self) -> Result<(), Fault> {
        let sameness = self.identity.watch(&mut self.session.client);
        self.refuse_recreated(sameness)
    }

    fn refuse_recreated(&mut self, sameness: TopicSameness) -> Result<(), Fault> {
        let TopicSameness::Recreated(first) = sameness else { return Ok(()) };
        let settings = self.session.settings;
        let again = self.session.insist("reading the topic's identity", |client| client.identity())?;
        if again.id.as_ref() != Some(&first) {
            return Ok(());
        }
        let (topic, remedy) = (&settings.topics.raw_events, advice::begin_again(settings));
        let what =
            "was recreated while this detector was running, so that its offsets and windows are of another topic";
        Err(Fault::new(Remedy::Stop, format_args!("{topic} {what} (id {first} now). {remedy}")))
    }

    /// Refuses a state topic whose cleanup policy deletes windows.
    ///
    /// # Errors
    /// `Correct` if the policy is another one than `compact`.
    pub(super) fn check_policy(&mut self) -> Result<(), Fault> {
        let what = "reading the configuration of the windows' topic";
        let settings = self.session.settings;
        match self.session.insist(what, |client| client.cleanup_policy(HistoryTopic::State))? {
            Some(policy) => advice::wrong_policy(settings, &policy).map_or(Ok(()), Err),
            None => {
                if self.session.component.is_due(what) {
                    let topic = &settings.topics.state;
                    tracing::warn!(
                        topic,
                        "cleanup.policy cannot be read, so it is not checked: is DescribeConfigs allowed?"
                    );
                }
                Ok(())
            }
        }
    }

    /// Refuses offsets that another program has committed. The state topic need not be read for this.
    pub(super) fn refuse_foreign(&mut self, standings: &BTreeMap<i32, CommittedOffset>) -> Result<(), Fault> {
        let settings = self.session.settings;
        for (&partition, &standing) in standings {
            // Without a state topic nothing shows that no detector has had the partition.
            let is_undecided = matches!(standing, CommittedOffset::Earlier(_)) && settings.detector.keeps_state();
            if let Some(fault) = advice::foreign(settings, partition, standing).filter(|_| !is_undecided) {
                return Err(self.confirm(fault, partition, standing)?);
            }
        }
        Ok(())
    }

    /// Returns the fault of a partition whose committed state is still the same. Otherwise the previous owner of the
    /// partition has committed after our first request, and the remedy is `Rebuild`.
    fn confirm(&mut self, fault: Fault, partition: i32, standing: CommittedOffset) -> Result<Fault, Fault> {
        let now = self.session.insist("reading the committed offsets", |client| client.committed(&[partition]))?;
        let has_moved = now.get(&partition).copied().unwrap_or(CommittedOffset::New) != standing;
        Ok(if has_moved { Fault { remedy: Remedy::Rebuild, ..fault } } else { fault })
    }
}

/// Updates the id and the number of partitions in the checkpoint. Returns whether one has changed.
fn note_identity(checkpoint: &mut Checkpoint, partition: i32, identity: &TopicIdentity) -> bool {
    let mut is_news = false;
    if checkpoint.topic_id.is_none() && identity.id.is_some() {
        checkpoint.topic_id.clone_from(&identity.id);
        is_news = true;
    }
    if checkpoint.partitions != identity.partitions {
        tracing::warn!(
            topic = checkpoint.topic,
            partition,
            "the topic had {} partitions and has {}: devices whose partition changed start with an empty window",
            checkpoint.partitions,
            identity.partitions
        );
        checkpoint.partitions = identity.partitions;
        is_news = true;
    }
    is_news
}
