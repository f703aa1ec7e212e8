//! Taking records out of a consumer, and reading a partition back outside the group.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::context::Member;
use super::{client, fault};
use crate::config::resolved::Kafka;
use crate::stream::log::{Fault, Record, Remedy, Visit};

/// A consumer of its own, on one partition at a time.
pub struct History {
    consumer: BaseConsumer<Member>,
    next: i64,
    to: i64,
}

impl History {
    /// Reads nothing yet.
    pub fn new(kafka: &Kafka, topic: &str, group: &str) -> Result<Self, Fault> {
        // librdkafka assigns only to consumers with a group; this one never joins it.
        let mut config = client::reader(kafka);
        config.set("group.id", group);
        // A fetch that waits at the end of one partition holds up the first of the next.
        config.set("fetch.wait.max.ms", "20");
        let context = Member::new(topic);
        context.close();
        let consumer = config.create_with_context(context).map_err(|e| fault::of("opening a reader", &e))?;
        Ok(History { consumer, next: 0, to: 0 })
    }

    /// Begins at the list's only partition and offset, to end before `to`.
    pub fn from(self, list: &TopicPartitionList, next: i64, to: i64) -> Result<Self, Fault> {
        self.consumer.assign(list).map_err(|e| fault::of("reading back", &e))?;
        Ok(History { next, to, ..self })
    }

    /// Hands over what is there; returns the next offset, `to` at the end.
    pub fn read(&mut self, visit: &mut Visit<'_>) -> Result<i64, Fault> {
        let (messages, error) = drain(&self.consumer, Duration::from_millis(100), 10_000);
        hand_over(&messages, visit);
        if let Some(last) = messages.last() {
            self.next = last.offset() + 1;
        }
        match error {
            // Control records at the end are never handed over: the end of the partition is the end.
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
