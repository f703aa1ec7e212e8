//! The two worlds of the script: the simulated log, and a real broker.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::super::member::SimulatedClient;
use super::super::stage::Scheduler;
use super::recorder::{CalledMethods, RecordingClient};
use crate::config::resolved::{Delivery, KafkaSettings, TopicSettings};
use crate::stream::client::TransactionalClient;
use crate::stream::kafka::{KafkaTransactionalClient, MemberNames};

/// Number of partitions of the input.
pub(super) const PARTITIONS: i32 = 2;
/// Number of records in each partition.
pub(super) const EVENTS: i64 = 10;

/// A world that creates clients for the script.
pub(super) trait ConformanceWorld {
    /// Creates a client with this name in the group, and this transactional id.
    fn client(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient>;

    /// Commits an offset as another program, this number of records after the committed one. The group must have no
    /// members.
    fn commit_as_another(&self, partition: i32, committed: i64, records: i64);

    /// Creates a client whose calls are recorded.
    fn recorded(&self, member: &str, transactional_id: &str, called: &CalledMethods) -> RecordingClient {
        RecordingClient::new(self.client(member, transactional_id), called)
    }
}

pub(super) struct SimulatedWorld(Arc<Scheduler>);

impl SimulatedWorld {
    pub(super) fn new() -> Self {
        let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(PARTITIONS), 0.0));
        stage.enter_first();
        for (partition, offset) in (0..PARTITIONS).flat_map(|partition| (0..EVENTS).map(move |at| (partition, at))) {
            let (key, value) = (None, Some(offset.to_string().into_bytes()));
            let (headers, owner, fate) = (Vec::new(), String::new(), Fate::Committed);
            let entry = LogEntry { key, value, headers, time: 0, fate, owner };
            stage.look().cluster.partition(SimulatedTopic::Input, partition).entries.push(entry);
        }
        SimulatedWorld(stage)
    }
}

impl ConformanceWorld for SimulatedWorld {
    fn client(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient> {
        Box::new(SimulatedClient::by_names(self.0.clone(), 0, member, transactional_id))
    }

    fn commit_as_another(&self, partition: i32, _committed: i64, records: i64) {
        self.0.look().cluster.commit_as_another(partition, records);
    }
}

pub(super) struct RealWorld {
    kafka: KafkaSettings,
    topics: TopicSettings,
}

impl RealWorld {
    pub(super) fn new() -> Self {
        let servers = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("no box: run tests/run");
        let name = format!("conformance_{}", std::process::id());
        let kafka = KafkaSettings { bootstrap_servers: servers.clone(), properties: [].into() };
        let topics = TopicSettings {
            raw_events: format!("{name}.raw"),
            anomalies: format!("{name}.anomalies"),
            dead_letter: format!("{name}.dlq"),
            state: format!("{name}.state"),
            partitions: PARTITIONS,
            replication: 1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(crate::stream::topics::create(&kafka, &topics)).unwrap();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
        for (partition, offset) in (0..PARTITIONS).flat_map(|partition| (0..EVENTS).map(move |at| (partition, at))) {
            let value = offset.to_string();
            let record = BaseRecord::<[u8], str>::to(&topics.raw_events).partition(partition).payload(&value);
            producer.send(record).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
        RealWorld { kafka, topics }
    }

    fn group(&self) -> String {
        format!("{}-group", self.topics.raw_events)
    }
}

impl ConformanceWorld for RealWorld {
    fn client(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient> {
        let prefix = &self.topics.raw_events;
        let names = MemberNames {
            topics: self.topics.clone(),
            group: self.group(),
            member: member.to_owned(),
            worker: 0,
            transactional_id: format!("{prefix}-{transactional_id}"),
        };
        let session = Duration::from_secs(10);
        Box::new(KafkaTransactionalClient::new(&self.kafka, names, Delivery::ExactlyOnce, session).unwrap())
    }

    fn commit_as_another(&self, partition: i32, committed: i64, records: i64) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka.bootstrap_servers).set("group.id", self.group());
        let other: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(committed + records);
        list.add_partition_offset(&self.topics.raw_events, partition, offset).unwrap();
        other.commit(&list, CommitMode::Sync).unwrap();
    }
}
