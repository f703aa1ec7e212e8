//! The same script against the simulated log and against a real broker: what one answers, the other must. So the simulation
//! cannot drift into kindness. Needs the box: `tests/run`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::member::SimulatedClient;
use super::stage::Scheduler;
use crate::config::resolved::{Delivery, KafkaSettings, TopicSettings};
use crate::stream::client::{
    AssignmentChange, CommittedOffset, Fault, HistoryTopic, OutgoingRecord, OutputTopic, Positions, TransactionalClient,
};
use crate::stream::kafka::{KafkaTransactionalClient, MemberNames};
use crate::stream::progress::{OutcomeCounts, Progress, ProgressByPartition};

const EVENTS: i64 = 10;

/// Where logs come from.
trait World {
    /// A log of this member and this transactional id.
    fn log(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient>;
}

struct Simulated(Arc<Scheduler>);

impl Simulated {
    fn new() -> Self {
        let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(1), 0.0));
        stage.enter_first();
        for offset in 0..EVENTS {
            let (key, value) = (None, Some(offset.to_string().into_bytes()));
            let (headers, owner, fate) = (Vec::new(), String::new(), Fate::Committed);
            let entry = LogEntry { key, value, headers, time: 0, fate, owner };
            stage.look().cluster.partition(SimulatedTopic::Input, 0).entries.push(entry);
        }
        Simulated(stage)
    }
}

impl World for Simulated {
    fn log(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient> {
        Box::new(SimulatedClient::by_names(self.0.clone(), 0, member, transactional_id))
    }
}

struct Real {
    kafka: KafkaSettings,
    topics: TopicSettings,
}

impl Real {
    fn new() -> Self {
        let servers = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("no box: run tests/run");
        let name = format!("conformance_{}", std::process::id());
        let kafka = KafkaSettings { bootstrap_servers: servers.clone(), properties: [].into() };
        let topics = TopicSettings {
            raw_events: format!("{name}.raw"),
            anomalies: format!("{name}.anomalies"),
            dead_letter: format!("{name}.dlq"),
            state: format!("{name}.state"),
            partitions: 1,
            replication: 1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(crate::stream::topics::create(&kafka, &topics)).unwrap();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
        for offset in 0..EVENTS {
            let value = offset.to_string();
            producer.send(BaseRecord::<[u8], str>::to(&topics.raw_events).partition(0).payload(&value)).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
        Real { kafka, topics }
    }
}

impl World for Real {
    fn log(&self, member: &str, transactional_id: &str) -> Box<dyn TransactionalClient> {
        let prefix = &self.topics.raw_events;
        let names = MemberNames {
            topics: self.topics.clone(),
            group: format!("{prefix}-group"),
            member: member.to_owned(),
            worker: 0,
            transactional_id: format!("{prefix}-{transactional_id}"),
        };
        Box::new(
            KafkaTransactionalClient::new(&self.kafka, names, Delivery::ExactlyOnce, Duration::from_secs(10)).unwrap(),
        )
    }
}

/// Repeats a call until it is answered otherwise than by `Retry`.
fn insist<T>(mut call: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match call() {
            Err(fault) if fault.remedy == crate::stream::client::Remedy::Retry && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Polls until the condition holds of what came.
fn poll(
    log: &mut dyn TransactionalClient,
    mut until: impl FnMut(&[i64], &mut dyn TransactionalClient) -> bool,
) -> Result<Vec<i64>, Fault> {
    let (mut came, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while !until(&came, log) {
        assert!(Instant::now() < deadline, "only {came:?} came");
        log.poll(Duration::from_millis(100), 100, &mut |_, records| {
            came.extend(records.iter().map(|record| record.offset));
        })?;
    }
    Ok(came)
}

/// Opens, joins, and takes what it is given at these offsets.
fn join(log: &mut dyn TransactionalClient, at: i64) {
    insist(|| log.init_transactions()).unwrap();
    log.subscribe().unwrap();
    poll(log, |_, log| log.has_change()).unwrap();
    assert_eq!(log.next_change(), Some(AssignmentChange::Assigned(vec![0])));
    log.assign(&Positions::from([(0, at)])).unwrap();
    log.resume(&[0]).unwrap();
}

fn record(output: OutputTopic, key: &str) -> OutgoingRecord {
    OutgoingRecord { output, key: Some(key.into()), value: Some(b"v".to_vec()), headers: Vec::new() }
}

fn mark(offset: i64) -> ProgressByPartition {
    ProgressByPartition::from([(
        0,
        Progress { offset, counts: OutcomeCounts { normal: offset as u64, ..OutcomeCounts::default() } },
    )])
}

/// Keys of what a committed reader finds of the windows' topic.
fn windows(log: &mut dyn TransactionalClient) -> Vec<String> {
    let ranges = insist(|| log.bounds_of(HistoryTopic::State, &[0])).unwrap();
    insist(|| log.open_history(HistoryTopic::State, &ranges)).unwrap();
    let (mut keys, mut at) = (Vec::new(), ranges[&0].start);
    while at < ranges[&0].end {
        let read = insist(|| {
            log.read_history(&mut |_, records| {
                keys.extend(records.iter().map(|r| String::from_utf8_lossy(r.key.unwrap_or_default()).into_owned()));
            })
        });
        at = read.unwrap().get(&0).copied().unwrap_or(at);
    }
    keys
}

/// The script; what it was answered.
fn script(world: &dyn World) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |what: &str, answer: String| told.push(format!("{what}: {answer}"));
    let mut a = world.log("a", "one");
    join(a.as_mut(), 0);
    tell("all events come in order", format!("{:?}", poll(a.as_mut(), |came, _| came.len() as i64 == EVENTS)));
    let end = poll(a.as_mut(), |_, log| log.reached().get(&0) == Some(&EVENTS)).map(|came| came.len());
    tell("the end of the partition", format!("{end:?}"));
    let ids = (a.topic_id(), insist(|| a.identity()).unwrap().id);
    tell("the topic's id", format!("{} {}", ids.0.is_some(), ids.0 == ids.1));
    tell("nothing is committed", format!("{:?}", insist(|| a.committed(&[0])).unwrap()[&0] == CommittedOffset::New));

    a.begin().unwrap();
    for output in [OutputTopic::Anomalies, OutputTopic::DeadLetters, OutputTopic::State(0), OutputTopic::State(0)] {
        a.send(record(output, "first")).unwrap();
    }
    tell("a commit", format!("{:?}", insist(|| a.commit(&mark(6)))));
    tell("its marks", format!("{:?}", insist(|| a.committed(&[0]))));
    tell("windows", format!("{:?}", windows(a.as_mut())));

    a.begin().unwrap();
    a.send(record(OutputTopic::State(0), "aborted")).unwrap();
    tell("an abort", format!("{:?}", insist(|| a.abort())));
    tell("marks after it", format!("{:?}", insist(|| a.committed(&[0]))));
    tell("windows after it", format!("{:?}", windows(a.as_mut())));
    a.seek(&Positions::from([(0, 6)])).unwrap();
    tell("no end after a seek", format!("{:?}", a.reached()));
    tell("events again", format!("{:?}", poll(a.as_mut(), |came, _| came.last() == Some(&(EVENTS - 1)))));

    a.seek(&Positions::from([(0, 6)])).unwrap();
    let none = (0..5).map(|_| a.poll(Duration::from_millis(50), 0, &mut |_, _| panic!("nothing was asked for")));
    tell("polls for nothing", format!("{:?}", none.collect::<Result<Vec<_>, _>>()));
    tell("events after them", format!("{:?}", poll(a.as_mut(), |came, _| came.last() == Some(&(EVENTS - 1)))));

    a.begin().unwrap();
    a.send(record(OutputTopic::State(0), "fenced")).unwrap();
    let mut b = world.log("b", "one");
    tell("a second producer by the same name", format!("{:?}", insist(|| b.init_transactions())));
    let late = insist(|| a.commit(&mark(9))).map_err(|fault| fault.remedy);
    tell("the commit of the first", format!("{late:?}"));
    drop((a, b));

    let mut c = world.log("a", "two");
    join(c.as_mut(), 6);
    tell("marks after the fenced one", format!("{:?}", insist(|| c.committed(&[0]))));
    tell("windows after the fenced one", format!("{:?}", windows(c.as_mut())));
    let mut d = world.log("a", "three");
    join(d.as_mut(), 6);
    let replaced = poll(c.as_mut(), |_, _| false).map_err(|fault| fault.remedy);
    tell("a member whose name another took", format!("{replaced:?}"));
    told
}

#[test]
#[ignore = "needs a broker: tests/run"]
fn the_simulated_log_answers_as_a_real_broker_does() {
    let (simulated, real) = (script(&Simulated::new()), script(&Real::new()));
    assert_eq!(simulated, real);
}
