//! Tests a sink and a worker whose topic was deleted and created again: the ledger's offsets are invalid in the new topic,
//! whatever its length, and the group may assign partitions that the new topic does not have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::consumer::SimulatedConsumer;
use super::database::SimulatedConnection;
use super::member::SimulatedClient;
use super::stage::Scheduler;
use crate::config::resolved::Settings;
use crate::detect::{DetectionSettings, Detector};
use crate::health::{ComponentState, Health, InputHealth};
use crate::meter::Meter;
use crate::stop::Stop;
use crate::stream::identity::{IdentityWatch, TopicSameness};
use crate::stream::sink::Sink;
use crate::stream::unassigned::VainRebalances;
use crate::stream::worker::{CommitObserver, Worker, WorkerEnding};

/// Number of records in the topic, of which the ledger has stored the first [`STORED`].
const RECORDS: i64 = 10;
const STORED: i64 = 4;

/// Runs a sink with this topic id in the ledger, and that one in the cluster. Returns its complaint, the ledger's
/// offset, and the topic id in the ledger.
fn sink(stored: Option<&str>, current: Option<&str>) -> (Option<String>, i64, Option<String>) {
    let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(1), 0.0));
    stage.enter_first();
    {
        let cluster = &mut stage.look().cluster;
        cluster.topic_id = current.map(str::to_owned);
        let entry = LogEntry {
            key: None,
            value: None,
            headers: Vec::new(),
            time: 0,
            fate: Fate::Committed,
            owner: String::new(),
        };
        cluster.partition(SimulatedTopic::Anomalies, 0).entries.resize(RECORDS as usize, entry);
        cluster.database.positions.insert(0, STORED);
        cluster.database.topic_ids.extend(stored.map(|id| (0, id.to_owned())));
    }
    let (stop, health) = (Stop::default(), Health::default());
    let part = health.component("sink");
    let mut config = Settings::default();
    config.sink.batch = 100;
    let reader = SimulatedConsumer::new(stage.clone(), 0, "sink", SimulatedTopic::Anomalies);
    let ledger = SimulatedConnection { stage: stage.clone(), me: 0, defect: None };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !matches!(part.state(), ComponentState::Degraded(_))
                && stage.look().cluster.database.positions[&0] < RECORDS
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.request();
        });
        Sink::new(reader, &config, Box::new(ledger), part.clone(), Meter::default(), &stop).run();
    });
    let complaint = match part.state() {
        ComponentState::Degraded(why) => Some(why),
        _ => None,
    };
    let database = &stage.look().cluster.database;
    (complaint, database.positions[&0], database.topic_ids.get(&0).cloned())
}

#[test]
fn a_worker_leaves_a_group_that_assigns_partitions_that_the_topic_lost_and_then_gets_the_others() {
    let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(4), 0.0));
    stage.enter_first();
    {
        let (now, cluster) = (Duration::ZERO, &mut stage.look().cluster);
        cluster.group.join("a", 0, now);
        cluster.group.settle(now, cluster.partitions);
        cluster.partitions = 2;
        cluster.topics.retain(|(topic, partition), _| *topic != SimulatedTopic::Input || *partition < 2);
    }
    let (config, health, stop) = (Settings::default(), Health::default(), Stop::default());
    let (part, rebalances) = (health.component("a"), VainRebalances::default());
    let run = || {
        let mut observer: CommitObserver = Box::new(|_| ());
        let log = SimulatedClient::by_names(stage.clone(), 0, "a", "one");
        let detector = Detector::new(DetectionSettings::default()).unwrap();
        let parts = (part.clone(), InputHealth::new(&health));
        let worker = Worker::new(log, detector, &config, parts, Meter::default(), &mut observer, &stop);
        worker.counting(rebalances.clone()).run()
    };
    let WorkerEnding::Rebuild(why) = run() else { panic!("it accepted the partitions") };
    assert!(why.contains("assigns partitions that raw_events does not have ([2]; [3])"), "{why}");
    assert!(stage.look().cluster.group.members.is_empty(), "it has left the group");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while part.state() != ComponentState::Running && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.request();
        });
        run();
    });
    assert_eq!(part.partitions().into_keys().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn offsets_of_a_topic_with_another_id_are_refused_with_the_remedy() {
    let (complaint, position, topic_id) = sink(Some("one"), Some("two"));
    let complaint = complaint.expect("a complaint");
    assert!(
        complaint.contains("has the id two, but the offset 4 in sink_offsets belongs to the id one"),
        "{complaint}"
    );
    assert!(complaint.ends_with("`anomaly offsets accept --sink` continues at its first record"), "{complaint}");
    assert_eq!((position, topic_id.as_deref()), (STORED, Some("one")), "nothing may move");
}

#[test]
fn a_topic_id_that_is_not_known_is_no_difference_and_is_noted_once_it_is() {
    assert_eq!(sink(None, Some("two")), (None, RECORDS, Some("two".into())));
    assert_eq!(sink(Some("one"), None), (None, RECORDS, Some("one".into())));
    assert_eq!(sink(None, None), (None, RECORDS, None));
    assert_eq!(sink(Some("one"), Some("one")), (None, RECORDS, Some("one".into())));
}

#[test]
fn a_topic_that_is_recreated_at_runtime_is_noticed_within_ten_seconds_and_before_the_first_commit_after_a_fault() {
    let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(1), 0.0));
    stage.enter_first();
    let mut reader = SimulatedConsumer::new(stage.clone(), 0, "a", SimulatedTopic::Input);
    let topic = |id: Option<&str>| stage.look().cluster.topic_id = id.map(str::to_owned);
    let later = |seconds: u64| stage.look().now += Duration::from_secs(seconds);
    let recreated = TopicSameness::Recreated("two".into());
    let mut watch = IdentityWatch::default();
    topic(Some("two"));
    later(10);
    assert_eq!(watch.watch(&mut reader), TopicSameness::Same, "nothing is known to compare with");
    let known = |watch: &mut IdentityWatch| {
        topic(Some("one"));
        let now = stage.look().now;
        watch.note(Some("one".into()), now);
    };
    known(&mut watch);
    topic(Some("two"));
    assert_eq!(watch.watch(&mut reader), TopicSameness::Same, "no comparison is due");
    assert_eq!(watch.confirm(&mut reader), TopicSameness::Same, "nothing has failed");
    later(10);
    assert_eq!(watch.watch(&mut reader), recreated);
    known(&mut watch);
    topic(Some("two"));
    watch.doubt();
    assert_eq!(watch.confirm(&mut reader), recreated, "a fault makes it necessary");
    known(&mut watch);
    topic(None);
    later(10);
    assert_eq!(watch.watch(&mut reader), TopicSameness::Same, "the id is not known, and nothing has failed");
    watch.doubt();
    assert_eq!(watch.confirm(&mut reader), TopicSameness::Unknown, "a commit waits");
    topic(Some("one"));
    assert_eq!(watch.confirm(&mut reader), TopicSameness::Same);
    topic(None);
    assert_eq!(watch.confirm(&mut reader), TopicSameness::Same, "the answer has removed the doubt");
}
