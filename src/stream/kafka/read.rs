//! Reading a partition back outside the group.

use std::cell::Cell;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Member;
use super::fetch::Fetch;
use super::reader::CALL;
use super::{client, fault, stranded};
use crate::config::resolved::Kafka;
use crate::stream::log::{Fault, Positions, Remedy, Visit};

/// The [`History`] of one worker, made when it is needed.
pub struct Past {
    kafka: Kafka,
    group: String,
    history: Option<History>,
    /// Closing a consumer takes a tenth of a second, in which records could be judged.
    closing: Option<JoinHandle<()>>,
}

impl Past {
    /// Connects to nothing yet.
    pub fn new(kafka: &Kafka, group: &str) -> Self {
        Past { kafka: kafka.clone(), group: group.to_owned(), history: None, closing: None }
    }

    /// The one that is open, or a new one.
    pub fn history(&mut self) -> Result<&mut History, Fault> {
        match &mut self.history {
            Some(history) => Ok(history),
            none => Ok(none.insert(History::new(&self.kafka, &self.group)?)),
        }
    }

    /// It is not needed for now.
    pub fn close(&mut self) {
        if let Some(history) = self.history.take() {
            self.wait();
            self.closing = Some(std::thread::spawn(|| drop(history)));
        }
    }

    fn wait(&mut self) {
        if let Some(closing) = self.closing.take() {
            // Nothing in it panics.
            let _ = closing.join();
        }
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Two consumers of its own: one that reads a partition at a time, and one that sees what is not committed yet.
pub struct History {
    fetch: Fetch,
    consumer: BaseConsumer<Member>,
    kafka: Kafka,
    /// For ends only.
    eager: BaseConsumer<Member>,
    topic: String,
    partition: i32,
    next: i64,
    to: i64,
}

impl History {
    /// Reads nothing yet.
    pub fn new(kafka: &Kafka, group: &str) -> Result<Self, Fault> {
        let open = |isolation| {
            // librdkafka assigns only to consumers with a group; this one never joins it.
            let mut config = client::reader(kafka);
            config.set("group.id", group).set("isolation.level", isolation);
            // A fetch that waits at the end of one partition holds up the first of the next.
            config.set("fetch.wait.max.ms", "20");
            client::watched(&mut config);
            let context = Member::new("");
            context.close();
            config.create_with_context(context).map_err(|e| fault::of("opening a reader", &e))
        };
        let (consumer, eager) = (open("read_committed")?, open("read_uncommitted")?);
        Ok(History {
            fetch: Fetch::new(&consumer),
            consumer,
            kafka: kafka.clone(),
            eager,
            topic: String::new(),
            partition: 0,
            next: 0,
            to: 0,
        })
    }

    /// First offset, and the one after the last, open transactions included.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        self.eager.fetch_watermarks(topic, partition, CALL)
    }

    /// Begins at an offset, to end before `to`. `Retry` while transactions before `to` are open, also when only their
    /// markers are missing: once it has begun, every end that is met is beyond `to`.
    pub fn start(&mut self, topic: &str, partition: i32, next: i64, to: i64) -> Result<(), Fault> {
        let (_, stable) = self
            .consumer
            .fetch_watermarks(topic, partition, CALL)
            .map_err(|e| fault::of("waiting for open transactions", &e))?;
        if stable < to {
            return Err(Fault::new(Remedy::Retry, format_args!("{topic} [{partition}] has an open transaction")));
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(next)).map_err(|e| fault::of("reading back", &e))?;
        self.fetch.lead(&self.consumer, topic, [partition]);
        self.consumer.assign(&list).map_err(|e| fault::of("reading back", &e))?;
        (self.topic, self.partition, self.next, self.to) = (topic.to_owned(), partition, next, to);
        Ok(())
    }

    /// Hands over what is there before `to`; returns the next offset, `to` at the end.
    pub fn read(&mut self, visit: &mut Visit<'_>) -> Result<i64, Fault> {
        // Callbacks; records come by the queue.
        let called = self.consumer.poll(Duration::ZERO).map(|message| message.map(drop));
        stranded::rescue(self.consumer.client(), &self.kafka, &self.consumer.context().trouble);
        let batch = self.fetch.take(Duration::from_millis(100), 10_000);
        // Another partition's may be left from before the last start; and the last offsets before the end may be markers,
        // which are never handed over.
        let (topic, partition, to) = (&self.topic, self.partition, self.to);
        let (next, is_beyond) = (Cell::new(self.next), Cell::new(false));
        batch.hand_over(
            |of, in_partition, offset| {
                let is_ours = of == topic && in_partition == partition;
                is_beyond.set(is_beyond.get() || is_ours && offset >= to);
                let is_wanted = is_ours && offset < to;
                if is_wanted {
                    next.set(offset + 1);
                }
                is_wanted
            },
            visit,
        );
        let error = batch.error().or(called.and_then(Result::err));
        let mut ended = Positions::new();
        batch.note_ends(&mut ended);
        self.next = if is_beyond.get() || !ended.is_empty() { to } else { next.get() };
        match error {
            Some(error) if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) => {
                return Err(Fault::new(Remedy::Rebuild, "reading back: the topic's retention has passed by"));
            }
            Some(error) => tracing::debug!("reading back: {error}"),
            None => {}
        }
        Ok(self.next.min(self.to))
    }
}
