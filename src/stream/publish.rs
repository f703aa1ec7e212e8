//! Publishes events to `raw_events`. A full queue slows the source down; events are neither lost nor queued without
//! limit. Messages never expire: an outage of minutes only delays them.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::kafka::context::DeliveryReports;
use super::kafka::{client, fault, stranded};
use crate::config::resolved::KafkaSettings;
use crate::error::{Error, Result};

/// Timeout of the request for the topic's metadata.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two requests for the metadata while events are returned.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What the cluster says about the topic.
enum TopicAnswer {
    /// It has partitions.
    Exists,
    /// The cluster does not know it.
    Missing,
    /// The cluster does not describe it, for this reason.
    Refused(String),
    /// The cluster does not answer.
    None,
}

/// An idempotent producer of events for one topic.
pub(crate) struct Publisher {
    producer: BaseProducer<DeliveryReports>,
    kafka: KafkaSettings,
    topic: String,
    sent: Cell<u64>,
    /// Reason for the last refused event, and the number of delivered ones at that time.
    refusal: RefCell<Option<(String, u64)>>,
    /// When the cluster was last asked for the topic because events were returned, and whether the topic was missing.
    asked: Cell<Option<Instant>>,
    is_missing: Cell<bool>,
}

impl Publisher {
    /// Creates a producer without connecting.
    ///
    /// # Errors
    /// 78 if librdkafka does not accept the configuration.
    pub(crate) fn new(kafka: &KafkaSettings, topic: &str) -> Result<Self> {
        let mut config = client::producer(kafka);
        config.set("message.timeout.ms", "0");
        client::watched(&mut config);
        client::set_missing(
            &mut config,
            kafka,
            &[
                // Refused events with unknown partitions do not cause a metadata request.
                client::LOOK_OFTEN,
                // This is enough for some seconds of events at full speed. Another limit, in kilobytes, restricts the
                // memory.
                ("queue.buffering.max.messages", "200000"),
                ("queue.buffering.max.kbytes", "65536"),
                // An idempotent client spins if a batch is due and five batches of the partition still wait for their
                // broker. These batches take longer than an answer of a broker.
                ("linger.ms", "100"),
            ],
        );
        let producer = config
            .create_with_context(DeliveryReports::keeping_returned())
            .map_err(|e| Error::config(format_args!("kafka.properties: {e}")))?;
        Ok(Publisher {
            producer,
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            sent: Cell::new(0),
            refusal: RefCell::default(),
            asked: Cell::default(),
            is_missing: Cell::default(),
        })
    }

    /// Returns whether the topic exists. If not, [`trouble`](Self::trouble) returns the reason. Events to a missing
    /// topic are refused only after a while, so check first. Waits at most a second for the cluster.
    pub(crate) fn has_topic(&self) -> bool {
        let trouble = &self.producer.context().trouble;
        match self.ask() {
            TopicAnswer::Exists => {
                trouble.clear();
                return true;
            }
            TopicAnswer::Missing => trouble.set(fault::missing(&self.topic)),
            TopicAnswer::Refused(why) => trouble.set(why),
            TopicAnswer::None => {
                self.producer.poll(Duration::ZERO);
                trouble.reason().into_iter().for_each(|why| trouble.set(why));
            }
        }
        false
    }

    /// Asks the cluster for the topic. Waits at most a second.
    fn ask(&self) -> TopicAnswer {
        let Ok(metadata) = self.producer.client().fetch_metadata(Some(&self.topic), LOOK) else {
            return TopicAnswer::None;
        };
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic) else {
            return TopicAnswer::Missing;
        };
        match topic.error().map(Code::from) {
            None if !topic.partitions().is_empty() => TopicAnswer::Exists,
            None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => TopicAnswer::Missing,
            Some(code) => TopicAnswer::Refused(format!("topic {}: {code}", self.topic)),
        }
    }

    /// Names the topic as the reason of returned events if the cluster does not know it. librdkafka returns them with the
    /// error of a lost broker then. No answer is no evidence that the topic is missing.
    fn find_missing(&self) {
        let context = self.producer.context();
        if context.is_returning() && self.asked.get().is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            let answer = self.ask();
            self.asked.set(Some(Instant::now()));
            self.is_missing.set(matches!(answer, TopicAnswer::Missing));
        } else if !context.is_returning() {
            self.asked.set(None);
            self.is_missing.set(false);
        }
    }

    /// Queues one event. Returns false if the queue is full: call [`poll`](Self::poll), then try again.
    ///
    /// # Errors
    /// 65 if the event is larger than any topic accepts, 69 if the client is broken.
    pub(crate) fn send(&self, key: Option<&[u8]>, value: &[u8], label: Option<&str>) -> Result<bool> {
        if !self.resend()? {
            return Ok(false);
        }
        let is_queued = self.queue(key, value, label)?;
        self.sent.set(self.sent.get() + u64::from(is_queued));
        Ok(is_queued)
    }

    /// Sends returned events again, oldest first, before newer ones. Returns false if that is not possible now.
    fn resend(&self) -> Result<bool> {
        let doubtful = self.producer.context().take_doubtful();
        if doubtful > 0 {
            tracing::warn!(
                events = doubtful,
                "events were in flight to a broker that left the cluster; they are sent again and may arrive twice"
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
            // A broker that has just started reports this for existing topics too.
            Err((KafkaError::MessageProduction(Code::UnknownTopic | Code::UnknownPartition), _)) => Ok(false),
            Err((error @ KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => Err(Error::data(error)),
            Err((error, _)) => Err(Error::unavailable(format_args!("cannot send to {}: {error}", self.topic))),
        }
    }

    /// Serves callbacks for at most this time.
    pub(crate) fn poll(&self, wait: Duration) {
        self.producer.poll(wait);
        stranded::rescue(self.producer.client(), &self.kafka, &self.producer.context().trouble);
    }

    /// Returns the number of delivered and refused events so far, and of waiting ones.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let (delivered, failed) = self.producer.context().counts();
        // The client's own count includes other events.
        (delivered, failed, self.sent.get().saturating_sub(delivered + failed))
    }

    /// Returns why the cluster is unavailable, or why the last event was refused. An error ends when an event is
    /// delivered.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.find_missing();
        let context = self.producer.context();
        let (delivered, _) = context.counts();
        let mut refusal = self.refusal.borrow_mut();
        if let Some((error, _)) = context.take_failure() {
            let help = match error.rdkafka_error_code() {
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => "; `anomaly topics` creates it",
                _ => "",
            };
            *refusal = Some((format!("{} refuses events: {error}{help}", self.topic), delivered));
        }
        refusal.take_if(|(_, before)| delivered > *before);
        let missing = || self.is_missing.get().then(|| fault::missing(&self.topic));
        refusal.as_ref().map(|(why, _)| why.clone()).or_else(missing).or_else(|| context.trouble.get())
    }

    /// Waits for the queued events; returns the number of undelivered ones at the deadline.
    pub(crate) fn finish(&self, limit: Duration) -> u64 {
        let deadline = Instant::now() + limit;
        while self.counts().2 > 0 && Instant::now() < deadline {
            // Events that cannot be sent again now remain undelivered.
            let _ = self.resend();
            // A short wait notices deliveries at once.
            let _ = self.producer.flush(Duration::from_millis(10));
        }
        self.counts().2
    }
}
