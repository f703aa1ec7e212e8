//! Sends the output of a transaction. All records are sent together, until a topic refuses a batch as too large. Then
//! they are sent in smaller groups. A record that is refused although it is alone is too large itself.

use std::time::Duration;

use crate::stream::client::{Fault, OutgoingRecord, OutputTopic, TransactionalProducer};

/// Maximum bytes of a group after the first refusal. librdkafka's batches have at most about four times as many.
const FIRST_GROUP_BYTES: usize = 256 << 10;
/// Bytes of a group below which each record is a group.
const MIN_GROUP_BYTES: usize = 1 << 10;
/// Factor between two sizes of groups.
const SIZE_FACTOR: usize = 4;
/// Time after a refusal, after which larger groups are tried.
pub(super) const LARGER_GROUPS_AFTER: Duration = Duration::from_secs(600);

/// A record that its topic refuses for its own size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedRecord {
    pub output: OutputTopic,
    pub key: Vec<u8>,
    /// Size of key, value and headers in bytes.
    pub size: usize,
}

/// Result of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SizeRefusal {
    /// The next groups have at most this many bytes.
    Smaller(usize),
    /// The record was alone.
    Alone(RefusedRecord),
}

/// The groups in which records are sent.
pub(super) struct RecordGroups {
    /// Maximum bytes of a group; `None` sends all records together.
    most: Option<usize>,
    /// Time at which larger groups are tried, by the client's clock.
    next_raise: Duration,
    /// The last group, if it has a single record.
    alone: Option<RefusedRecord>,
    pub retry: Duration,
}

impl Default for RecordGroups {
    fn default() -> Self {
        RecordGroups { most: None, next_raise: Duration::ZERO, alone: None, retry: LARGER_GROUPS_AFTER }
    }
}

impl RecordGroups {
    /// Sends the records, and waits for each group until the cluster has accepted it.
    pub(crate) fn send(
        &mut self,
        client: &mut impl TransactionalProducer,
        mut records: impl Iterator<Item = OutgoingRecord>,
    ) -> Result<(), Fault> {
        let Some(most) = self.most else { return records.try_for_each(|record| client.send(record)) };
        let mut bytes = 0;
        for record in records {
            let size = record.size();
            if bytes > 0 && bytes + size > most {
                client.flush()?;
                bytes = 0;
            }
            let key = record.key.clone().unwrap_or_default();
            self.alone = (bytes == 0).then(|| RefusedRecord { output: record.output.clone(), key, size });
            bytes += size.max(1);
            client.send(record)?;
        }
        if bytes > 0 {
            client.flush()?;
        }
        self.alone = None;
        Ok(())
    }

    /// Notes that a topic has refused the last group as too large.
    pub(crate) fn note_refusal(&mut self, now: Duration) -> SizeRefusal {
        self.next_raise = now + self.retry;
        if let Some(alone) = self.alone.take() {
            return SizeRefusal::Alone(alone);
        }
        let most = self.most.map_or(FIRST_GROUP_BYTES, |most| most / SIZE_FACTOR);
        let most = if most < MIN_GROUP_BYTES { 0 } else { most };
        self.most = Some(most);
        SizeRefusal::Smaller(most)
    }

    /// Notes a commit. Returns whether larger groups and records are tried from now on.
    pub(crate) fn note_commit(&mut self, now: Duration) -> bool {
        let Some(most) = self.most.filter(|_| now >= self.next_raise) else { return false };
        self.next_raise = now + self.retry;
        self.most = Some((most * SIZE_FACTOR).max(MIN_GROUP_BYTES)).filter(|most| *most <= FIRST_GROUP_BYTES);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_shrink_to_single_records_and_grow_again_after_a_time() {
        let mut groups = RecordGroups::default();
        let refused = (0..6).map(|_| groups.note_refusal(Duration::ZERO)).collect::<Vec<_>>();
        assert_eq!(refused, [262_144, 65_536, 16_384, 4_096, 1_024, 0].map(SizeRefusal::Smaller));
        let alone = RefusedRecord { output: OutputTopic::State(3), key: b"s".to_vec(), size: 70_000 };
        groups.alone = Some(alone.clone());
        assert_eq!(groups.note_refusal(Duration::ZERO), SizeRefusal::Alone(alone));
        assert!(!groups.note_commit(LARGER_GROUPS_AFTER / 2));
        let raised =
            (1..=6).map(|times| (groups.note_commit(LARGER_GROUPS_AFTER * times), groups.most)).collect::<Vec<_>>();
        let sizes = [1_024, 4_096, 16_384, 65_536, 262_144].map(|most| (true, Some(most)));
        assert_eq!((&raised[..5], raised[5]), (&sizes[..], (true, None)));
        assert!(!groups.note_commit(LARGER_GROUPS_AFTER * 7));
    }
}
