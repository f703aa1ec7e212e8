//! Implements [`TransactionalProducer`] with librdkafka, on the thread of its owner: records, deliveries, commit, abort.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};

use super::consumer::CALL_TIMEOUT;
use super::context::DeliveryReports;
use super::identity::KnownTopics;
use super::topic::{self, TopicAnswer};
use super::{client, fault, shortage};
use crate::config::resolved::{Delivery, KafkaSettings, TopicSettings};
use crate::fail;
use crate::stream::client::{ClusterConnection, Fault, OutgoingRecord, OutputTopic, Remedy, TransactionalProducer};
use crate::stream::progress::ProgressByPartition;

/// Minimum and maximum wait between two checks of deliveries. Each check costs time, so the wait is an eighth of the
/// time waited so far. The client's own wait spins during its last millisecond.
const CHECK_WAITS: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(1)];
/// Timeout of one call of an abort.
const ABORT: Duration = Duration::from_millis(100);
/// Timeout of the request for the topic of a record that timed out.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of checks after which the client's threads are woken again.
const CHECKS_PER_WAKE: usize = 16;
/// Timeout of one attempt to initialise. It is short, because a stop between two attempts loses nothing.
const OPEN: Duration = Duration::from_secs(1);

/// A producer of transactions. With delivery at least once its transactions only wait for the deliveries.
pub(crate) struct KafkaTransactionalProducer {
    pub(super) producer: BaseProducer<DeliveryReports>,
    topics: TopicSettings,
    delivery: Delivery,
    /// Timeout for the delivery of a record.
    limit: Duration,
    began: Instant,
    /// Number of delivery reports when the open transaction began.
    reports_before: u64,
    sent: u64,
    /// Ids of the topics when the transactions were initialised.
    known: KnownTopics,
    /// Whether a commit has begun and its outcome is unknown. Only the same call may follow.
    is_committing: bool,
}

impl KafkaTransactionalProducer {
    /// Creates a producer without connecting. A record must be delivered within `limit`. The broker aborts a
    /// transaction that stays open for twice that time.
    ///
    /// # Errors
    /// `Stop` if librdkafka does not accept the configuration, `Retry` if the system has too few resources.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        topics: &TopicSettings,
        transactional_id: &str,
        delivery: Delivery,
        limit: Duration,
    ) -> Result<Self, Fault> {
        let mut config = client::producer(kafka);
        client::set_missing(&mut config, kafka, &[client::LOOK_OFTEN, client::WAKE_UP, client::AT_ONCE]);
        config.set("message.timeout.ms", limit.as_millis().to_string());
        client::watched(&mut config);
        if delivery == Delivery::ExactlyOnce {
            config
                .set("transactional.id", transactional_id)
                .set("transaction.timeout.ms", (limit * 2).as_millis().to_string());
        }
        let producer = config.create_with_context(DeliveryReports::default()).map_err(|e| shortage::refused(&e))?;
        Ok(KafkaTransactionalProducer {
            producer,
            topics: topics.clone(),
            delivery,
            limit,
            began: Instant::now(),
            reports_before: 0,
            sent: 0,
            known: KnownTopics::default(),
            is_committing: false,
        })
    }

    /// Queues a record, and waits for space in the queue.
    fn queue(&mut self, record: &OutgoingRecord) -> Result<(), Fault> {
        let (topic, partition) = match &record.output {
            OutputTopic::Anomalies => (&self.topics.anomalies, None),
            OutputTopic::DeadLetters => (&self.topics.dead_letter, None),
            OutputTopic::State(partition) => (&self.topics.state, Some(*partition)),
            OutputTopic::Named { topic, partition } => (topic, *partition),
        };
        let mut queued = BaseRecord::<[u8], [u8]>::to(topic);
        queued.partition = partition;
        queued.key = record.key.as_deref();
        queued.payload = record.value.as_deref();
        queued.timestamp = record.timestamp;
        if !record.headers.is_empty() {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: value.as_deref() })
            });
            queued = queued.headers(headers);
        }
        loop {
            match self.producer.send(queued) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                // Deliveries free space. A missing delivery causes an error of its own.
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    queued = back;
                }
                // An earlier record was refused, and the transaction with it. The report of that record gives the
                // reason.
                Err((KafkaError::MessageProduction(Code::State), _)) => {
                    self.producer.poll(Duration::from_millis(20));
                    let refused = self.producer.context().take_failure();
                    return Err(refused.map_or_else(
                        || Fault::new(Remedy::Abort, "not delivered: the transaction has failed"),
                        |(error, topic)| self.not_delivered(&error, &topic),
                    ));
                }
                Err((error, _)) => {
                    let mut fault = fault::of_record("sending", topic, &error);
                    // The record is not in the transaction, which therefore cannot be committed.
                    if fault.remedy == Remedy::Retry {
                        fault.remedy = Remedy::Abort;
                    }
                    return Err(fault);
                }
            }
        }
    }

    /// Waits until every sent record has its report, or until one failed; then the others remain without a report.
    fn wait_for_deliveries(&self) -> Result<(), Fault> {
        let since = Instant::now();
        for pass in 0.. {
            let is_done = self.producer.in_flight_count() == 0;
            let flushed =
                if is_done || pass % CHECKS_PER_WAKE == 0 { self.producer.flush(Duration::ZERO) } else { Ok(()) };
            let has_reported = self.serves_report();
            if let Some((error, topic)) = self.producer.context().take_failure() {
                return Err(self.not_delivered(&error, &topic));
            }
            match flushed {
                Ok(()) if is_done => break,
                Err(e) if since.elapsed() > self.limit => return Err(fault::of("waiting for deliveries", &e)),
                _ if has_reported => {}
                _ => std::thread::sleep((since.elapsed() / 8).clamp(CHECK_WAITS[0], CHECK_WAITS[1])),
            }
        }
        Ok(())
    }

    /// Returns the fault for a record whose delivery report is an error. A record of a deleted topic times out before
    /// librdkafka learns of the deletion.
    fn not_delivered(&self, error: &KafkaError, topic: &str) -> Fault {
        let mut fault = Fault { remedy: Remedy::Abort, ..fault::of_record("not delivered", topic, error) };
        let is_late = error.rdkafka_error_code() == Some(Code::MessageTimedOut);
        if is_late && matches!(topic::ask(self.producer.client(), topic, METADATA_TIMEOUT), TopicAnswer::Missing) {
            fault.message = fault::missing(topic);
        } else if is_late && self.known.is_recreated(self.producer.client().native_ptr(), topic) {
            fault.remedy = Remedy::Rebuild;
            fault.message = format!("topic {topic} was recreated, and this client keeps its old leaders");
        }
        fault
    }

    /// Processes one batch of reports. Returns whether there was one, because more may follow.
    fn serves_report(&self) -> bool {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        self.producer.in_flight_count() < before
    }

    /// Commits the transaction after `add_offsets` has added the offsets of a group to it.
    pub(super) fn commit_with(
        &mut self,
        add_offsets: impl FnOnce(&BaseProducer<DeliveryReports>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if !self.is_committing {
            self.wait_for_deliveries()?;
            add_offsets(&self.producer)?;
            fail::point("offsets");
            self.is_committing = true;
        }
        let committed = self.producer.commit_transaction(CALL_TIMEOUT).map_err(|e| fault::of("committing", &e));
        self.is_committing = matches!(&committed, Err(fault) if fault.remedy == Remedy::Retry);
        // After the request the commit may have happened: only the committed offsets show it.
        committed.map_err(|fault| match fault.remedy {
            Remedy::Abort => Fault { remedy: Remedy::Rebuild, ..fault },
            _ => fault,
        })
    }

    /// Aborts the transaction, and processes the reports of all sent records.
    fn give_up(&mut self) -> Result<(), Fault> {
        self.is_committing = false;
        let producer = &self.producer;
        // An abort before the first report can hang (librdkafka #4849).
        let deadline = Instant::now() + CALL_TIMEOUT;
        let first = Instant::now() + Duration::from_secs(1);
        while self.sent > 0 && producer.context().reports() == self.reports_before && Instant::now() < first {
            producer.poll(Duration::from_millis(10));
        }
        match self.delivery {
            // Purged records are reported before the abort ends, but a call processes no reports. Therefore many short
            // calls are needed.
            Delivery::ExactlyOnce => loop {
                while self.serves_report() {}
                match producer.abort_transaction(ABORT).map_err(|e| fault::of("aborting", &e)) {
                    Err(fault) if fault.remedy == Remedy::Retry && Instant::now() < deadline => {}
                    ended => break ended,
                }
            },
            Delivery::AtLeastOnce => {
                producer.purge(PurgeConfig::default().queue().inflight());
                let _ = producer.flush(CALL_TIMEOUT);
                Ok(())
            }
        }?;
        // Reports of purged records arrive late. The next transaction must not count them as its own failures.
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            producer.poll(Duration::from_millis(10));
        }
        let _ = producer.context().take_failure();
        Ok(())
    }
}

impl ClusterConnection for KafkaTransactionalProducer {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn trouble(&self) -> Option<String> {
        self.producer.context().trouble.get()
    }
}

impl TransactionalProducer for KafkaTransactionalProducer {
    fn init_transactions(&mut self) -> Result<(), Fault> {
        if self.delivery == Delivery::ExactlyOnce {
            self.producer.init_transactions(OPEN).map_err(|e| {
                // The callbacks receive the reason of the delay; each poll serves one callback.
                (0..32).for_each(|_| self.producer.poll(Duration::ZERO));
                let mut fault = fault::of("starting transactions", &e);
                if let Some(why) = self.producer.context().trouble.reason() {
                    fault.message = why;
                }
                fault
            })?;
        }
        let TopicSettings { anomalies, dead_letter, state, .. } = &self.topics;
        let written = [anomalies, dead_letter, state].map(String::as_str);
        self.known = KnownTopics::read(self.producer.client().native_ptr(), written);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.reports_before = self.producer.context().reports();
        self.sent = 0;
        let _ = self.producer.context().take_failure();
        match self.delivery {
            Delivery::ExactlyOnce => self.producer.begin_transaction().map_err(|e| fault::of("beginning", &e)),
            Delivery::AtLeastOnce => Ok(()),
        }
    }

    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault> {
        self.queue(&record)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.wait_for_deliveries()
    }

    /// Commits without offsets, because the producer is in no group.
    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault> {
        if !next.is_empty() {
            return Err(Fault::new(Remedy::Stop, "a producer outside of a group cannot commit progress"));
        }
        match self.delivery {
            Delivery::ExactlyOnce => self.commit_with(|_| Ok(())),
            Delivery::AtLeastOnce => self.wait_for_deliveries(),
        }
    }

    fn abort(&mut self) -> Result<(), Fault> {
        self.give_up()
    }
}
