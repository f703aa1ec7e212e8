//! Implements [`TransactionalClient`](crate::stream::client::TransactionalClient) with librdkafka: a consumer of the input, and a `BaseProducer` on the worker's
//! thread.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::consumer::{CALL, KafkaGroupConsumer};
use super::context::{ConsumerEvents, DeliveryReports};
use super::history::KafkaHistoryClient;
use super::names::MemberNames;
use super::observer::GroupObserver;
use super::{client, duplicate, fault, origin, stranded};
use crate::config::resolved::{Delivery, KafkaSettings};
use crate::stop::Stop;
use crate::stream::client::{
    AssignmentChange, ClusterConnection, CommittedOffset, Fault, ForeignCommits, GroupAdministration, GroupMembership,
    HistoryReader, HistoryTopic, OffsetRanges, OutgoingRecord, Positions, RecordFetch, RecordVisitor, Remedy,
    TopicAdministration, TopicIdentity, TransactionalProducer,
};
use crate::stream::progress::ProgressByPartition;

/// Timeout of one attempt to begin. It is short, because a stop between two attempts loses nothing.
const OPEN: Duration = Duration::from_secs(1);
/// Timeout for the delivery of a record.
pub(super) const DELIVERY: Duration = Duration::from_secs(5);
/// Time after which the broker aborts an open transaction.
const TRANSACTION: Duration = Duration::from_secs(10);

/// A consumer and a transactional producer. The consumer is dropped first, because closing it may still commit offsets.
pub(crate) struct KafkaTransactionalClient {
    pub(super) reader: KafkaGroupConsumer,
    history: KafkaHistoryClient,
    /// Observer of the group; only the first worker of a process has one.
    onlooker: Option<GroupObserver>,
    pub(super) producer: BaseProducer<DeliveryReports>,
    kafka: KafkaSettings,
    pub(super) names: MemberNames,
    pub(super) delivery: Delivery,
    session: Duration,
    /// Interval between two polls that keep the consumer in the group.
    heartbeat: Duration,
    /// Number of delivery reports when the open transaction began.
    pub(super) reports_before: u64,
    pub(super) sent: u64,
    /// Number of partitions when the group was created; see [`origin`].
    origin: i32,
    /// Whether a commit has begun and its outcome is unknown. Only the same call may follow.
    pub(super) is_committing: bool,
}

impl KafkaTransactionalClient {
    /// Creates clients without connecting.
    ///
    /// # Errors
    /// `Stop` if librdkafka does not accept the configuration.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        names: MemberNames,
        delivery: Delivery,
        session: Duration,
    ) -> Result<Self, Fault> {
        let reader = KafkaGroupConsumer::new(kafka, &names.topics.raw_events, &names.group, &names.member, session)?;
        let mut config = client::producer(kafka);
        client::set_missing(&mut config, kafka, &[client::LOOK_OFTEN, client::WAKE_UP, client::AT_ONCE]);
        config.set("message.timeout.ms", DELIVERY.as_millis().to_string());
        client::watched(&mut config);
        if delivery == Delivery::ExactlyOnce {
            config
                .set("transactional.id", &names.transactional_id)
                .set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
        }
        let producer = config
            .create_with_context(DeliveryReports::default())
            .map_err(|e| Fault::new(Remedy::Stop, format_args!("kafka.properties: {e}")))?;
        Ok(KafkaTransactionalClient {
            reader,
            history: KafkaHistoryClient::new(kafka, &names.topics, &names.group),
            onlooker: (names.worker == 0).then(|| GroupObserver::new(kafka, &names.topics.raw_events, &names.group)),
            producer,
            kafka: kafka.clone(),
            names,
            delivery,
            session,
            heartbeat: client::heartbeat(session),
            reports_before: 0,
            sent: 0,
            origin: 0,
            is_committing: false,
        })
    }

    fn consumer(&self) -> &BaseConsumer<ConsumerEvents> {
        &self.reader.consumer
    }

    fn partitions(&self, of: &[i32]) -> TopicPartitionList {
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

    fn leave(&mut self, limit: Duration) {
        self.reader.leave(limit);
    }
}

impl RecordFetch for KafkaTransactionalClient {
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault> {
        self.producer.poll(Duration::ZERO);
        stranded::rescue(self.producer.client(), &self.kafka, &self.producer.context().trouble);
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
}

impl TopicAdministration for KafkaTransactionalClient {
    fn identity(&mut self) -> Result<TopicIdentity, Fault> {
        self.reader.identity()
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
        let metadata = self.consumer().fetch_metadata(Some(&self.names.topics.raw_events), CALL).map_err(failed)?;
        let all = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|p| p.id()).collect::<Vec<_>>();
        let list = self.consumer().committed_offsets(self.partitions(&all), CALL).map_err(failed)?;
        list.elements().iter().try_for_each(|element| element.error().map_err(failed))?;
        let (origin, standing) = origin::standing(&list);
        self.origin = origin;
        Ok(partitions.iter().map(|&partition| (partition, standing(partition))).collect())
    }

    fn foreign(&self) -> ForeignCommits {
        self.onlooker.as_ref().map(GroupObserver::foreign).unwrap_or_default()
    }

    /// Checks both clients. A fenced producer may have been too slow, or another instance may have the same name. The
    /// consumer of such an instance joins after its producer has begun, and this member notices it at the next
    /// heartbeat.
    fn is_replaced(&mut self, mut is_fenced: bool, stop: &Stop) -> bool {
        let of_producer = self.producer.client().fatal_error();
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

    fn open_history(&mut self, of: HistoryTopic, ranges: &OffsetRanges) -> Result<(), Fault> {
        self.history.open_history(of, ranges)
    }

    fn read_history(&mut self, visit: &mut RecordVisitor<'_>) -> Result<Positions, Fault> {
        self.history.read_history(visit)
    }

    fn close_history(&mut self) {
        self.history.close_history();
    }
}

impl TransactionalProducer for KafkaTransactionalClient {
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

    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault> {
        let list =
            self.reader.list(&next.iter().map(|(partition, progress)| (*partition, progress.offset)).collect())?;
        origin::note(&list, self.origin, next);
        match self.delivery {
            Delivery::ExactlyOnce => self.commit_transaction(&list),
            Delivery::AtLeastOnce => {
                self.flush()?;
                self.consumer().commit(&list, CommitMode::Sync).map_err(|e| fault::of("committing offsets", &e))
            }
        }
    }

    fn abort(&mut self) -> Result<(), Fault> {
        self.give_up()
    }
}
