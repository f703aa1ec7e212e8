//! The producer's side: events into `raw_events`, with back-pressure instead of loss or growth. Messages never expire:
//! an outage of minutes costs only time.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::kafka::context::DeliveryReports;
use super::kafka::{client, stranded};
use crate::config::resolved::KafkaSettings;
use crate::error::{Error, Result};

const LOOK: Duration = Duration::from_secs(1);

/// An idempotent producer on one topic.
pub struct Publisher {
    producer: BaseProducer<DeliveryReports>,
    kafka: KafkaSettings,
    topic: String,
    sent: Cell<u64>,
}

impl Publisher {
    /// Not connected yet.
    ///
    /// # Errors
    /// 78 when librdkafka does not accept the configuration.
    pub fn new(kafka: &KafkaSettings, topic: &str) -> Result<Self> {
        let mut config = client::producer(kafka);
        config.set("message.timeout.ms", "0");
        client::watched(&mut config);
        client::set_missing(
            &mut config,
            kafka,
            &[
                // Events that are refused because their partitions are not known make nobody look for these.
                client::LOOK_OFTEN,
                // Seconds of events at full speed; the bound on memory is in kilobytes.
                ("queue.buffering.max.messages", "200000"),
                ("queue.buffering.max.kbytes", "65536"),
                // An idempotent client spins while a batch is due and five events of the partition still wait for their broker:
                // batches that are longer than a broker's answer takes.
                ("linger.ms", "100"),
            ],
        );
        let producer = config
            .create_with_context(DeliveryReports::keeping_returned())
            .map_err(|e| Error::config(format_args!("kafka.properties: {e}")))?;
        Ok(Publisher { producer, kafka: kafka.clone(), topic: topic.to_owned(), sent: Cell::new(0) })
    }

    /// Whether the topic is there; [`trouble`](Self::trouble) says why not. What is sent to a missing one would be refused
    /// after a while, so look first. Waits for the cluster for a second at the most.
    pub fn has_topic(&self) -> bool {
        let trouble = &self.producer.context().trouble;
        let metadata = self.producer.client().fetch_metadata(Some(&self.topic), LOOK);
        if metadata.is_err() {
            self.producer.poll(Duration::ZERO);
            trouble.reason().into_iter().for_each(|why| trouble.set(why));
        }
        let is_there = metadata.is_ok_and(|metadata| {
            let is_missing = metadata.topics().iter().all(|topic| topic.partitions().is_empty());
            if is_missing {
                trouble.set(format!("topic {} does not exist; `anomaly topics` creates it", self.topic));
            }
            !is_missing
        });
        if is_there {
            trouble.clear();
        }
        is_there
    }

    /// Queues one event. False when the queue is full: call [`poll`](Self::poll), then try again.
    ///
    /// # Errors
    /// 65 when the event is larger than any topic takes, 69 when the client is broken.
    pub fn send(&self, key: Option<&[u8]>, value: &[u8], label: Option<&str>) -> Result<bool> {
        if !self.resend()? {
            return Ok(false);
        }
        let is_queued = self.queue(key, value, label)?;
        self.sent.set(self.sent.get() + u64::from(is_queued));
        Ok(is_queued)
    }

    /// Sends what came back, oldest first, before anything newer. False when that cannot be now.
    fn resend(&self) -> Result<bool> {
        let doubtful = self.producer.context().take_doubtful();
        if doubtful > 0 {
            tracing::warn!(
                events = doubtful,
                "events were on their way to a broker that was given up; they are sent again and may arrive twice"
            );
        }
        while let Some(back) = self.producer.context().take_returned() {
            let label = back.headers().and_then(|headers| headers.iter().find_map(|header| header.value));
            let label = label.and_then(|label| std::str::from_utf8(label).ok());
            if !self.queue(back.key(), back.payload().unwrap_or_default(), label)? {
                self.producer.context().put_back(back);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn queue(&self, key: Option<&[u8]>, value: &[u8], label: Option<&str>) -> Result<bool> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).payload(value);
        record.key = key;
        if let Some(label) = label {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "anomaly-label", value: Some(label) }));
        }
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Ok(false),
            // A broker that has just started says so of topics that it does have.
            Err((KafkaError::MessageProduction(Code::UnknownTopic | Code::UnknownPartition), _)) => Ok(false),
            Err((error @ KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => Err(Error::data(error)),
            Err((error, _)) => Err(Error::unavailable(format_args!("cannot send to {}: {error}", self.topic))),
        }
    }

    /// Serves callbacks, at most for this long.
    pub fn poll(&self, wait: Duration) {
        self.producer.poll(wait);
        stranded::rescue(self.producer.client(), &self.kafka, &self.producer.context().trouble);
    }

    /// Events delivered and refused so far, and those that still wait.
    pub fn counts(&self) -> (u64, u64, u64) {
        let (delivered, failed) = self.producer.context().counts();
        // The client's own count has its other events in it as well.
        (delivered, failed, self.sent.get().saturating_sub(delivered + failed))
    }

    /// Why the cluster cannot be used, while it cannot; or why the last event was refused.
    pub fn trouble(&self) -> Option<String> {
        let context = self.producer.context();
        if let Some(error) = context.take_failure() {
            let help = match error.rdkafka_error_code() {
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => "; `anomaly topics` creates it",
                _ => "",
            };
            return Some(format!("{} refuses events: {error}{help}", self.topic));
        }
        context.trouble.get()
    }

    /// Waits for what is queued; returns how many events are left undelivered at the deadline.
    pub fn finish(&self, limit: Duration) -> u64 {
        let deadline = Instant::now() + limit;
        while self.counts().2 > 0 && Instant::now() < deadline {
            // What cannot be sent again now stays among the undelivered.
            let _ = self.resend();
            // Short, so that what arrives is noticed at once.
            let _ = self.producer.flush(Duration::from_millis(10));
        }
        self.counts().2
    }
}
