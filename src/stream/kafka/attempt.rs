//! Repeats the read of a partition that has failed, with a client of its own. The first client is not used, because it
//! may have lost its position after the error.
//!
//! A batch that cannot be read fails at its first offset, from whichever of its offsets the read begins. A read from the
//! offset after the batch does not. This shows where the batch ends, which librdkafka does not report.

use std::cell::Cell;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::closing;
use super::context::ConsumerEvents;
use super::failed::{Failure, RepeatedRead};
use super::fetch::{FetchQueue, OnOversized};
use super::{client, fault};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{Fault, Positions, Remedy};

/// Longest wait for the answer to one read, and for the answers to all reads of one attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads a partition at single offsets, outside of any group.
struct PartitionProbe<'p> {
    kafka: &'p KafkaSettings,
    topic: &'p str,
    partition: i32,
    on_oversized: OnOversized,
    began: Instant,
}

impl PartitionProbe<'_> {
    /// Reads from an offset. Returns the failure; `None` if a record or the end arrives first. Each read has a new
    /// client, because a client that assigns a partition again can lose the first message.
    fn failure_from(&self, offset: i64) -> Result<Option<Failure>, Fault> {
        let kafka = self.kafka;
        let failed = |e: &_| fault::of("reading a partition again", e);
        let mut config = client::reader(kafka);
        // librdkafka can assign partitions only to a consumer with a group id; this consumer never joins the group.
        config.set("group.id", client::id(kafka)).set("fetch.wait.max.ms", "20");
        let context = ConsumerEvents::new("");
        context.close();
        let consumer: BaseConsumer<ConsumerEvents> = config.create_with_context(context).map_err(|e| failed(&e))?;
        let mut fetch = FetchQueue::new(&consumer);
        let found = self.read(&consumer, &mut fetch, offset);
        // The queue is dropped before its consumer.
        drop(closing::close((fetch, consumer)));
        found
    }

    fn read(
        &self,
        consumer: &BaseConsumer<ConsumerEvents>,
        fetch: &mut FetchQueue,
        offset: i64,
    ) -> Result<Option<Failure>, Fault> {
        let PartitionProbe { topic, partition, on_oversized, began, .. } = *self;
        let failed = |e: &_| fault::of("reading a partition again", e);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(|e| failed(&e))?;
        fetch.lead(consumer, topic, on_oversized, Positions::from([(partition, offset)]));
        consumer.assign(&list).map_err(|e| failed(&e))?;
        let asked = Instant::now();
        while asked.elapsed() < ANSWER_TIMEOUT && began.elapsed() < ATTEMPT_TIMEOUT {
            // This call serves callbacks; messages arrive through the queue.
            let _ = consumer.poll(Duration::ZERO);
            if has_arrived(fetch, topic, offset) {
                return Ok(None);
            }
            if let Some(failure) = fetch.failed.failure(partition) {
                return Ok(Some(failure.clone()));
            }
        }
        Err(Fault::new(Remedy::Retry, format_args!("{topic} [{partition}] offset {offset}: no answer")))
    }
}

/// Returns whether a record, or the end of the partition, arrives from this offset on.
fn has_arrived(fetch: &mut FetchQueue, topic: &str, offset: i64) -> bool {
    let batch = fetch.take(Duration::from_millis(100), 100);
    let has_record = Cell::new(false);
    let is_ours = |of: &str, at| of == topic && at >= offset;
    let note = |of: &str, _, at| {
        has_record.set(has_record.get() || is_ours(of, at));
        false
    };
    batch.hand_over(note, &mut |_, _| ());
    let code = batch.error().and_then(|error| error.rdkafka_error_code());
    has_record.get()
        || batch.ends().any(|(of, _, end)| is_ours(of, end))
        || matches!(code, Some(Code::AutoOffsetReset | Code::OffsetOutOfRange))
}

/// Reads the partition from this offset. With `wants_extent`, it also looks for the end of a damaged batch.
///
/// # Errors
/// Returns the error of the client. `Retry` without an answer, or if the end of the batch is not certain.
pub(super) fn read_again(
    kafka: &KafkaSettings,
    (topic, partition): (&str, i32),
    on_oversized: OnOversized,
    offset: i64,
    wants_extent: bool,
) -> Result<RepeatedRead, Fault> {
    let probe = PartitionProbe { kafka, topic, partition, on_oversized, began: Instant::now() };
    let Some(failure) = probe.failure_from(offset)? else { return Ok(RepeatedRead::Readable) };
    if !wants_extent || !failure.is_damage {
        return Ok(RepeatedRead::Failed(failure, None));
    }
    let first = failure.what.offset;
    let is_inside = |at| Ok(probe.failure_from(at)?.is_some_and(|other| other.what.offset == first));
    let from = first.max(offset);
    let end = end_of(from, is_inside)?;
    // A wrong end would lose the records after the batch without notice, so the last offset is confirmed.
    if !is_inside(end - 1)? {
        let place = format_args!("{topic} [{partition}] offset {first}: the end of the damaged batch is not certain");
        return Err(Fault::new(Remedy::Retry, place));
    }
    Ok(RepeatedRead::Failed(failure, Some(from..end)))
}

/// Returns the offsets of the damaged batch that a read from `offset` meets first; `None` if `offset` can be read. The
/// range begins at `offset` or later, and ends with the batch.
///
/// # Errors
/// Those of the client. `Retry` if there is no certain answer.
pub(crate) fn unreadable_from(
    kafka: &KafkaSettings,
    (topic, partition): (&str, i32),
    on_oversized: OnOversized,
    offset: i64,
) -> Result<Option<Range<i64>>, Fault> {
    match read_again(kafka, (topic, partition), on_oversized, offset, true)? {
        RepeatedRead::Readable => Ok(None),
        RepeatedRead::Failed(_, Some(range)) => Ok(Some(range)),
        RepeatedRead::Failed(Failure { what, .. }, None) => Err(Fault::new(
            Remedy::Stop,
            format_args!(
                "{topic} [{partition}] cannot be read at offset {}: {}. It cannot be skipped, because the error does not tell \
                 where the damage ends, or may pass",
                what.offset, what.cause
            ),
        )),
    }
}

/// Returns the first offset after `inside` that is not inside the batch. The number of calls of `is_inside` grows with
/// the logarithm of the distance.
fn end_of<E>(mut inside: i64, mut is_inside: impl FnMut(i64) -> Result<bool, E>) -> Result<i64, E> {
    let mut step = 1;
    while is_inside(inside + step)? {
        inside += step;
        step *= 2;
    }
    let mut outside = inside + step;
    while outside - inside > 1 {
        let middle = inside + (outside - inside) / 2;
        if is_inside(middle)? {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    Ok(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_batch_is_found_with_few_reads() {
        for (from, end) in [(0, 1), (0, 2), (5, 6), (5, 8), (5, 1_000), (1_000_000, 1_050_000)] {
            let mut attempts = 0;
            let found = end_of(from, |at| {
                attempts += 1;
                Ok::<_, ()>(at < end)
            });
            assert_eq!(found, Ok(end));
            assert!(attempts <= 34, "{attempts}");
        }
    }
}
