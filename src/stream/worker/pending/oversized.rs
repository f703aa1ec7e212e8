//! Skips oversized batches of the input: each has one dead letter, and its records count as skipped.

use std::ops::Range;

use super::PendingTransaction;
use crate::config::resolved::{OnReject, Settings};
use crate::error::Error;
use crate::event::{RejectClass, Rejection};
use crate::health::RejectedSample;
use crate::stream::client::OversizedBatch;
use crate::stream::progress::Progress;
use crate::stream::worker::dead_letter::batch_letter;

/// The oversized batches of the transaction that were skipped.
#[derive(Default)]
pub(crate) struct SkippedBatches {
    /// Partition and skipped offsets of each batch.
    pub ranges: Vec<(i32, Range<i64>)>,
}

impl PendingTransaction {
    /// Skips a batch from the progress of its partition on, and advances the progress. `detector.on_reject` decides
    /// whether it gets a dead letter, or stops the worker.
    pub(crate) fn skip_batch(
        &mut self,
        settings: &Settings,
        partition: i32,
        batch: &OversizedBatch,
        progress: &mut Progress,
    ) {
        // Batches from before a rewind may still arrive.
        if self.poison.is_some() || batch.offsets.end <= progress.offset {
            return;
        }
        let topic = &settings.topics.raw_events;
        if settings.detector.on_reject == OnReject::Fail {
            self.poison =
                Some(Error::data(format_args!("{topic} [{partition}]: {batch}. detector.on_reject is \"fail\"")));
            return;
        }
        let count = batch.count_from(progress.offset);
        progress.counts.skipped += count;
        self.note_skipped(count);
        let skipped = batch.offsets.start.max(progress.offset)..batch.offsets.end;
        self.skipped.ranges.push((partition, skipped));
        progress.offset = batch.offsets.end;
        let rejection = Rejection { class: RejectClass::BatchSize, message: batch.to_string() };
        *self.rejects.entry(rejection.class).or_default() += 1;
        if settings.detector.on_reject == OnReject::DeadLetter {
            self.outbox.push(batch_letter(topic, partition, batch, &rejection));
        }
        if let Some(at) = self.now {
            self.samples.push(RejectedSample {
                generation: progress.generation,
                partition,
                offset: batch.offsets.start,
                class: rejection.class,
                message: rejection.message,
                key: None,
                value: None,
                at,
            });
        }
    }
}
