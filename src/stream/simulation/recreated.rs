//! Tests a sink whose topic was deleted and created again: the ledger's offsets are invalid in the new topic, whatever
//! its length.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use super::consumer::SimulatedConsumer;
use super::database::SimulatedConnection;
use super::stage::Scheduler;
use crate::config::resolved::Settings;
use crate::health::{ComponentState, Health};
use crate::meter::Meter;
use crate::stop::Stop;
use crate::stream::sink::Sink;

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
fn offsets_of_a_topic_with_another_id_are_refused_with_the_remedy() {
    let (complaint, position, topic_id) = sink(Some("one"), Some("two"));
    let complaint = complaint.expect("a complaint");
    assert!(
        complaint.contains("has the id two, but the offset 4 in sink_offsets belongs to the id one"),
        "{complaint}"
    );
    assert!(complaint.ends_with("Delete the partition's row from sink_offsets"), "{complaint}");
    assert_eq!((position, topic_id.as_deref()), (STORED, Some("one")), "nothing may move");
}

#[test]
fn a_topic_id_that_is_not_known_is_no_difference_and_is_noted_once_it_is() {
    assert_eq!(sink(None, Some("two")), (None, RECORDS, Some("two".into())));
    assert_eq!(sink(Some("one"), None), (None, RECORDS, Some("one".into())));
    assert_eq!(sink(None, None), (None, RECORDS, None));
    assert_eq!(sink(Some("one"), Some("one")), (None, RECORDS, Some("one".into())));
}
