//! Tests of Kafka and PostgreSQL that start late, stop and return, on a separate box. No event is lost or duplicated,
//! and health reports the problem meanwhile.

use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::browser::{Browser, has};
use crate::common::{Case, Parts, Process, event, free_port, wait};
use crate::pipeline::{events, verify, wait_done};
use crate::stage::Stage;

/// Only one test runs at a time, because each uses the whole box.
static BOX: Mutex<()> = Mutex::new(());

struct Box {
    stage: Stage,
    _turn: MutexGuard<'static, ()>,
}

impl Box {
    fn up() -> (Box, Parts) {
        let turn = BOX.lock().unwrap_or_else(PoisonError::into_inner);
        let (stage, parts) = Stage::up("box-faults", 21910, 1);
        (Box { stage, _turn: turn }, parts)
    }

    fn run(&self, arguments: &[&str]) {
        self.stage.run(arguments);
    }
}

fn case(name: &str, parts: Parts) -> Case {
    let case = Case::bare(name, parts);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    case
}

fn wait_degraded(process: &Process, why: &str) {
    wait(
        &format!("/readyz to say `{why}`"),
        || matches!(process.get("/readyz"), Some((503, text)) if text.contains(why)),
    );
    assert_eq!(process.get("/healthz").map(|(status, _)| status), Some(200));
}

#[test]
#[ignore = "kills the broker: a minute or more; `make test-all`"]
fn a_broker_that_starts_late_stops_and_returns_costs_only_time() {
    let (stage, parts) = Box::up();
    let case = case("broker", parts);
    case.produce(events(20, 100, 20_000, 500));
    stage.run(&["down", "kafka"]);
    let detector = case.detector("a", &[]);
    wait_degraded(&detector, "worker-0");
    // It publishes on through the outage; what it holds back arrives afterwards.
    let publisher = case.role("producer", &[("PRODUCER__RATE", "2000"), ("PRODUCER__COUNT", "30000")]);
    stage.run(&["up", "kafka"]);
    detector.wait_ready();
    wait("the first events", || case.committed() > 20_000);
    stage.run(&["kill", "kafka"]);
    wait_degraded(&detector, "Kafka");
    // Longer than every timeout that would give up.
    std::thread::sleep(Duration::from_secs(150));
    stage.run(&["up", "kafka"]);
    let mut publisher = publisher;
    assert!(publisher.exit(Duration::from_secs(90)).success());
    let log = publisher.log();
    assert!(log.contains("delivered=30000"), "{log}");
    // What was on its way when the broker died may be there twice; the producer says how much that can be.
    let doubtful = log.lines().filter(|line| line.contains("may arrive twice"));
    let doubtful = doubtful.filter_map(|line| line.rsplit_once("events=")?.1.trim().parse::<i64>().ok()).sum::<i64>();
    let total = case.read(&case.raw()).len() as i64;
    assert!((50_000..=50_000 + doubtful).contains(&total), "{total} events, {doubtful} doubtful");
    wait_done(&case, total);
    detector.wait_ready();
    assert!(detector.terminate(Duration::from_secs(10)).success());
    verify(&case);
}

#[test]
fn a_database_that_starts_late_and_restarts_under_load_stops_the_sink_only() {
    let (stage, parts) = Box::up();
    let case = case("database", parts);
    stage.run(&["down", "postgres"]);
    case.produce(events(21, 100, 50_000, 500));
    let detector = case.detector("a", &[]);
    wait("the detector to judge without a database", || case.committed() == 50_000);
    wait_degraded(&detector, "PostgreSQL is unreachable");
    wait("a heartbeat to fail", || detector.log().contains("cannot write detector_status"));
    stage.run(&["up", "postgres"]);
    wait("the sink to catch up", || case.count("anomalies") > 0);
    wait("the first heartbeat", || case.count("detector_status") > 0);
    let said = case.count("detector_conditions where message like 'cannot write%'");
    assert_eq!(said, 0, "a heartbeat that arrives does not say that none can be written");
    case.produce(events(22, 100, 50_000, 500));
    stage.run(&["kill", "postgres"]);
    case.produce(events(23, 100, 50_000, 500));
    stage.run(&["up", "postgres"]);
    wait_done(&case, 150_000);
    detector.wait_ready();
    verify(&case);
}

#[test]
fn an_open_page_says_by_itself_that_postgresql_stopped_or_died_and_is_whole_after_its_return() {
    let (stage, parts) = Box::up();
    let case = case("page", parts);
    let _detector = case.detector("a", &[]);
    let server = format!("{}:{}", case.parts.get("POSTGRES__HOST"), case.parts.get("POSTGRES__PORT"));
    let listen = format!("127.0.0.1:{}", free_port());
    let _dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen), ("DASHBOARD__REFRESH", "1h")]);
    case.produce((0..40).map(|i| event("pump-0042", 20.0 + f64::from(i % 3))));
    case.produce([event("pump-0042", 99.0)]);
    wait("the row", || case.count("anomalies") == 1);
    let browser = Browser::open();
    browser.go(&format!("http://{listen}/"));
    browser.value("(window.isSame = true)");
    let says = |text: &str| format!("document.getElementById('live').textContent === '{text}'");
    browser.wait("the stream", &says("Live"));
    for (way, device) in [("down", "fan-0007"), ("kill", "press-0009")] {
        std::thread::scope(|scope| {
            scope.spawn(|| stage.run(&[way, "postgres"]));
            wait("the server to stop listening", || TcpStream::connect(&server).is_err());
            let gone = Instant::now();
            browser.wait("the outage", &has("PostgreSQL has been unreachable since"));
            let delay = gone.elapsed();
            println!("{way}: reported after {delay:?}");
            assert!(delay < Duration::from_secs(10), "{way}: reported after {delay:?}");
        });
        browser.wait("the label", &says("No answer from the database"));
        assert!(browser.text().contains("pump-0042"), "what was known stays");
        stage.run(&["up", "postgres"]);
        let back = Instant::now();
        browser.wait(
            "the page to be whole",
            "!document.getElementById('main').textContent.includes('PostgreSQL has been unreachable since')",
        );
        let forgotten = back.elapsed();
        println!("{way}: forgotten after {forgotten:?}");
        assert!(forgotten < Duration::from_secs(15), "{way}: forgotten after {forgotten:?}");
        browser.wait("the label", &says("Live"));
        case.produce((0..40).map(|i| event(device, 20.0 + f64::from(i % 3))));
        case.produce([event(device, 99.0)]);
        browser.wait("what comes then", &has(device));
        assert_eq!(browser.value("window.isSame"), true, "the page was loaded again");
    }
}

#[test]
fn a_sink_whose_connections_are_killed_all_the_while_writes_each_row_once() {
    let (stage, parts) = Box::up();
    let case = case("terminated", parts);
    let detector = case.detector("a", &[("SINK__BATCH", "20")]);
    let mut killer = case.parts.postgres();
    for round in 0..40 {
        case.produce(events(100 + round, 100, 4_000, 0));
        let others = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and \
                      backend_type = 'client backend'";
        killer.batch_execute(others).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_done(&case, 160_000);
    verify(&case);
    drop((detector, stage));
}

#[test]
fn a_sink_on_a_read_only_standby_waits_for_a_database_that_takes_writes() {
    let (stage, parts) = Box::up();
    let case = case("standby", parts);
    let mut admin = case.parts.postgres();
    // As after a failover: the same address, and no client may write.
    let user = case.parts.get("POSTGRES__USER").to_owned();
    admin.batch_execute(&format!("alter role {user} set default_transaction_read_only = on")).unwrap();
    let detector = case.detector("a", &[]);
    case.produce(events(26, 100, 20_000, 500));
    wait_degraded(&detector, "a read-only standby");
    admin.batch_execute(&format!("alter role {user} reset default_transaction_read_only")).unwrap();
    wait_done(&case, 20_000);
    verify(&case);
    drop(stage);
}

#[test]
fn a_sink_that_loses_its_membership_during_an_outage_of_the_database_joins_again() {
    let (stage, parts) = Box::up();
    let case = case("usurped", parts);
    stage.run(&["down", "postgres"]);
    let detector = case.detector("a", &[]);
    case.produce(events(25, 100, 20_000, 500));
    wait_degraded(&detector, "PostgreSQL is unreachable");
    // Its workers are of another group; its sink takes the first one's place by the same name, and dies.
    let empty = format!("{}.state", case.name);
    let usurper = case.detector(
        "a",
        &[
            ("DETECTOR__GROUP", "usurper"),
            ("TOPICS__RAW_EVENTS", &empty),
            ("TOPICS__STATE", "unused"),
            ("DETECTOR__STATE", "history"),
        ],
    );
    wait(
        "the usurper to be degraded by its sink",
        || matches!(usurper.get("/readyz"), Some((503, text)) if text.contains("sink: PostgreSQL is unreachable")),
    );
    drop(usurper);
    stage.run(&["up", "postgres"]);
    wait_done(&case, 20_000);
    assert!(case.count("anomalies") > 0);
    wait("the sink to be caught up", || detector.metric("anomaly_sink_lag ") == 0.0);
    verify(&case);
}

#[test]
fn a_producer_whose_broker_dies_has_a_bounded_queue_and_a_stop_reports_what_was_not_delivered() {
    let (stage, parts) = Box::up();
    let mut case = case("queue", parts);
    case.set("SERVICE__DRAIN_TIMEOUT", "1s");
    let mut producer = case.role("producer", &[("PRODUCER__RATE", "0")]);
    producer.wait_ready();
    stage.run(&["kill", "kafka"]);
    wait_degraded(&producer, "Kafka is unreachable");
    let mut before = 0;
    wait("the memory to stop growing", || {
        std::thread::sleep(Duration::from_millis(500));
        let now = producer.mebibytes("VmRSS:");
        std::mem::replace(&mut before, now) == now
    });
    assert!(producer.mebibytes("VmHWM:") < 256, "{} MiB", producer.mebibytes("VmHWM:"));
    producer.signal(rustix::process::Signal::TERM);
    assert_eq!(producer.exit(Duration::from_secs(15)).code(), Some(69));
    let log = producer.log();
    let report =
        log.split_once(" events were not delivered in time and 0 were refused").unwrap_or_else(|| panic!("{log}"));
    let undelivered = report.0.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    // The whole queue, and the event in hand.
    assert!((100_000..=200_001).contains(&undelivered), "{undelivered}");
    stage.run(&["up", "kafka"]);
}

#[test]
#[ignore = "kills the broker: a minute or more; `make test-all`"]
fn sigterm_ends_in_time_although_the_broker_is_unavailable() {
    let (stage, parts) = Box::up();
    let case = case("away", parts);
    case.produce(events(24, 100, 400_000, 500));
    let detector = case.detector("a", &[("DETECTOR__COMMIT_EVENTS", "1000")]);
    wait("some progress", || case.committed() > 0);
    stage.run(&["kill", "kafka"]);
    assert!(detector.terminate(Duration::from_secs(10)).success());
    stage.run(&["up", "kafka"]);
    let before = case.committed();
    assert!(before < 400_000, "nothing was under way");
    let _again = case.detector("a", &[]);
    wait_done(&case, 400_000);
    verify(&case);
}
