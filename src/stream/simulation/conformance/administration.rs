//! Runs one script of requests about topics against the simulated topics and against a broker.

use std::time::Duration;

use super::super::topics::SimulatedTopics;
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{ClusterAdministration, NewTopicRequest};
use crate::stream::kafka::KafkaAdministration;

/// Calls every method of the trait; returns the answers without the texts of errors.
fn script(cluster: &mut impl ClusterAdministration, topic: &str) -> Vec<String> {
    let compact = [("cleanup.policy", "compact"), ("max.message.bytes", "2000000")];
    let request = NewTopicRequest { name: topic, partitions: 2, replication: Some(1), config: &compact };
    let properties = ["cleanup.policy", "max.message.bytes"];
    let mut answers = Vec::new();
    let mut note = |what: &str, answer: &dyn std::fmt::Debug| answers.push(format!("{what}: {answer:?}"));
    note("brokers", &cluster.brokers(Duration::from_secs(20)).map(|brokers| brokers > 0).map_err(drop));
    note("a missing topic", &cluster.partitions_of(topic).map_err(drop));
    note("its configuration", &cluster.config_of(topic).is_err());
    note("more partitions of it", &cluster.add_partitions(topic, 3).is_err());
    note("its creation", &cluster.create_topic(&request).map_err(drop));
    note("it exists at once", &cluster.partitions_of(topic).map_err(drop));
    note("again", &cluster.create_topic(&NewTopicRequest { partitions: 7, config: &[], ..request }).map_err(drop));
    note("it is as before", &cluster.partitions_of(topic).map_err(drop));
    let config = cluster.config_of(topic).map_err(drop).unwrap();
    note("its properties", &properties.map(|property| config.get(property)));
    note("no more partitions", &cluster.add_partitions(topic, 2).is_err());
    note("one more", &cluster.add_partitions(topic, 3).map_err(drop));
    // The answer arrives before all brokers know the partition.
    let began = std::time::Instant::now();
    while cluster.partitions_of(topic).map_err(drop) != Ok(Some(3)) {
        assert!(began.elapsed() < Duration::from_secs(20), "the partition was not added");
        std::thread::sleep(Duration::from_millis(20));
    }
    let plain = format!("{topic}.plain");
    note(
        "a plain topic",
        &cluster.create_topic(&NewTopicRequest { name: &plain, config: &[], ..request }).map_err(drop),
    );
    let config = cluster.config_of(&plain).map_err(drop).unwrap();
    note("the broker's defaults", &properties.map(|property| config.get(property)));
    answers
}

#[test]
fn the_script_passes_on_the_simulated_topics() {
    let answers = script(&mut SimulatedTopics::default(), "t");
    assert!(answers.contains(&"it is as before: Ok(Some(2))".to_owned()), "{answers:#?}");
}

#[test]
#[ignore = "needs a broker: tests/run"]
fn the_simulated_topics_answer_as_a_real_broker_does() {
    let servers = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("no box: run tests/run");
    let kafka = KafkaSettings { bootstrap_servers: servers, properties: [].into() };
    let name = format!("administration_{}", std::process::id());
    let real = script(&mut KafkaAdministration::new(&kafka).unwrap(), &name);
    assert_eq!(script(&mut SimulatedTopics::default(), &name), real);
}
