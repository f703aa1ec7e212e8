//! Records what librdkafka reports in its callbacks until the loop reads it: assignment changes, deliveries, errors and
//! end offsets.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message, OwnedMessage};
use rdkafka::producer::ProducerContext;
use rdkafka::statistics::{ConsumerGroup, Statistics};
use rdkafka::types::RDKafkaRespErr;

use super::cluster_state::{ClusterState, lock};
use crate::stream::client::{AssignmentChange, Fault, Positions, Remedy};

/// Logs librdkafka's messages. Most become debug messages, because librdkafka repeats them while it reconnects, and the
/// loop logs an outage once.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", "{facility}: {message}");
        }
        _ => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
    }
}

/// Records the events of a consumer.
#[derive(Debug, Default)]
pub(crate) struct ConsumerEvents {
    /// State of the cluster as the client sees it.
    pub trouble: ClusterState,
    topic: String,
    changes: Mutex<VecDeque<AssignmentChange>>,
    ends: Mutex<Positions>,
    highs: Mutex<Positions>,
    starts: Mutex<Positions>,
    is_closing: AtomicBool,
    /// Time at which the client requested an assignment that has not arrived yet.
    asked: Mutex<Option<Instant>>,
    /// Time since which the client has searched for the group's coordinator.
    lost: Mutex<Option<Instant>>,
}

/// Time after which a client that has not found its coordinator counts as lost. A working client needs seconds.
const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(20);

/// Time after which an unanswered group counts as having lost the request. A rebalance takes seconds.
const ASSIGNMENT_TIMEOUT: Duration = Duration::from_secs(60);

impl ConsumerEvents {
    /// Creates the record for a consumer of this topic.
    pub(crate) fn new(topic: &str) -> Self {
        ConsumerEvents { topic: topic.to_owned(), ..ConsumerEvents::default() }
    }

    /// Sets the longest time that a broker may hold back the answer to a fetch.
    pub(crate) fn with_fetch_wait(self, fetch_wait: Duration) -> Self {
        ConsumerEvents { trouble: ClusterState::with_fetch_wait(fetch_wait), ..self }
    }

    /// Records that the client has requested an assignment from the group.
    pub(crate) fn asks(&self) {
        *lock(&self.asked) = Some(Instant::now());
    }

    /// Returns whether the group has lost the request. Only a new client repeats the request.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.trouble.get().is_none() && lock(&self.asked).is_some_and(|since| since.elapsed() > ASSIGNMENT_TIMEOUT)
    }

    /// Returns whether the coordinator has been unreachable for so long that this client may never find it.
    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.lost).is_some_and(|since| since.elapsed() > COORDINATOR_TIMEOUT)
    }

    /// Updates the time of the lost coordinator from the statistics of the group.
    fn note_coordinator(&self, group: &ConsumerGroup) {
        let mut lost = lock(&self.lost);
        *lost = if group.state == "up" { None } else { lost.or_else(|| Some(Instant::now())) };
    }

    /// Checks that the group has not lost the request for an assignment.
    ///
    /// # Errors
    /// Returns `Rebuild` if the request is lost.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.is_unanswered() { Err(Fault::new(Remedy::Rebuild, "the group does not answer")) } else { Ok(()) }
    }

    /// Records an assignment or a revocation. After a revocation the client requests an assignment again.
    fn answered(&self, is_assign: bool) {
        *lock(&self.asked) = (!is_assign).then(Instant::now);
    }

    /// Removes and returns the oldest assignment change that was not answered.
    pub(crate) fn change(&self) -> Option<AssignmentChange> {
        lock(&self.changes).pop_front()
    }

    /// Returns whether an assignment change is unanswered.
    pub(crate) fn has_change(&self) -> bool {
        !lock(&self.changes).is_empty()
    }

    /// Makes the callback answer all further changes itself, because no loop will.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
    }

    /// Returns the last known end offsets of the partitions, up to the first open transaction.
    pub(crate) fn ends(&self) -> Positions {
        lock(&self.ends).clone()
    }

    /// Returns the last known end offsets of the partitions, including open transactions.
    pub(crate) fn highs(&self) -> Positions {
        lock(&self.highs).clone()
    }

    /// Returns the last known first offsets of the partitions.
    pub(crate) fn starts(&self) -> Positions {
        lock(&self.starts).clone()
    }

    /// Records an end offset that the loop has queried.
    pub(crate) fn set_end(&self, partition: i32, end: i64) {
        lock(&self.ends).insert(partition, end);
    }
}

impl ClientContext for ConsumerEvents {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.trouble.update(&statistics);
        if let Some(group) = &statistics.cgrp {
            self.note_coordinator(group);
        }
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let known = topic.partitions.values().filter(|p| p.partition >= 0 && p.ls_offset >= 0);
        lock(&self.ends).extend(known.map(|p| (p.partition, p.ls_offset)));
        let known = topic.partitions.values().filter(|p| p.partition >= 0 && p.hi_offset >= 0);
        lock(&self.highs).extend(known.map(|p| (p.partition, p.hi_offset)));
        let known = topic.partitions.values().filter(|p| p.partition >= 0 && p.lo_offset >= 0);
        lock(&self.starts).extend(known.map(|p| (p.partition, p.lo_offset)));
    }
}

impl ConsumerContext for ConsumerEvents {
    /// Records the change; the loop answers it, because commits and restores do not belong in a callback.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let is_assign = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing.load(Ordering::SeqCst) {
            let answered = if is_assign { consumer.assign(tpl) } else { consumer.unassign() };
            if let Err(e) = answered {
                tracing::debug!("while closing: {e}");
            }
            return;
        }
        self.answered(is_assign);
        let partitions = tpl.elements().iter().map(|element| element.partition()).collect();
        let change =
            if is_assign { AssignmentChange::Assigned(partitions) } else { AssignmentChange::Revoked(partitions) };
        lock(&self.changes).push_back(change);
    }
}

/// Returns whether an error of a delivery is caused by a restart of brokers, or by a purge. A broker that has just started
/// does not know its topics. When a broker leaves the metadata, librdkafka fails the records queued for it.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BrokerDestroy, UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    let is_of_brokers = matches!(
        error.rdkafka_error_code(),
        Some(BrokerDestroy | UnknownPartition | UnknownTopic | UnknownTopicOrPartition)
    );
    is_of_brokers || is_purged(error)
}

fn is_purged(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// Returns whether a failed record may have reached the broker, because it was in flight.
fn may_have_arrived(record: &BorrowedMessage<'_>) -> bool {
    use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
    // SAFETY: the message is alive for the duration of the callback that borrows it.
    let status = unsafe { rd_kafka_message_status(record.ptr()) };
    status != rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Records the delivery reports of a producer.
#[derive(Debug, Default)]
pub(crate) struct DeliveryReports {
    /// State of the cluster as the client sees it.
    pub trouble: ClusterState,
    delivered: AtomicU64,
    failed: AtomicU64,
    /// The first failure, with the topic of the record.
    failure: Mutex<Option<(KafkaError, String)>>,
    keeps_returned: bool,
    /// Whether the last report was a returned record, for the reason in `trouble`.
    is_returning: AtomicBool,
    doubtful: AtomicU64,
    returned: Mutex<VecDeque<OwnedMessage>>,
}

impl DeliveryReports {
    /// Returns the number of reports so far, successes and failures.
    pub(crate) fn reports(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst) + self.failed.load(Ordering::SeqCst)
    }

    /// Returns the numbers of records delivered and failed so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.delivered.load(Ordering::SeqCst), self.failed.load(Ordering::SeqCst))
    }

    /// Creates a record that keeps records returned because of a broker's restart, so that they can be sent again.
    pub(crate) fn keeping_returned() -> Self {
        DeliveryReports { keeps_returned: true, ..DeliveryReports::default() }
    }

    /// Returns the number of returned records that may have arrived since the last call.
    pub(crate) fn take_doubtful(&self) -> u64 {
        self.doubtful.swap(0, Ordering::SeqCst)
    }

    /// Removes and returns the oldest returned record, to be sent again.
    pub(crate) fn take_returned(&self) -> Option<OwnedMessage> {
        lock(&self.returned).pop_front()
    }

    /// Puts back a record that could not be sent, as the oldest.
    pub(crate) fn put_back(&self, record: OwnedMessage) {
        lock(&self.returned).push_front(record);
    }

    /// Takes over the counts and the returned records of the client before this one.
    pub(crate) fn succeed(&self, earlier: &DeliveryReports) {
        let (delivered, failed) = earlier.counts();
        self.delivered.store(delivered, Ordering::SeqCst);
        self.failed.store(failed, Ordering::SeqCst);
        self.doubtful.store(earlier.take_doubtful(), Ordering::SeqCst);
        lock(&self.returned).append(&mut lock(&earlier.returned));
    }

    /// Returns whether records were returned, and none was delivered since.
    pub(crate) fn is_returning(&self) -> bool {
        self.is_returning.load(Ordering::Relaxed)
    }

    /// Removes and returns the first failure since the last call, with the topic of the record.
    pub(crate) fn take_failure(&self) -> Option<(KafkaError, String)> {
        lock(&self.failure).take()
    }
}

impl ClientContext for DeliveryReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.trouble.update(&statistics);
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::SeqCst);
                if self.is_returning.load(Ordering::Relaxed) {
                    self.is_returning.store(false, Ordering::Relaxed);
                    self.trouble.clear();
                }
            }
            Err((error, record)) if self.keeps_returned && is_passing(error) => {
                if !is_purged(error) {
                    self.is_returning.store(true, Ordering::Relaxed);
                    self.trouble.set(match error.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::BrokerDestroy) => "a broker has left the cluster".to_owned(),
                        _ => format!("topic {} is not there: {error}", record.topic()),
                    });
                }
                if may_have_arrived(record) {
                    self.doubtful.fetch_add(1, Ordering::SeqCst);
                }
                lock(&self.returned).push_back(record.detach());
            }
            Err((error, record)) => {
                self.failed.fetch_add(1, Ordering::SeqCst);
                tracing::debug!(topic = record.topic(), "not delivered: {error}");
                lock(&self.failure).get_or_insert_with(|| (error.clone(), record.topic().to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_group_that_is_silent_for_a_minute_while_its_brokers_answer_has_lost_the_request() {
        let member = ConsumerEvents::new("t");
        assert!(!member.is_unanswered(), "nothing was asked");
        member.asks();
        assert!(!member.is_unanswered());
        *lock(&member.asked) = Instant::now().checked_sub(ASSIGNMENT_TIMEOUT + Duration::from_secs(1));
        assert!(member.is_unanswered());
        member.trouble.set("the topic is not there");
        assert!(!member.is_unanswered(), "then it is not the group's silence");
        member.trouble.clear();
        member.answered(true);
        assert!(!member.is_unanswered());
        member.answered(false);
        assert!(lock(&member.asked).is_some(), "what was taken away is asked for again");
    }

    impl ConsumerEvents {
        /// Sets the state as if the client had looked for its coordinator for too long.
        pub(crate) fn lose(&self) {
            *lock(&self.lost) = Instant::now().checked_sub(COORDINATOR_TIMEOUT + Duration::from_secs(1));
        }
    }

    #[test]
    fn a_member_is_lost_while_it_looks_for_its_coordinator_and_no_longer() {
        let member = ConsumerEvents::new("t");
        let state = |state: &str| ConsumerGroup { state: state.to_owned(), ..ConsumerGroup::default() };
        member.note_coordinator(&state("wait-coord"));
        assert!(!member.is_lost(), "it has just begun");
        member.lose();
        member.note_coordinator(&state("query-coord"));
        assert!(member.is_lost(), "whatever it tries");
        member.note_coordinator(&state("up"));
        assert!(!member.is_lost());
    }
}
