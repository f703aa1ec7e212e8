//! Implements [`TransactionalClient`](crate::stream::client::TransactionalClient) with librdkafka: a consumer of the
//! input, and a transactional producer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer;

use super::commits::GroupObserver;
use super::consumer::{CALL_TIMEOUT, KafkaGroupConsumer};
use super::context::ConsumerEvents;
use super::fetch::OnOversized;
use super::history::KafkaHistoryClient;
use super::names::MemberNames;
use super::observer::ObservedPlace;
use super::transaction::KafkaTransactionalProducer;
use super::{client, duplicate, fault, origin, stranded, topic};
use crate::config::resolved::{Delivery, KafkaSettings};
use crate::stop::Stop;
use crate::stream::client::{
    AssignmentChange, AssignmentReading, ClusterConnection, CommittedOffset, Fault, ForeignCommits,
    GroupAdministration, GroupMembership, HistoryReader, HistoryTopic, OffsetRanges, OutgoingRecord, Positions,
    ReadFailures, RecordFetch, RecordVisitor, Remedy, TopicAdministration, TopicIdentity, TransactionalProducer,
};
use crate::stream::progress::ProgressByPartition;

/// Timeout for the delivery of a record. The broker aborts a transaction that stays open for twice this time.
const DELIVERY: Duration = Duration::from_secs(5);

/// A consumer and a transactional producer. The consumer is dropped first, because closing it may still commit offsets.
pub(crate) struct KafkaTransactionalClient {
    reader: KafkaGroupConsumer,
    history: KafkaHistoryClient,
    /// Observer of the group; only the first worker of a process has one.
    onlooker: Option<GroupObserver>,
    transaction: KafkaTransactionalProducer,
    kafka: KafkaSettings,
    names: MemberNames,
    delivery: Delivery,
    session: Duration,
    /// Interval between two polls that keep the consumer in the group.
    heartbeat: Duration,
    /// Number of partitions when the group was created; see [`origin`].
    origin: i32,
}

impl KafkaTransactionalClient {
    /// Creates clients without connecting.
    ///
    /// # Errors
    /// `Stop` if librdkafka does not accept the configuration, `Retry` if the system has too few resources.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        names: MemberNames,
        delivery: Delivery,
        session: Duration,
    ) -> Result<Self, Fault> {
        Self::with_limit(kafka, names, delivery, session, DELIVERY)
    }

    /// Creates clients without connecting. A record must be delivered within `limit`.
    ///
    /// # Errors
    /// `Stop` if librdkafka does not accept the configuration.
    pub(crate) fn with_limit(
        kafka: &KafkaSettings,
        names: MemberNames,
        delivery: Delivery,
        session: Duration,
        limit: Duration,
    ) -> Result<Self, Fault> {
        let reader = KafkaGroupConsumer::new(kafka, &names.topics.raw_events, &names.group, &names.member, session)?
            .with_oversized(OnOversized::Deliver);
        let id = &names.transactional_id;
        let transaction = KafkaTransactionalProducer::new(kafka, &names.topics, id, delivery, limit)?;
        Ok(KafkaTransactionalClient {
            reader,
            history: KafkaHistoryClient::new(kafka, &names.topics, &names.group),
            onlooker: (names.worker == 0).then(|| {
                let (topic, group, member) =
                    (names.topics.raw_events.clone(), names.group.clone(), names.member.clone());
                GroupObserver::new(kafka, ObservedPlace { topic, group, member })
            }),
            transaction,
            kafka: kafka.clone(),
            names,
            delivery,
            session,
            heartbeat: client::heartbeat(session),
            origin: 0,
        })
    }

    fn consumer(&self) -> &BaseConsumer<ConsumerEvents> {
        &self.reader.consumer
    }

    fn list(&self, of: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        of.iter().for_each(|partition| {
            list.add_partition(&self.names.topics.raw_events, *partition);
        });
        list
    }
}

impl ClusterConnection for KafkaTransactionalClient {
    fn now(&self) -> Duration {
        self.reader.now()
    }

    fn sleep(&mut self, time: Duration) {
        self.reader.sleep(time);
    }

    fn trouble(&self) -> Option<String> {
        self.reader.trouble()
    }
}

impl GroupMembership for KafkaTransactionalClient {
    fn subscribe(&mut self) -> Result<(), Fault> {
        self.reader.subscribe()
    }

    fn has_change(&self) -> bool {
        self.reader.has_change()
    }

    fn next_change(&mut self) -> Option<AssignmentChange> {
        self.reader.next_change()
    }

    fn assign(&mut self, at: &Positions) -> Result<(), Fault> {
        self.reader.assign(at)
    }

    fn unassign(&mut self) -> Result<(), Fault> {
        self.history.close_history();
        self.reader.unassign()
    }

    fn is_assignment_lost(&self) -> bool {
        self.reader.is_assignment_lost()
    }

    fn rejoin(&mut self) -> Result<(), Fault> {
        self.reader.rejoin()
    }

    fn leave(&mut self, limit: Duration) {
        self.reader.leave(limit);
    }
}

impl RecordFetch for KafkaTransactionalClient {
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault> {
        let producer = &self.transaction.producer;
        producer.poll(Duration::ZERO);
        stranded::rescue(producer.client(), &self.kafka, &producer.context().trouble);
        self.reader.poll(wait, most, visit)
    }

    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        self.reader.resume(partitions)
    }

    fn seek(&mut self, to: &Positions) -> Result<(), Fault> {
        self.reader.seek(to)
    }

    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault> {
        self.reader.bounds(partition)
    }

    fn starts(&self) -> Positions {
        self.reader.starts()
    }

    fn ends(&self) -> Positions {
        self.reader.ends()
    }

    fn highs(&self) -> Positions {
        self.reader.highs()
    }

    fn reached(&self) -> Positions {
        self.reader.reached()
    }

    fn failures(&self) -> ReadFailures {
        self.reader.failures()
    }

    fn skip(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault> {
        self.reader.skip(partition)
    }
}

impl TopicAdministration for KafkaTransactionalClient {
    fn identity(&mut self) -> Result<TopicIdentity, Fault> {
        self.reader.identity()
    }

    fn partitions(&mut self) -> Result<i32, Fault> {
        self.reader.partitions()
    }

    fn topic_id(&mut self) -> Option<String> {
        self.reader.topic_id()
    }
}

impl GroupAdministration for KafkaTransactionalClient {
    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, CommittedOffset>, Fault> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let failed = |e: KafkaError| fault::of("committed offsets", &e);
        let topic = &self.names.topics.raw_events;
        let all = topic::partitions(self.consumer().client(), topic, CALL_TIMEOUT).map_err(failed)?;
        let list = self.consumer().committed_offsets(self.list(&all), CALL_TIMEOUT).map_err(failed)?;
        list.elements().iter().try_for_each(|element| element.error().map_err(failed))?;
        let (origin, standing) = origin::standing(&list);
        self.origin = origin;
        self.reader.epochs.read(&list);
        Ok(partitions.iter().map(|&partition| (partition, standing(partition))).collect())
    }

    fn foreign(&self) -> ForeignCommits {
        self.onlooker.as_ref().map(GroupObserver::foreign).unwrap_or_default()
    }

    fn assignment(&self) -> Option<AssignmentReading> {
        self.onlooker.as_ref().map(GroupObserver::assignment)
    }

    /// Checks both clients. A fenced producer may have been too slow, or another instance may have the same name. The
    /// consumer of such an instance joins after its producer has begun, and this member notices it at the next
    /// heartbeat.
    fn is_replaced(&mut self, mut is_fenced: bool, stop: &Stop) -> bool {
        let of_producer = self.transaction.producer.client().fatal_error();
        let is_doubted = of_producer.is_some_and(|(code, _)| matches!(code, Code::Fenced | Code::ProducerFenced));
        let deadline = Instant::now() + self.heartbeat + Duration::from_secs(1);
        while is_doubted && !is_fenced && Instant::now() < deadline {
            self.consumer().poll(Duration::from_millis(50));
            is_fenced = self.consumer().client().fatal_error().is_some_and(|(code, _)| code == Code::FencedInstanceId);
        }
        is_fenced && duplicate::exists(&self.kafka, &self.names, self.session, stop)
    }
}

impl HistoryReader for KafkaTransactionalClient {
    fn bounds_of(&mut self, of: HistoryTopic, partitions: &[i32]) -> Result<OffsetRanges, Fault> {
        let bounds = self.history.bounds_of(of, partitions)?;
        if of == HistoryTopic::Input {
            let context = self.consumer().context();
            bounds.iter().for_each(|(partition, range)| context.set_end(*partition, range.end));
        }
        Ok(bounds)
    }

    fn cleanup_policy(&mut self, of: HistoryTopic) -> Result<Option<String>, Fault> {
        self.history.cleanup_policy(of)
    }

    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault> {
        self.history.open_history(of, ranges)
    }

    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault> {
        self.history.read_history(visit)
    }

    fn history_failures(&self) -> ReadFailures {
        self.history.history_failures()
    }

    fn skip_history(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault> {
        self.history.skip_history(partition)
    }

    fn close_history(&mut self) {
        self.history.close_history();
    }
}

impl TransactionalProducer for KafkaTransactionalClient {
    fn init_transactions(&mut self) -> Result<(), Fault> {
        self.transaction.init_transactions()
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.transaction.begin()
    }

    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault> {
        self.transaction.send(record)
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.transaction.flush()
    }

    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault> {
        let list =
            self.reader.list(&next.iter().map(|(partition, progress)| (*partition, progress.offset)).collect())?;
        origin::note(&list, self.origin, next);
        self.reader.epochs.write(&list);
        let consumer = &self.reader.consumer;
        match self.delivery {
            Delivery::ExactlyOnce => self.transaction.commit_with(|producer| {
                // The metadata must be current, so that the group refuses a member of an older generation.
                let member = consumer
                    .group_metadata()
                    .ok_or_else(|| Fault::new(Remedy::Abort, "the consumer is in no group"))?;
                let sent = producer.send_offsets_to_transaction(&list, &member, CALL_TIMEOUT);
                sent.map_err(|e| fault::of("sending offsets", &e))
            }),
            Delivery::AtLeastOnce => {
                self.transaction.flush()?;
                consumer.commit(&list, CommitMode::Sync).map_err(|e| fault::of("committing offsets", &e))
            }
        }
    }

    fn abort(&mut self) -> Result<(), Fault> {
        self.transaction.abort()
    }
}
