//! The two worlds of the script: the simulated log, and a real broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::super::member::SimulatedClient;
use super::super::stage::Scheduler;
use super::recorder::{CalledMethods, RecordingClient};
use crate::config::resolved::{Delivery, KafkaSettings, TopicSettings};
use crate::stream::client::{ClusterAdministration, HistoryTopic, TransactionalClient};
use crate::stream::kafka::{KafkaAdministration, KafkaTransactionalClient, MemberNames};

/// Number of partitions of the input.
pub(super) const PARTITIONS: i32 = 2;
/// Number of records in each partition.
pub(super) const EVENTS: i64 = 10;

/// A world that creates clients for the script.
pub(super) trait ConformanceWorld {
    /// Creates a client with this name in the group, and this transactional id.
    fn client(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient>;

    /// Returns the name of the input topic.
    fn input(&self) -> String;

    /// Commits an offset as another program, this number of records after the committed one. The group must have no
    /// members.
    fn commit_as_another(&self, partition: i32, committed: i64, records: i64);

    /// Adds a partition to the input or to the state topic.
    fn grow(&self, topic: HistoryTopic);

    /// Publishes records to a partition of the input.
    fn publish(&self, partition: i32, records: i64);

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
        let world = SimulatedWorld(stage);
        (0..PARTITIONS).for_each(|partition| world.publish(partition, EVENTS));
        world
    }
}

impl ConformanceWorld for SimulatedWorld {
    fn client(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient> {
        Box::new(SimulatedClient::by_names(self.0.clone(), 0, member, transactional_id))
    }

    fn input(&self) -> String {
        "raw_events".to_owned()
    }

    fn commit_as_another(&self, partition: i32, _committed: i64, records: i64) {
        self.0.look().cluster.commit_as_another(partition, records);
    }

    fn grow(&self, topic: HistoryTopic) {
        let mut inner = self.0.look();
        let now = inner.now;
        match topic {
            HistoryTopic::State => inner.cluster.widen_state(),
            _ => inner.cluster.grow(now, true),
        }
    }

    fn publish(&self, partition: i32, records: i64) {
        let (key, value) = (None, Some(b"event".to_vec()));
        let (headers, owner, fate) = (Vec::new(), String::new(), Fate::Committed);
        let entry = LogEntry { key, value, headers, time: 0, fate, owner };
        let mut inner = self.0.look();
        let entries = &mut inner.cluster.partition(SimulatedTopic::Input, partition).entries;
        entries.resize(entries.len() + records as usize, entry);
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
        // A member finds out about an added partition when its metadata are refreshed.
        let refresh = "topic.metadata.refresh.interval.ms";
        let kafka = KafkaSettings { bootstrap_servers: servers, properties: [(refresh.into(), "200".into())].into() };
        let topics = TopicSettings {
            raw_events: format!("{name}.raw"),
            anomalies: format!("{name}.anomalies"),
            dead_letter: format!("{name}.dlq"),
            state: format!("{name}.state"),
            partitions: PARTITIONS,
            replication: 1,
        };
        crate::stream::topics::create(&kafka, &topics).unwrap();
        let world = RealWorld { kafka, topics };
        (0..PARTITIONS).for_each(|partition| world.publish(partition, EVENTS));
        world
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

    fn input(&self) -> String {
        self.topics.raw_events.clone()
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

    fn grow(&self, topic: HistoryTopic) {
        let name = match topic {
            HistoryTopic::State => &self.topics.state,
            _ => &self.topics.raw_events,
        };
        let (mut cluster, count) = (KafkaAdministration::new(&self.kafka).unwrap(), PARTITIONS as usize + 1);
        cluster.add_partitions(name, count).unwrap();
        // The answer arrives before all brokers know the partition.
        let deadline = Instant::now() + Duration::from_secs(20);
        while cluster.partitions_of(name).unwrap() != Some(count) {
            assert!(Instant::now() < deadline, "the partition was not added");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn publish(&self, partition: i32, records: i64) {
        let mut config = ClientConfig::new();
        // An earlier producer may not know of the partition yet.
        let producer: BaseProducer = config.set("bootstrap.servers", &self.kafka.bootstrap_servers).create().unwrap();
        for _ in 0..records {
            let record = BaseRecord::<[u8], str>::to(&self.topics.raw_events).partition(partition).payload("event");
            producer.send(record).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }
}
