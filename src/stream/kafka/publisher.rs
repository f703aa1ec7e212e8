//! Publishes events to `raw_events`. A full queue slows the source down; events are neither lost nor queued without
//! limit. Messages never expire: an outage of minutes only delays them.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::context::DeliveryReports;
use super::identity::KnownTopics;
use super::topic::{self, TopicAnswer};
use super::undelivered::Undelivered;
use super::{client, closing, fault, stranded};
use crate::config::resolved::KafkaSettings;
use crate::error::{Error, Result};

/// Timeout of the request for the topic's metadata.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two requests for the metadata while events are returned.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Time without a delivery after which the id of the topic is compared, and between two comparisons.
const STALL: Duration = Duration::from_secs(10);
/// Longest wait for the events that a replaced client returns.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);

/// An idempotent producer of events for one topic.
pub(crate) struct Publisher {
    producer: BaseProducer<DeliveryReports>,
    kafka: KafkaSettings,
    topic: String,
    sent: Cell<u64>,
    /// Reason for the last refused event, and the number of delivered ones at that time.
    refusal: RefCell<Option<(String, u64)>>,
    /// The last request for the topic since events are returned. `None` if none are.
    asked: Cell<Option<TopicRequest>>,
    /// Id of the topic when this client began to use it.
    known: RefCell<KnownTopics>,
    undelivered: Undelivered,
    /// Time of the last comparison of the topic's id.
    compared: Instant,
}

/// A request for the topic because events were returned.
#[derive(Debug, Clone, Copy)]
struct TopicRequest {
    at: Instant,
    /// Whether the topic was missing in the last answer.
    is_missing: bool,
}

impl Publisher {
    /// Creates a producer without connecting.
    ///
    /// # Errors
    /// 78 if librdkafka does not accept the configuration.
    pub(crate) fn new(kafka: &KafkaSettings, topic: &str) -> Result<Self> {
        Ok(Publisher {
            producer: create(kafka)?,
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            sent: Cell::new(0),
            refusal: RefCell::default(),
            asked: Cell::default(),
            known: RefCell::default(),
            undelivered: Undelivered::new(Instant::now()),
            compared: Instant::now(),
        })
    }

    /// Returns whether the topic exists. If not, [`trouble`](Self::trouble) returns the reason. Events to a missing
    /// topic are refused only after a while, so check first. Waits at most a second for the cluster.
    pub(crate) fn has_topic(&self) -> bool {
        let trouble = &self.producer.context().trouble;
        match self.ask() {
            TopicAnswer::Exists => {
                trouble.clear();
                self.note_topic();
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

    /// Reads the id of the topic.
    fn note_topic(&self) {
        let client = self.producer.client().native_ptr();
        *self.known.borrow_mut() = KnownTopics::read(client, [self.topic.as_str()]);
    }

    /// Notes how long events have waited. Replaces the client if they wait because the topic was created again: see
    /// [`KnownTopics`]. The waiting events are sent again. Call it several times a second.
    pub(crate) fn renew(&mut self) {
        let (delivered, _, waiting) = self.counts();
        self.undelivered.note(delivered, waiting, Instant::now());
        if self.undelivered.stood() < STALL || self.compared.elapsed() < STALL {
            return;
        }
        self.compared = Instant::now();
        if !self.known.borrow().is_recreated(self.producer.client().native_ptr(), &self.topic) {
            return;
        }
        let renewed = match create(&self.kafka) {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::warn!(
                    topic = self.topic,
                    "the topic was recreated, and a new client cannot be created yet: {error}"
                );
                return;
            }
        };
        tracing::warn!(
            topic = self.topic,
            events = waiting,
            "the topic was recreated, and this client keeps its old leaders: a new client sends the waiting events again"
        );
        let earlier = std::mem::replace(&mut self.producer, renewed);
        earlier.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + RETURN_TIMEOUT;
        while earlier.in_flight_count() > 0 && Instant::now() < deadline {
            earlier.poll(Duration::from_millis(10));
        }
        self.producer.context().succeed(earlier.context());
        closing::close(earlier);
        self.note_topic();
    }

    /// Asks the cluster for the topic. Waits at most a second.
    fn ask(&self) -> TopicAnswer {
        topic::ask(self.producer.client(), &self.topic, METADATA_TIMEOUT)
    }

    /// Returns whether the cluster does not know the topic, while events are returned. librdkafka returns them with the
    /// error of a lost broker then. Without an answer the last one counts.
    fn is_missing(&self) -> bool {
        if !self.producer.context().is_returning() {
            self.asked.set(None);
            return false;
        }
        let last = self.asked.get();
        if let Some(last) = last.filter(|last| last.at.elapsed() < ASK_AGAIN) {
            return last.is_missing;
        }
        let is_missing = match self.ask() {
            TopicAnswer::Missing => true,
            TopicAnswer::Exists | TopicAnswer::Refused(_) => false,
            TopicAnswer::None => last.is_some_and(|last| last.is_missing),
        };
        self.asked.set(Some(TopicRequest { at: Instant::now(), is_missing }));
        is_missing
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

    /// Returns why the cluster is unavailable, why the last event was refused, or for how long events have waited without
    /// an error. An error ends when an event is delivered.
    pub(crate) fn trouble(&self) -> Option<String> {
        let is_missing = self.is_missing();
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
        let missing = || is_missing.then(|| fault::missing(&self.topic));
        refusal
            .as_ref()
            .map(|(why, _)| why.clone())
            .or_else(missing)
            .or_else(|| context.trouble.get())
            .or_else(|| self.undelivered.trouble())
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

/// Creates a client without connecting.
fn create(kafka: &KafkaSettings) -> Result<BaseProducer<DeliveryReports>> {
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
    let created = config.create_with_context(DeliveryReports::keeping_returned());
    created.map_err(|e| Error::config(format_args!("kafka.properties: {e}")))
}
