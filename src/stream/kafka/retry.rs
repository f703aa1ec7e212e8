//! A fetch queue that reads failed partitions again, on a thread for each read, so that the other partitions do not wait.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::attempt::read_again;
use super::context::ConsumerEvents;
use super::failed::{DueRead, FailedPartitions, RepeatedRead};
use super::fault;
use super::fetch::{FetchQueue, FetchedBatch, OnOversized};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{Fault, Positions, ReadFailures, Remedy};

/// Timeout of a seek. Only librdkafka's own thread answers it.
const SEEK: Duration = Duration::from_secs(1);

/// A fetch queue, and the reads of its failed partitions by other clients. It must be dropped before the consumer.
pub(super) struct RetriedFetch {
    queue: FetchQueue,
    /// A thread returns `None` without an answer. Threads that are not awaited end by themselves.
    reads: BTreeMap<i32, JoinHandle<Option<RepeatedRead>>>,
}

impl RetriedFetch {
    /// Creates a queue without partitions.
    pub(crate) fn new(consumer: &BaseConsumer<ConsumerEvents>) -> Self {
        RetriedFetch { queue: FetchQueue::new(consumer), reads: BTreeMap::new() }
    }

    /// Forwards the records of these partitions to this queue; see [`FetchQueue::lead`].
    pub(crate) fn lead(
        &mut self,
        consumer: &BaseConsumer<ConsumerEvents>,
        topic: &str,
        on_oversized: OnOversized,
        from: Positions,
    ) {
        self.reads.clear();
        self.queue.lead(consumer, topic, on_oversized, from);
    }

    /// Discards all failures, because the partitions are given back.
    pub(crate) fn forget_all(&mut self) {
        self.reads.clear();
        self.queue.failed = FailedPartitions::default();
    }

    /// Discards the failure of a partition that need not be read further.
    pub(crate) fn forget(&mut self, partition: i32) {
        self.reads.remove(&partition);
        self.queue.failed.forget(partition);
    }

    /// Takes messages; see [`FetchQueue::take`].
    pub(crate) fn take(&mut self, wait: Duration, most: usize) -> FetchedBatch<'_> {
        self.queue.take(wait, most)
    }

    /// Returns the failures to report.
    pub(crate) fn failures(&self) -> ReadFailures {
        self.queue.failed.failures()
    }

    /// Returns the offset at which a partition has failed, also after a single failed read.
    pub(crate) fn failed_at(&self, partition: i32) -> Option<i64> {
        self.queue.failed.failure(partition).map(|failure| failure.what.offset)
    }

    /// Skips a damaged batch; see [`FailedPartitions::skip`].
    pub(crate) fn skip(&mut self, partition: i32) -> Option<Range<i64>> {
        self.queue.failed.skip(Instant::now(), partition)
    }

    /// Notes that partitions must be read from these offsets. Returns those to which the consumer must seek. The others have
    /// failed, and are read again by another client first.
    pub(crate) fn rewind(&mut self, to: &Positions) -> Positions {
        let failed = &mut self.queue.failed;
        failed.rewind(Instant::now(), to);
        to.iter().filter(|(partition, _)| !failed.is_stopped(**partition)).map(|(at, next)| (*at, *next)).collect()
    }

    /// Pauses partitions that have failed, and lets another client read those that are due. If it succeeds, the consumer
    /// continues with the partition. Call it before each [`RetriedFetch::take`].
    ///
    /// # Errors
    /// `Rebuild` if librdkafka has given the partition up. Then only a new consumer can read it.
    pub(crate) fn retry(
        &mut self,
        consumer: &BaseConsumer<ConsumerEvents>,
        kafka: &KafkaSettings,
        topic: &str,
    ) -> Result<(), Fault> {
        let on_oversized = self.queue.on_oversized;
        let failed = &mut self.queue.failed;
        if failed.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let mut paused = TopicPartitionList::new();
        for partition in failed.take_new(now) {
            paused.add_partition(topic, partition);
        }
        if paused.count() > 0 {
            // The pause only saves fetches whose records would be discarded.
            let _ = consumer.pause(&paused);
        }
        for due in failed.take_due(now) {
            let partition = due.partition;
            match start(kafka.clone(), topic.to_owned(), on_oversized, due) {
                Ok(thread) => drop(self.reads.insert(partition, thread)),
                // The process has too many threads. This counts as a read without an answer.
                Err(_) => drop(failed.note_read(now, partition, None)),
            }
        }
        let ended = self.reads.extract_if(.., |_, thread| thread.is_finished()).collect::<Vec<_>>();
        let mut readable = TopicPartitionList::new();
        for (partition, thread) in ended {
            // The thread's code does not panic.
            let result = thread.join().unwrap_or_default();
            if let Some(next) = failed.note_read(now, partition, result) {
                readable
                    .add_partition_offset(topic, partition, Offset::Offset(next))
                    .map_err(|e| fault::of("continuing", &e).or_rebuild())?;
            }
        }
        if readable.count() == 0 { Ok(()) } else { proceed(consumer, readable) }
    }
}

/// Starts a read by another client.
fn start(
    kafka: KafkaSettings,
    topic: String,
    on_oversized: OnOversized,
    due: DueRead,
) -> io::Result<JoinHandle<Option<RepeatedRead>>> {
    std::thread::Builder::new().name("read-again".into()).spawn(move || {
        let DueRead { partition, from, wants_extent } = due;
        let read = read_again(&kafka, (&topic, partition), on_oversized, from, wants_extent);
        read.inspect_err(|fault| tracing::debug!(topic, partition, from, "reading again: {fault}")).ok()
    })
}

/// Continues with partitions at these offsets.
fn proceed(consumer: &BaseConsumer<ConsumerEvents>, at: TopicPartitionList) -> Result<(), Fault> {
    let rebuild =
        |e| Fault::new(Remedy::Rebuild, format_args!("a partition can be read again, which needs a new client: {e}"));
    consumer.resume(&at).map_err(rebuild)?;
    let sought = consumer.seek_partitions(at, SEEK).map_err(rebuild)?;
    sought.elements().iter().try_for_each(|element| element.error().map_err(rebuild))
}
