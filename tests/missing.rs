//! Tests of topics that are deleted while a role writes to them: health names the topic.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::common::{Case, Process, event, wait};
use crate::pipeline::wait_done;

fn delete(case: &Case, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deleted = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

/// Returns the first line of `/readyz` that contains a text.
fn line_of(process: &Process, words: &str) -> Option<String> {
    let (_, text) = process.get("/readyz")?;
    text.lines().find(|line| line.contains(words)).map(str::to_owned)
}

#[test]
fn a_deleted_topic_of_anomalies_is_named_and_its_aborts_are_logged_at_most_once_a_minute() {
    let case = Case::new("deleted_output");
    // The limit holds for each worker.
    let detector = case.detector("a", &[("SINK__ENABLED", "false"), ("DETECTOR__WORKERS", "1")]);
    case.produce((0..60).map(|i| event("a", f64::from(i % 5))));
    wait_done(&case, 60);
    let began = Instant::now();
    delete(&case, &case.anomalies());
    case.produce([event("a", 1e9)]);
    let reason = format!("topic {} does not exist", case.anomalies());
    wait("/readyz to name the topic", || line_of(&detector, &reason).is_some());
    eprintln!("the topic was named {:?} after its deletion", began.elapsed());
    let aborted = || detector.metric("anomaly_transactions_total{kind=\"aborted\"}");
    let before = aborted();
    wait("further aborts", || aborted() >= before + 5.0);
    let lines = detector.log().matches("transaction aborted").count() as u64;
    assert!(lines <= 1 + began.elapsed().as_secs() / 60, "{lines} lines: {}", detector.log());
    assert!(!detector.log().contains("timed out"), "not the reason: {}", detector.log());
    case.ok(&["topics"]);
    wait("the anomaly", || case.read(&case.anomalies()).len() == 1);
    wait("the detector to be ready", || matches!(detector.get("/readyz"), Some((200, _))));
}

#[test]
fn a_producer_whose_topic_was_deleted_names_the_topic() {
    let mut case = Case::bare("deleted_input", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 2);
    case.ok(&["topics"]);
    let producer = case.role("producer", &[("PRODUCER__RATE", "200")]);
    producer.wait_ready();
    delete(&case, &case.raw());
    let reason = format!("topic {} does not exist", case.raw());
    wait("/readyz to name the topic", || line_of(&producer, "publisher").is_some_and(|line| line.contains(&reason)));
    let log = producer.log();
    assert!(!log.contains("a broker has left the cluster"), "{log}");
    case.ok(&["topics"]);
    wait("the producer to be ready", || matches!(producer.get("/readyz"), Some((200, _))));
    assert!(producer.terminate(Duration::from_secs(20)).success());
}
