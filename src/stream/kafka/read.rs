//! Taking records out of a consumer, and reading a partition back outside the group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Member;
use super::real::CALL;
use super::{client, fault};
use crate::config::resolved::Kafka;
use crate::stream::log::{Fault, Record, Remedy, Visit};

/// Two consumers of its own: one that reads a partition at a time, and one that sees what is not committed yet.
pub struct History {
    consumer: BaseConsumer<Member>,
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
            let context = Member::new("");
            context.close();
            config.create_with_context(context).map_err(|e| fault::of("opening a reader", &e))
        };
        let (consumer, eager) = (open("read_committed")?, open("read_uncommitted")?);
        Ok(History { consumer, eager, topic: String::new(), partition: 0, next: 0, to: 0 })
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
        self.consumer.assign(&list).map_err(|e| fault::of("reading back", &e))?;
        (self.topic, self.partition, self.next, self.to) = (topic.to_owned(), partition, next, to);
        Ok(())
    }

    /// Hands over what is there before `to`; returns the next offset, `to` at the end.
    pub fn read(&mut self, visit: &mut Visit<'_>) -> Result<i64, Fault> {
        let (mut messages, error) = drain(&self.consumer, Duration::from_millis(100), 10_000);
        // Another partition's, from before the last start.
        messages.retain(|message| message.topic() == self.topic && message.partition() == self.partition);
        // The last offsets before the end may be markers, which are never handed over.
        let is_beyond = messages.iter().any(|message| message.offset() >= self.to);
        messages.retain(|message| message.offset() < self.to);
        hand_over(&messages, visit);
        if let Some(last) = messages.last() {
            self.next = last.offset() + 1;
        }
        if is_beyond {
            self.next = self.to;
        }
        match error {
            Some(KafkaError::PartitionEOF(_)) => self.next = self.to,
            Some(error) if error.rdkafka_error_code() == Some(Code::AutoOffsetReset) => {
                return Err(Fault::new(Remedy::Rebuild, "reading back: the topic's retention has passed by"));
            }
            Some(error) => tracing::debug!("reading back: {error}"),
            None => {}
        }
        Ok(self.next.min(self.to))
    }
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    let label = message.headers().and_then(|headers| {
        headers
            .iter()
            .find(|header| header.key == "anomaly-label")
            .and_then(|header| std::str::from_utf8(header.value?).ok())
    });
    Record {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().filter(|millis| *millis >= 0),
        key: message.key(),
        value: message.payload(),
        label,
    }
}

/// Takes what is there, waiting only for the first; stops early at an error, which it returns beside the records.
pub fn drain<'c>(
    consumer: &'c BaseConsumer<Member>,
    wait: Duration,
    most: usize,
) -> (Vec<BorrowedMessage<'c>>, Option<KafkaError>) {
    let mut messages = Vec::new();
    let mut wait = wait;
    while messages.len() < most {
        match consumer.poll(wait) {
            Some(Ok(message)) => messages.push(message),
            Some(Err(error)) => return (messages, Some(error)),
            None => break,
        }
        wait = Duration::ZERO;
    }
    (messages, None)
}

/// Hands runs of one partition over.
pub fn hand_over(messages: &[BorrowedMessage<'_>], visit: &mut Visit<'_>) {
    for run in messages.chunk_by(|a, b| a.partition() == b.partition()) {
        let records = run.iter().map(record).collect::<Vec<_>>();
        visit(run[0].partition(), &records);
    }
}
