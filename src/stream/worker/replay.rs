//! Replays the input between the checkpoint of a partition and its committed offset on top of the snapshots. It has no
//! output and makes no decision.

use std::vec::IntoIter;

use super::checkpoint::{Checkpoint, Epoch};
use super::live::LiveDigest;
use super::pending::BLOCK_EVENTS;
use super::same_time::SameTime;
use crate::event::{Decoder, Timestamp};
use crate::series::{self, FinishedTable, ReplayedEvent, SlotHint, TableRestore};
use crate::stream::client::ConsumedRecord;
use crate::stream::progress::Progress;

/// Replay of one partition in progress.
pub(super) struct PartitionReplay {
    restore: TableRestore,
    /// Checkpoint, which has the settings of each offset.
    pub checkpoint: Checkpoint,
    /// Epochs that start at later offsets.
    epochs: IntoIter<Epoch>,
    decoder: Decoder,
    /// First offset to replay; `to` is the progress to reach.
    pub from: i64,
    pub to: Progress,
    /// First offset to read. The last record with an outcome may be before the records to replay.
    pub read_from: i64,
    /// Whether the log has another record in place of this last one.
    pub is_rewritten: bool,
    /// Number of restored windows.
    pub windows: usize,
    /// Size of the replayed records in bytes.
    pub bytes: u64,
    /// First offset and number of the records with an outcome; see [`Checkpoint::expected`].
    expected: Option<(i64, u64)>,
    /// Number of these records that were found.
    counted: u64,
    /// Series with several values of the same time, found during the replay.
    pub same_time: SameTime,
    /// Number and hash of the keys of the state topic that have a record.
    pub live: LiveDigest,
}

/// Sets the policies of an epoch. [`Checkpoint::fits`] has already reported a policy that this program does not know.
fn set_epoch(restore: &mut TableRestore, epoch: &Epoch) {
    if let Ok(policies) = epoch.policies() {
        restore.set_epoch(epoch.from, policies);
    }
}

impl PartitionReplay {
    /// Starts a replay; `first` is the first offset that the input still has.
    pub(crate) fn new(mut restore: TableRestore, checkpoint: Checkpoint, first: i64, to: Progress) -> Self {
        let from = checkpoint.offset.max(first);
        restore.set_clock(checkpoint.clock());
        let mut epochs = checkpoint.epochs.clone().into_iter();
        let mut decoder = Decoder::new(&crate::event::Fields::default());
        if let Some(first) = epochs.next() {
            set_epoch(&mut restore, &first);
            decoder = first.decoder();
        }
        let expected = checkpoint.expected(&to).filter(|(expected_from, _)| *expected_from >= from);
        let windows = restore.len();
        let (bytes, counted, same_time) = (0, 0, SameTime::default());
        let live = LiveDigest::default();
        let last = to.last.map(|last| last.offset).filter(|last| *last >= first);
        let read_from = last.map_or(from, |last| from.min(last));
        let is_rewritten = false;
        PartitionReplay {
            restore,
            checkpoint,
            epochs,
            decoder,
            from,
            to,
            read_from,
            is_rewritten,
            windows,
            bytes,
            expected,
            counted,
            same_time,
            live,
        }
    }

    /// Replays the next records, in order.
    pub(crate) fn take(&mut self, records: &[ConsumedRecord<'_>]) {
        self.compare(records);
        let mut rest = &records[records.partition_point(|record| record.offset < self.from)..];
        while let Some(first) = rest.first() {
            self.settle(first.offset);
            let until = self.epochs.as_slice().first().map_or(i64::MAX, |epoch| epoch.from);
            let same = rest.partition_point(|record| record.offset < until);
            let (block, later) = rest.split_at(same.min(BLOCK_EVENTS));
            let is_counted =
                |record: &&ConsumedRecord<'_>| self.expected.is_some_and(|(from, _)| record.offset >= from);
            self.counted += block.iter().filter(is_counted).count() as u64;
            self.bytes += block.iter().map(ConsumedRecord::size).sum::<usize>() as u64;
            self.join(block);
            rest = later;
        }
        self.restore.settle();
    }

    /// Compares the record that had the last outcome with the one that the log has now. Retention or compaction may have
    /// deleted it.
    fn compare(&mut self, records: &[ConsumedRecord<'_>]) {
        let Some(last) = self.to.last else { return };
        let found = records.binary_search_by_key(&last.offset, |record| record.offset);
        if found.is_ok_and(|at| records[at].note() != last) {
            self.is_rewritten = true;
        }
    }

    /// Applies the settings of this offset.
    fn settle(&mut self, offset: i64) {
        while self.epochs.as_slice().first().is_some_and(|epoch| epoch.from <= offset) {
            let Some(epoch) = self.epochs.next() else { return };
            set_epoch(&mut self.restore, &epoch);
            self.decoder = epoch.decoder();
        }
    }

    /// Appends events to their windows again. Records that were rejected then are skipped.
    fn join(&mut self, records: &[ConsumedRecord<'_>]) {
        let PartitionReplay { restore, decoder, same_time, checkpoint, .. } = self;
        let has_refusals = !checkpoint.refusals.is_empty();
        let mut key = String::new();
        let decoded = records.iter().filter_map(|record| Some((record, decoder.decode(&record.input()).ok()?)));
        let decoded = decoded.collect::<Vec<_>>();
        let events = decoded.iter().flat_map(|(_, events)| events.events());
        let guesses = events
            .map(|(_, event)| restore.guess(series::key(&mut key, &event.device_id, event.metric_name.as_deref())));
        let guesses = guesses.collect::<Vec<_>>();
        restore.approach(guesses.iter().copied());
        let mut guesses = guesses.into_iter();
        for (record, events) in &decoded {
            same_time.note(record.offset, events);
            if has_refusals {
                restore.set_closed(checkpoint.refuses(record.offset));
            }
            let own_time = record.timestamp.and_then(Timestamp::from_millis);
            // The first value advances the clock.
            let mut time = record.timestamp;
            let mut left = events.len();
            for (_, event) in events.events() {
                left -= 1;
                let key = series::key(&mut key, &event.device_id, event.metric_name.as_deref());
                let event_time = event.timestamp.or(own_time).map(Timestamp::millis);
                let (offset, value, has_more) = (record.offset, event.metric_value, left > 0);
                let event = ReplayedEvent { offset, time: time.take(), event_time, value, has_more };
                restore.replay(key, guesses.next().unwrap_or(SlotHint::NONE), event);
            }
        }
    }

    /// Returns offset, expected number and found number of the records if some are missing.
    pub(crate) fn shortfall(&self) -> Option<(i64, u64, u64)> {
        let (from, expected) = self.expected?;
        (self.counted < expected).then_some((from, expected, self.counted))
    }

    /// Returns the approximate memory of the series in bytes.
    pub(crate) fn series_bytes(&self) -> u64 {
        self.restore.bytes()
    }

    /// Evicts series, see [`TableRestore::give_up`].
    pub(crate) fn give_up(&mut self, most: u64) {
        self.restore.give_up(most, self.to.offset);
    }

    /// Returns the checkpoint, and the table with its evictions, see [`TableRestore::finish`].
    pub(crate) fn finish(mut self) -> (Checkpoint, FinishedTable) {
        self.settle(i64::MAX);
        self.restore.set_closed(self.checkpoint.is_refusing());
        (self.checkpoint, self.restore.finish())
    }
}
