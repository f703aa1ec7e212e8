//! Topics that are deleted and created again, while a role runs or between two runs. The offsets of the earlier topic
//! mean nothing in the new one, also if the new one has more records.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Case, Process, event, wait};
use crate::offsets::change;
use crate::pipeline::{events, forge, wait_done};
use crate::state::{OFTEN, case, recreate};

/// Longest time until a recreated topic is noticed: the interval of the comparison, and the start of a slow machine.
const NOTICE: Duration = Duration::from_secs(30);

/// Copies of an anomaly whose records have these offsets.
fn copies(good: &serde_json::Value, offsets: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    let copy = |offset: i64| {
        let mut copy = good.clone();
        copy["source"]["offset"] = offset.into();
        copy.to_string().into_bytes()
    };
    offsets.map(copy).collect()
}

fn says(detector: &Process, what: &str) -> bool {
    matches!(detector.get("/readyz"), Some((503, text)) if text.contains(what))
}

/// A detector whose sink has stored 11 rows and one refused record of topic `anomalies`.
fn stored(name: &str) -> (Case, Process, serde_json::Value) {
    let case = Case::new(name);
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", 99.0)]));
    let detector = case.detector("a", &[]);
    wait_done(&case, 41);
    let good = case.read(&case.anomalies())[0].json();
    forge(&case, &copies(&good, 1_000..1_010));
    forge(&case, &[b"no anomaly".to_vec()]);
    wait("the rows", || case.count("anomalies") == 11 && case.count("sink_rejects") == 1);
    assert_eq!(case.count("sink_offsets where topic_id is null"), 0);
    (case, detector, good)
}

/// The records of the new topic: at the offset of the earlier refused record there is a refused one again.
fn refill(case: &Case, good: &serde_json::Value) {
    let rows = copies(good, 2_000..2_030);
    let (before, after) = rows.split_at(10);
    let bad = || vec![b"no anomaly either".to_vec(); 3];
    forge(case, &[before, &bad(), after].concat());
}

/// Accepts the recreated topic, and checks that every record of both topics is in the database.
fn accept(case: &Case, detector: &Process) {
    let accepted = case.ok(&["offsets", "accept", "--sink"]);
    assert!(accepted.contains("continues at offset 0 instead of"), "{accepted}");
    wait("the rows of the new topic", || case.count("anomalies") == 41);
    assert_eq!(case.count("sink_rejects"), 4, "none of them replaces another");
    assert_eq!(case.count("sink_rejects where generation = 1"), 3);
    assert!(case.ok(&["offsets", "accept", "--sink"]).contains("nothing to accept"));
    wait("the sink to run", || !says(detector, "was recreated"));
}

#[test]
fn a_topic_of_anomalies_that_is_recreated_while_the_sink_is_away_loses_no_row_and_no_rejected_record() {
    let (case, detector, good) = stored("sink_recreated");
    assert!(detector.terminate(Duration::from_secs(20)).success());
    recreate(&case, &case.anomalies());
    refill(&case, &good);
    let detector = case.detector("a", &[]);
    wait("/readyz to say it", || says(&detector, "`anomaly offsets accept --sink` continues at its first record"));
    assert_eq!(case.count("anomalies"), 11);
    accept(&case, &detector);
}

#[test]
fn a_topic_of_anomalies_that_is_recreated_while_the_sink_runs_is_noticed() {
    let (case, detector, good) = stored("sink_running");
    // It sees neither the deletion nor a topic that is shorter than before.
    detector.signal(Signal::STOP);
    recreate(&case, &case.anomalies());
    refill(&case, &good);
    detector.signal(Signal::CONT);
    let began = Instant::now();
    wait("/readyz to say it", || says(&detector, "was recreated or cut"));
    let took = began.elapsed();
    eprintln!("the sink noticed it after {took:?}");
    assert!(took < NOTICE, "{took:?}");
    accept(&case, &detector);
}

#[test]
fn an_input_that_is_recreated_stops_a_detector_that_stores_no_windows() {
    let case = case("running_history");
    case.produce(events(40, 40, 1_000, 500));
    // A second worker that joins late would take partitions over, and name the last judged record instead.
    let mut detector = case.detector("a", &[("DETECTOR__STATE", "history"), ("DETECTOR__WORKERS", "1")]);
    wait_done(&case, 1_000);
    detector.signal(Signal::STOP);
    recreate(&case, &case.raw());
    case.produce(events(40, 40, 2_000, 500));
    detector.signal(Signal::CONT);
    assert_eq!(detector.exit(NOTICE).code(), Some(65), "{}", detector.log());
    assert!(detector.log().contains("was recreated while this detector was running"), "{}", detector.log());
}

#[test]
fn an_input_that_is_recreated_while_the_detector_runs_stops_it_and_its_records_are_judged_after_the_remedy() {
    let case = case("running");
    case.produce(events(40, 40, 4_000, 500));
    let mut detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 4_000);
    let before = case.read(&case.anomalies()).len();
    wait("the rows", || case.count("anomalies") == before as i64);
    detector.signal(Signal::STOP);
    recreate(&case, &case.raw());
    // More records than the earlier topic had: its offsets exist again.
    case.produce(events(40, 40, 8_000, 500));
    detector.signal(Signal::CONT);
    let began = Instant::now();
    assert_eq!(detector.exit(NOTICE).code(), Some(65), "{}", detector.log());
    eprintln!("the detector noticed it after {:?}", began.elapsed());
    let log = detector.log();
    assert!(log.contains("was recreated") && log.contains("run `anomaly offsets set all earliest`"), "{log}");
    change(&case, &["set", "all", "earliest"]);
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 8_000);
    detector.wait_ready();
    let all = case.read(&case.anomalies());
    let later = all.iter().filter(|got| got.json()["source"]["generation"] == 1).count();
    assert!(later > 0 && all.len() - later >= before, "{later} of {} after {before}", all.len());
    wait("the rows of both topics", || case.count("anomalies") == all.len() as i64);
    assert_eq!(case.count("sink_rejects"), 0, "no anomaly of one topic is taken for one of the other");
    assert_eq!(case.count("anomalies where source_generation = 1"), later as i64);
}
