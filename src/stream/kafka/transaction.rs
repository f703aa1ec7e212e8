//! Implements the content and the end of a transaction: records, deliveries, offsets, commit, abort.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};

use super::consumer::CALL;
use super::fault;
use super::transactional::{DELIVERY, KafkaTransactionalClient};
use crate::config::resolved::Delivery;
use crate::fail;
use crate::stream::client::{Fault, OutgoingRecord, OutputTopic, Remedy};

/// Minimum and maximum wait between two checks of deliveries. Each check costs time, so the wait is an eighth of the
/// time waited so far. The client's own wait spins during its last millisecond.
const LOOK: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(1)];
/// Timeout of one call of an abort.
const ABORT: Duration = Duration::from_millis(100);
/// Number of checks after which the client's threads are woken again.
const AGAIN: usize = 16;

impl KafkaTransactionalClient {
    /// Queues a record, and waits for space in the queue.
    pub(super) fn queue(&mut self, record: &OutgoingRecord) -> Result<(), Fault> {
        let (topic, partition) = match record.output {
            OutputTopic::Anomalies => (&self.names.topics.anomalies, None),
            OutputTopic::DeadLetters => (&self.names.topics.dead_letter, None),
            OutputTopic::State(partition) => (&self.names.topics.state, Some(partition)),
        };
        let mut queued = BaseRecord::<[u8], [u8]>::to(topic);
        queued.partition = partition;
        queued.key = record.key.as_deref();
        queued.payload = record.value.as_deref();
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
                    let why = refused.as_ref().map_or_else(|| "the transaction has failed".into(), ToString::to_string);
                    return Err(Fault {
                        remedy: Remedy::Abort,
                        message: format!("not delivered: {why}"),
                        is_too_large: refused.as_ref().is_some_and(fault::is_too_large),
                    });
                }
                Err((error, _)) => {
                    let mut fault = fault::of("sending", &error);
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
    pub(super) fn flush(&self) -> Result<(), Fault> {
        let since = Instant::now();
        for look in 0.. {
            let is_done = self.producer.in_flight_count() == 0;
            let flushed = if is_done || look % AGAIN == 0 { self.producer.flush(Duration::ZERO) } else { Ok(()) };
            let has_reported = self.serves_report();
            if let Some(e) = self.producer.context().take_failure() {
                return Err(Fault {
                    remedy: Remedy::Abort,
                    message: format!("not delivered: {e}"),
                    is_too_large: fault::is_too_large(&e),
                });
            }
            match flushed {
                Ok(()) if is_done => break,
                Err(e) if since.elapsed() > DELIVERY => return Err(fault::of("waiting for deliveries", &e)),
                _ if has_reported => {}
                _ => std::thread::sleep((since.elapsed() / 8).clamp(LOOK[0], LOOK[1])),
            }
        }
        Ok(())
    }

    /// Processes one batch of reports. Returns whether there was one, because more may follow.
    fn serves_report(&self) -> bool {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        self.producer.in_flight_count() < before
    }

    pub(super) fn commit_transaction(&mut self, list: &TopicPartitionList) -> Result<(), Fault> {
        if !self.is_committing {
            self.flush()?;
            self.send_offsets(list)?;
            fail::point("offsets");
            self.is_committing = true;
        }
        let committed = self.producer.commit_transaction(CALL).map_err(|e| fault::of("committing", &e));
        self.is_committing = matches!(&committed, Err(fault) if fault.remedy == Remedy::Retry);
        // After the request the commit may have happened: only the committed offsets show it.
        committed.map_err(|fault| match fault.remedy {
            Remedy::Abort => Fault { remedy: Remedy::Rebuild, ..fault },
            _ => fault,
        })
    }

    fn send_offsets(&self, list: &TopicPartitionList) -> Result<(), Fault> {
        // The metadata must be current, so that the group refuses a member of an older generation.
        let member = self
            .reader
            .consumer
            .group_metadata()
            .ok_or_else(|| Fault::new(Remedy::Abort, "the consumer is in no group"))?;
        self.producer.send_offsets_to_transaction(list, &member, CALL).map_err(|e| fault::of("sending offsets", &e))
    }

    /// Aborts the transaction, and processes the reports of all sent records.
    pub(super) fn give_up(&mut self) -> Result<(), Fault> {
        self.is_committing = false;
        let producer = &self.producer;
        // An abort before the first report can hang (librdkafka #4849).
        let deadline = Instant::now() + CALL;
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
                let _ = producer.flush(CALL);
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
