//! Decides where a partition starts: at its committed offset, with the snapshots that belong to it or without any.

use super::Worker;
use super::checkpoint::{self, Checkpoint, Epoch};
use super::restored::RestoredWindows;
use crate::config::resolved::StartPosition;
use crate::series::TableRestore;
use crate::stream::client::{CommittedOffset, Fault, GroupAdministration, Remedy, TopicIdentity};
use crate::stream::progress::Progress;

/// State of a partition as found at its assignment.
pub(super) struct FoundPartition {
    pub restore: TableRestore,
    pub checkpoint: Checkpoint,
    /// Whether the checkpoint must still be written.
    pub is_news: bool,
}

impl<C: GroupAdministration> Worker<'_, C> {
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
            CommittedOffset::New if self.session.settings.detector.start == StartPosition::Latest => {
                // Offsets that have expired look like those of a new group. Nothing shows how far an earlier run came.
                self.session.component.note_start_at_end(partition, first..end);
                start_at(end)
            }
            CommittedOffset::New => start_at(first),
            CommittedOffset::Added => {
                if self.session.component.is_due(&format!("new partition {partition}")) {
                    tracing::info!(topic, partition, "the topic has a new partition: beginning at its first event");
                }
                start_at(first)
            }
            CommittedOffset::At(Progress { offset, .. }) | CommittedOffset::Foreign(offset) if offset > end => {
                let why = "the topic was recreated or truncated";
                let remedy = checkpoint::begin_again(self.session.settings);
                let place = format_args!("{topic} [{partition}] ends at {end}, before the committed offset {offset}");
                Err(Fault::new(Remedy::Stop, format_args!("{place}: {why}. {remedy}")))
            }
            CommittedOffset::At(Progress { offset, counts }) if offset < first => {
                let lost = self.session.component.note_deleted(partition, offset..first);
                self.session.meter.lost_records.add("unjudged", lost);
                tracing::error!(
                    topic,
                    partition,
                    lost = first - offset,
                    "events were deleted by the topic's retention before they were judged; continuing at the first available record"
                );
                Ok(Progress { offset: first, counts })
            }
            CommittedOffset::At(progress) => Ok(progress),
            CommittedOffset::Foreign(offset) => start_at(offset.max(first)),
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
        let RestoredWindows { restore, checkpoint, .. } = windows;
        let (topic, state) = (&self.session.settings.topics.raw_events, &self.session.settings.topics.state);
        if let CommittedOffset::Foreign(offset) = standing {
            let since = checkpoint.as_ref().map(|checkpoint| checkpoint.at);
            self.watch.note_foreign_commit(self.session.client.now(), partition, (since, first), offset);
        }
        let Some(mut checkpoint) = checkpoint else {
            if self.session.settings.detector.keeps_state()
                && matches!(standing, CommittedOffset::At(_) | CommittedOffset::Foreign(_))
            {
                tracing::warn!(topic, partition, "{state} has no windows of this partition: reading the input back");
            }
            let mut checkpoint = Checkpoint {
                group: self.session.settings.detector.group.clone(),
                topic: topic.clone(),
                topic_id: identity.id.clone(),
                partitions: identity.partitions,
                offset: first.max(at.offset.saturating_sub(self.session.settings.detector.history)).min(at.offset),
                clock: None,
                time: None,
                passed: None,
                at: at.offset,
                counts: at.counts.to_string(),
                epochs: Vec::new(),
                refusals: Vec::new(),
            };
            checkpoint.settle(Epoch::of(checkpoint.offset, &self.judging.detector, &self.session.settings.fields));
            return Ok(FoundPartition { restore, checkpoint, is_news: self.session.settings.detector.keeps_state() });
        };
        let committed = match standing {
            CommittedOffset::At(Progress { offset, .. }) | CommittedOffset::Foreign(offset) => Some(offset),
            CommittedOffset::New | CommittedOffset::Added => None,
        };
        if let Err(fault) = checkpoint.fits(self.session.settings, partition, identity, restore.newest(), committed) {
            // The previous owner of the partition may have committed after our first request.
            let now = self.session.insist("reading the committed offsets", |client| client.committed(&[partition]))?;
            let has_moved = now.get(&partition).copied().unwrap_or(CommittedOffset::New) != standing;
            return Err(if has_moved { Fault { remedy: Remedy::Rebuild, ..fault } } else { fault });
        }
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
        if checkpoint.topic_id.is_none() && identity.id.is_some() {
            checkpoint.topic_id.clone_from(&identity.id);
            is_news = true;
        }
        if checkpoint.partitions != identity.partitions {
            tracing::warn!(
                topic,
                partition,
                "the topic had {} partitions and has {}: devices whose partition changed start with an empty window",
                checkpoint.partitions,
                identity.partitions
            );
            checkpoint.partitions = identity.partitions;
            is_news = true;
        }
        Ok(FoundPartition { restore, checkpoint, is_news })
    }
}
