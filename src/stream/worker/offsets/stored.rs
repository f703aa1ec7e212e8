//! The records of the state topic, as `anomaly offsets` reads them: which offset they belong to, and whether a detector can
//! continue with them.

use std::collections::BTreeMap;

use super::super::checkpoint::Checkpoint;
use super::super::live::{FoundKeys, LiveDigest};
use super::OffsetReport;
use crate::config::resolved::Settings;
use crate::series::snapshot::{self, DamagedRecord};
use crate::stream::client::{CommittedOffset, ConsumedRecord, TopicIdentity};
use crate::stream::progress::Progress;

/// What the state topic has of one partition.
#[derive(Default)]
pub(super) struct StoredState {
    /// End of the partition when it was read. `None` if the settings keep no state.
    pub end: Option<i64>,
    pub checkpoint: Option<Checkpoint>,
    /// Offset of each snapshot and eviction, by key.
    pub keys: BTreeMap<Vec<u8>, i64>,
    pub found: FoundKeys,
}

impl StoredState {
    pub(super) fn take(&mut self, record: &ConsumedRecord<'_>) -> Result<(), DamagedRecord> {
        let key = record.key.unwrap_or_default();
        match (Checkpoint::read(key, record.value), snapshot::series_of(key), record.value) {
            (Some(read), ..) => {
                let read = read?;
                self.found.set_expected(read.live);
                self.checkpoint = Some(read);
            }
            (None, Some(_), Some(value)) => {
                self.found.note(key, true);
                self.keys.insert(key.to_vec(), snapshot::decode(key, value)?.as_of);
            }
            (None, Some(_), None) => {
                self.found.note(key, false);
                self.keys.remove(key);
            }
            (None, None, value) => {
                if let Some(read) = LiveDigest::read(key, value) {
                    self.found.set_expected(Some(read?));
                }
            }
        }
        Ok(())
    }

    /// Returns the greatest offset of a snapshot.
    fn newest(&self) -> i64 {
        self.keys.values().copied().max().unwrap_or_default()
    }

    /// Returns the last known progress of a detector.
    pub(super) fn last(&self, standing: CommittedOffset) -> Option<Progress> {
        match standing {
            CommittedOffset::At(progress) => Some(progress),
            CommittedOffset::Foreign { was: Some(was), .. } => Some(was),
            _ => self.checkpoint.as_ref().and_then(Checkpoint::progress),
        }
    }

    /// Returns the offset to accept; `None` if a start needs no help.
    pub(super) fn accepted(&self, report: &OffsetReport, settings: &Settings, is_rewritten: bool) -> Option<i64> {
        let least = self.checkpoint.as_ref().map(|checkpoint| checkpoint.least(self.newest()));
        match report.standing {
            CommittedOffset::Foreign { offset, .. } => Some(offset),
            CommittedOffset::Earlier(offset) => (least.is_some() || !settings.detector.keeps_state()).then_some(offset),
            CommittedOffset::New | CommittedOffset::Added { .. } => least,
            CommittedOffset::At(Progress { offset, .. }) => {
                let is_before = least.is_some_and(|least| offset < least);
                (is_before || is_rewritten || self.found.difference().is_some()).then_some(offset)
            }
        }
    }

    /// Returns whether a detector can continue at this offset with the stored windows.
    pub(super) fn is_usable(&self, offset: i64, identity: &TopicIdentity) -> bool {
        let is_before = |checkpoint: &Checkpoint| checkpoint.offset.max(self.newest()) <= offset;
        let is_usable = |checkpoint: &Checkpoint| checkpoint.is_of(identity) && is_before(checkpoint);
        self.found.difference().is_none() && self.checkpoint.as_ref().is_some_and(is_usable)
    }
}
