//! Tests of detectors that are killed at each step of the loop, resume after their sessions have expired, or share the
//! work with members that join and leave. Every event still has exactly the oracle's outcome.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;

use crate::common::{Case, wait};
use crate::pipeline::{events, verify, wait_done};

/// Every failure point, the number of times that it is passed before, and the interval of sweeps. Replay then covers
/// the records after a sweep.
const STEPS: [(&str, u32, &str); 11] = [
    ("assigned", 2, "300ms"),
    ("judged", 2, "300ms"),
    ("sent", 2, "300ms"),
    ("snapshots", 2, "300ms"),
    ("offsets", 2, "300ms"),
    ("rows", 2, "300ms"),
    ("rows committed", 2, "300ms"),
    ("committed", 5, "1h"),
    ("replaying", 1, "1h"),
    ("reading windows", 2, "1h"),
    ("committed", 2, "300ms"),
];

#[test]
fn killed_at_each_step_of_the_loop_it_loses_and_doubles_nothing() {
    let mut case = Case::new("steps");
    case.set("DETECTOR__COMMIT_EVENTS", "400");
    case.set("SINK__BATCH", "5");
    for (round, (step, times, interval)) in STEPS.into_iter().enumerate() {
        case.produce(events(200 + round as u64, 100, 4_000, 300));
        let at = format!("{step}:{times}");
        let settings = [("ANOMALY_KILL_AT", at.as_str()), ("DETECTOR__SNAPSHOT_INTERVAL", interval)];
        let mut detector = case.detector("a", &settings);
        let status = detector.exit(Duration::from_secs(60));
        assert_eq!(status.signal(), Some(9), "{step} was not reached:\n{}", detector.log());
    }
    let _last = case.detector("a", &[]);
    wait_done(&case, 44_000);
    verify(&case);
}

#[test]
fn a_zombie_that_wakes_after_its_successor_took_over_commits_nothing() {
    let mut case = Case::new("zombie");
    // Small transactions, so that it is stopped in the middle.
    case.set("DETECTOR__COMMIT_EVENTS", "100");
    case.set("DETECTOR__SESSION_TIMEOUT", "6s");
    case.produce(events(220, 100, 200_000, 500));
    let first = case.detector("a", &[]);
    wait("some progress", || case.committed() > 0);
    first.signal(Signal::STOP);
    let before = case.committed();
    assert!(before < 200_000, "it was over too soon");
    let second = case.detector("b", &[]);
    wait("the successor to judge", || case.committed() == 200_000);
    case.produce(events(221, 100, 20_000, 500));
    first.signal(Signal::CONT);
    wait("the zombie to be a member again", || {
        let of = |process: &crate::common::Process| process.metric("anomaly_events_total{kind=\"normal\"} ");
        case.produce(events(222, 100, 10, 0));
        case.committed() >= 220_000 && of(&first) > 0.0
    });
    let total = case.read(&case.raw()).len() as i64;
    wait_done(&case, total);
    assert!(first.terminate(Duration::from_secs(10)).success());
    assert!(second.terminate(Duration::from_secs(10)).success());
    verify(&case);
}

#[test]
fn a_membership_that_no_other_member_has_taken_is_resumed() {
    let mut case = Case::new("ghost");
    case.set("DETECTOR__SESSION_TIMEOUT", "6s");
    case.set("DETECTOR__WORKERS", 1);
    case.produce(events(230, 100, 20_000, 500));
    let detector = case.detector("a", &[]);
    wait_done(&case, 20_000);
    let group = format!("{}-detector", case.name);
    // The first time it joins again at once, the second time it checks whether another member runs.
    for round in 0..2 {
        let before = detector.log().matches("another member with this group.instance.id").count();
        // As if the coordinator died before it announced a new member id: another member id has the place, but no such member runs.
        let ghost: BaseConsumer = case
            .client()
            .set("group.id", &group)
            .set("group.instance.id", "a-0")
            .set("session.timeout.ms", "6000")
            .set("partition.assignment.strategy", "range")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        ghost.subscribe(&[&case.raw()]).unwrap();
        wait("the ghost to have the partitions", || {
            ghost.poll(Duration::from_millis(100));
            ghost.assignment().unwrap().count() == 4
        });
        drop(ghost);
        wait("the detector to be fenced", || {
            detector.log().matches("another member with this group.instance.id").count() > before
        });
        case.produce(events(231 + round, 100, 20_000, 500));
        wait_done(&case, 20_000 * (round as i64 + 2));
    }
    detector.wait_ready();
    assert!(detector.terminate(Duration::from_secs(10)).success());
    verify(&case);
}

#[test]
#[ignore = "two minutes; `make test-all`"]
fn twenty_stops_under_full_load_lose_and_double_nothing() {
    let mut case = Case::new("stops");
    case.set("DETECTOR__SNAPSHOT_INTERVAL", "500ms");
    for round in 0..20 {
        case.produce(events(240 + round, 200, 30_000, 500));
        let before = case.committed();
        let detector = case.detector("a", &[("DETECTOR__COMMIT_EVENTS", "2000")]);
        wait("some progress", || case.committed() > before);
        assert!(detector.terminate(Duration::from_secs(10)).success());
    }
    let _last = case.detector("a", &[]);
    wait_done(&case, 600_000);
    verify(&case);
}
