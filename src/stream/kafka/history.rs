//! Reads partitions outside of the consumer group, many at the same time.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::batch_progress::BatchProgress;
use super::closing::{self, Closing};
use super::consumer::CALL_TIMEOUT;
use super::context::ConsumerEvents;
use super::fetch::OnOversized;
use super::policy::{self, PolicyAnswer};
use super::retry::RetriedFetch;
use super::{client, fault, stranded};
use crate::config::resolved::{KafkaSettings, TopicSettings};
use crate::stream::client::{
    ClusterConnection, Fault, HistoryReader, HistoryTopic, OffsetRanges, Positions, ReadFailures, RecordVisitor, Remedy,
};

/// Implements [`HistoryReader`] for the topics with these names. Its consumers are created when needed.
pub(crate) struct KafkaHistoryClient {
    kafka: KafkaSettings,
    topics: TopicSettings,
    group: String,
    began: Instant,
    history: Option<KafkaHistory>,
    /// Thread that closes the consumers. Closing takes 0.1 s, during which a worker can judge records.
    closing: Option<Closing>,
}

impl KafkaHistoryClient {
    /// Creates a client that is not connected yet. It never joins the group.
    pub(crate) fn new(kafka: &KafkaSettings, topics: &TopicSettings, group: &str) -> Self {
        KafkaHistoryClient {
            kafka: kafka.clone(),
            topics: topics.clone(),
            group: group.to_owned(),
            began: Instant::now(),
            history: None,
            closing: None,
        }
    }

    fn topic(&self, of: HistoryTopic) -> &str {
        match of {
            HistoryTopic::Input => &self.topics.raw_events,
            HistoryTopic::State => &self.topics.state,
            HistoryTopic::DeadLetters => &self.topics.dead_letter,
        }
    }

    /// Returns the open reader, or opens one if there is none.
    fn history(&mut self) -> Result<&mut KafkaHistory, Fault> {
        match &mut self.history {
            Some(history) => Ok(history),
            none => Ok(none.insert(KafkaHistory::new(&self.kafka, &self.group)?)),
        }
    }
}

impl Drop for KafkaHistoryClient {
    fn drop(&mut self) {
        self.close_history();
    }
}

impl ClusterConnection for KafkaHistoryClient {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn trouble(&self) -> Option<String> {
        self.history.as_ref().and_then(|history| history.consumer.context().trouble.get())
    }
}

impl HistoryReader for KafkaHistoryClient {
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault> {
        let topic = self.topic(of).to_owned();
        let bounds = self.history()?.bounds(&topic, partitions, of != HistoryTopic::Input);
        bounds.map_err(|error| match error.rdkafka_error_code() {
            Some(Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopic)
                if of == HistoryTopic::State =>
            {
                let input = &self.topics.raw_events;
                Fault::new(
                    Remedy::Rebuild,
                    format_args!(
                        "topic {topic} does not exist, or has fewer partitions than {input}; run `anomaly topics`"
                    ),
                )
            }
            _ => fault::of(&format!("ends of {topic}"), &error),
        })
    }

    fn cleanup_policy(&mut self, of: HistoryTopic) -> Result<Option<String>, Fault> {
        let topic = self.topic(of).to_owned();
        let client = self.history()?.consumer.client().native_ptr();
        match policy::cleanup_policy(client, &topic, CALL_TIMEOUT) {
            PolicyAnswer::Known(policy) => Ok(Some(policy)),
            PolicyAnswer::Refused => Ok(None),
            PolicyAnswer::TimedOut => {
                Err(Fault::new(Remedy::Retry, format_args!("no answer about the configuration of {topic}")))
            }
        }
    }

    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault> {
        let topic = self.topic(of).to_owned();
        let on_oversized = if of == HistoryTopic::Input { OnOversized::Deliver } else { OnOversized::Fail };
        self.history()?.start(&topic, on_oversized, ranges)
    }

    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault> {
        self.history()?.read(visit)
    }

    fn history_failures(&self) -> ReadFailures {
        self.history.as_ref().map(KafkaHistory::failures).unwrap_or_default()
    }

    fn skip_history(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault> {
        self.history()?.skip(partition)
    }

    /// Closes the consumers in the background.
    fn close_history(&mut self) {
        if let Some(history) = self.history.take() {
            // Only one client closes at a time.
            self.closing = None;
            self.closing = Some(closing::close(history));
        }
    }
}

/// Interval between two checks of open transactions.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for an open transaction. A detector's transaction never stays open that long.
const MAX_TRANSACTION_WAIT: Duration = Duration::from_secs(15);

/// Reads ranges of partitions with two consumers: one reads committed records, the other sees the ends of open
/// transactions.
pub(crate) struct KafkaHistory {
    fetch: RetriedFetch,
    consumer: BaseConsumer<ConsumerEvents>,
    kafka: KafkaSettings,
    group: String,
    /// Consumer that reads uncommitted records, used only to find end offsets.
    eager: BaseConsumer<ConsumerEvents>,
    topic: String,
    on_oversized: OnOversized,
    /// Ranges that are still to be read.
    left: OffsetRanges,
    /// Partitions that wait for an open transaction before the end of their range. They are read only afterwards. So an
    /// end that the consumer reaches is always at or beyond the end of the range.
    waiting: BTreeSet<i32>,
    began: Instant,
    looked: Option<Instant>,
}

/// Opens a consumer outside of the group.
fn open(kafka: &KafkaSettings, group: &str, isolation: &str) -> Result<BaseConsumer<ConsumerEvents>, Fault> {
    // librdkafka can assign partitions only to a consumer with a group id; this consumer never joins the group.
    let mut config = client::reader(kafka);
    config.set("group.id", group).set("isolation.level", isolation);
    // A fetch that waits at the end of one partition delays the first fetch of the next.
    config.set("fetch.wait.max.ms", "20");
    // The other consumer only answers requests. It is never polled, so its statistics would fill the memory.
    if isolation == "read_committed" {
        client::watched(&mut config);
    }
    let context = ConsumerEvents::new("");
    context.close();
    config.create_with_context(context).map_err(|e| fault::of("opening a reader", &e))
}

impl KafkaHistory {
    /// Creates a reader without ranges.
    pub(crate) fn new(kafka: &KafkaSettings, group: &str) -> Result<Self, Fault> {
        let (consumer, eager) = (open(kafka, group, "read_committed")?, open(kafka, group, "read_uncommitted")?);
        Ok(KafkaHistory {
            fetch: RetriedFetch::new(&consumer),
            consumer,
            kafka: kafka.clone(),
            group: group.to_owned(),
            eager,
            topic: String::new(),
            on_oversized: OnOversized::Fail,
            left: OffsetRanges::new(),
            waiting: BTreeSet::new(),
            began: Instant::now(),
            looked: None,
        })
    }

    /// Requests the offsets that each partition has. With `all`, the ends include open transactions. Each broker gets
    /// one request for the first offsets and one for the ends.
    pub(crate) fn bounds(&self, topic: &str, partitions: &[i32], all: bool) -> Result<OffsetRanges, KafkaError> {
        let consumer = if all { &self.eager } else { &self.consumer };
        let find = |which: Offset| -> Result<Positions, KafkaError> {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition_offset(topic, *partition, which)?;
            }
            // Two special offsets replace the times in this request: librdkafka passes them on as the protocol defines
            // them.
            let found = consumer.offsets_for_times(list, CALL_TIMEOUT)?;
            let offset = |element: TopicPartitionListElem<'_>| {
                element.error()?;
                Ok((element.partition(), element.offset().to_raw().unwrap_or_default()))
            };
            found.elements().into_iter().map(offset).collect()
        };
        if partitions.is_empty() {
            return Ok(OffsetRanges::new());
        }
        let (first, last) = (find(Offset::Beginning)?, find(Offset::End)?);
        let range = |(partition, first)| Some((partition, first..*last.get(&partition)?));
        Ok(first.into_iter().filter_map(range).collect())
    }

    /// Starts reading these ranges instead of the earlier ones.
    pub(crate) fn start(&mut self, topic: &str, on_oversized: OnOversized, ranges: &OffsetRanges) -> Result<(), Fault> {
        self.fetch.forget_all();
        (self.topic, self.on_oversized, self.left) = (topic.to_owned(), on_oversized, ranges.clone());
        (self.waiting, self.began, self.looked) = (ranges.keys().copied().collect(), Instant::now(), None);
        self.admit()
    }

    /// Starts fetching the waiting partitions whose transactions have ended.
    fn admit(&mut self) -> Result<(), Fault> {
        if self.waiting.is_empty() || self.looked.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let waiting = self.waiting.iter().copied().collect::<Vec<_>>();
        let stable =
            self.bounds(&self.topic, &waiting, false).map_err(|e| fault::of("waiting for open transactions", &e))?;
        let is_open = |partition: &i32| {
            let end = |ranges: &OffsetRanges| ranges.get(partition).map_or(i64::MAX, |range| range.end);
            end(&stable) < end(&self.left)
        };
        self.waiting.retain(is_open);
        if let Some(partition) = self.waiting.first().filter(|_| self.began.elapsed() > MAX_TRANSACTION_WAIT) {
            return Err(Fault::new(
                Remedy::Rebuild,
                format_args!("{} [{partition}] has an open transaction", self.topic),
            ));
        }
        if self.waiting.len() == waiting.len() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        let fetched = self.left.iter().filter(|(partition, _)| !self.waiting.contains(partition));
        for (partition, range) in fetched.clone() {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(range.start))
                .map_err(|e| fault::of("reading back", &e))?;
        }
        let from = fetched.map(|(partition, range)| (*partition, range.start)).collect();
        self.fetch.lead(&self.consumer, &self.topic, self.on_oversized, from);
        // A paused partition stays paused when it is assigned again.
        self.consumer.resume(&list).map_err(|e| fault::of("reading back", &e))?;
        self.consumer.assign(&list).map_err(|e| fault::of("reading back", &e))
    }

    /// Passes the available records to `visit`. Returns the next offset of each partition that advanced.
    pub(crate) fn read(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault> {
        // This serves callbacks; records arrive through the fetch queue.
        let called = self.consumer.poll(Duration::ZERO).map(|message| message.map(drop));
        stranded::rescue(self.consumer.client(), &self.kafka, &self.consumer.context().trouble);
        self.admit()?;
        if let Err(fault) = self.fetch.retry(&self.consumer, &self.kafka, &self.topic) {
            tracing::debug!("reading back: {fault}");
            self.reopen()?;
        }
        let batch = self.fetch.take(if self.waiting.is_empty() { CHECK_INTERVAL * 2 } else { CHECK_INTERVAL }, 10_000);
        let (topic, progress) = (&self.topic, BatchProgress::new(&self.left));
        // The queue may still contain records of an earlier topic or assignment.
        batch.hand_over(|of, partition, offset| of == topic && progress.wants(partition, offset), visit);
        // The last offsets before the end may be transaction markers, which librdkafka never delivers.
        batch.ends().filter(|(of, ..)| of == topic).for_each(|(_, partition, end)| progress.meet(partition, end));
        let error = batch.error().or(called.and_then(Result::err));
        let mut moved = progress.moved();
        drop(batch);
        // Records arrive in order, so a failure after a range shows that the range was read.
        let is_passed = |(partition, range): &(&i32, &Range<i64>)| {
            self.fetch.failed_at(**partition).is_some_and(|offset| offset >= range.end)
        };
        moved.extend(self.left.iter().filter(is_passed).map(|(partition, range)| (*partition, range.end)));
        self.note(&moved)?;
        match error {
            Some(error) if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) => {
                return Err(Fault::new(Remedy::Rebuild, "reading back: the topic's retention has deleted the offset"));
            }
            Some(error) if error.rdkafka_error_code() == Some(Code::TopicAuthorizationFailed) => {
                self.consumer.context().trouble.set(format!("no permission to read {}: {error}", self.topic));
            }
            Some(error) => tracing::debug!("reading back: {error}"),
            None => {}
        }
        Ok(moved)
    }

    /// Returns the failures of the partitions that are still read.
    fn failures(&self) -> ReadFailures {
        let mut failures = self.fetch.failures();
        failures.retain(|partition, failure| self.left.get(partition).is_some_and(|left| failure.offset < left.end));
        failures
    }

    /// Skips the damaged batch at which a partition cannot be read, within its range.
    fn skip(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault> {
        let Some(end) = self.left.get(&partition).map(|left| left.end) else { return Ok(None) };
        let Some(range) = self.fetch.skip(partition) else { return Ok(None) };
        let range = range.start.min(end)..range.end.min(end);
        self.note(&Positions::from([(partition, range.end)]))?;
        Ok(Some(range))
    }

    /// Reads the rest of the ranges with a new consumer, because the old one has given a partition up.
    fn reopen(&mut self) -> Result<(), Fault> {
        let consumer = open(&self.kafka, &self.group, "read_committed")?;
        // The old queue is dropped before the old consumer.
        self.fetch = RetriedFetch::new(&consumer);
        self.consumer = consumer;
        let (topic, left) = (self.topic.clone(), self.left.clone());
        self.start(&topic, self.on_oversized, &left)
    }

    /// Advances the ranges, and stops fetching partitions whose range is complete.
    fn note(&mut self, moved: &Positions) -> Result<(), Fault> {
        let mut done = TopicPartitionList::new();
        for (partition, next) in moved {
            let Some(range) = self.left.get_mut(partition) else { continue };
            range.start = *next;
            if range.is_empty() {
                self.left.remove(partition);
                self.fetch.forget(*partition);
                done.add_partition(&self.topic, *partition);
            }
        }
        if done.count() > 0 {
            self.consumer.pause(&done).map_err(|e| fault::of("reading back", &e))?;
        }
        Ok(())
    }
}
