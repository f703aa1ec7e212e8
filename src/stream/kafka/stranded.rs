//! Repairs clients that do not recover by themselves.
//!
//! A client may lose all brokers: a broker that has just started may report a cluster without brokers. librdkafka
//! accepts this, forgets all brokers including the first ones, and never connects again (its issue #5301).
//!
//! A member without partitions may search for its group's coordinator without end. Only the group makes it connect, and
//! a request that was lost with its broker is never repeated.

use std::ffi::CString;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::client;
use super::cluster_state::ClusterState;
use super::context::ConsumerEvents;
use crate::config::resolved::KafkaSettings;

/// Adds the bootstrap brokers to a stranded client again.
pub(crate) fn rescue<C: ClientContext>(client: &Client<C>, kafka: &KafkaSettings, trouble: &ClusterState) {
    if !trouble.take_stranded() {
        return;
    }
    // Settings contain no U+0000.
    let Ok(servers) = CString::new(kafka.bootstrap_servers.as_str()) else { return };
    // SAFETY: the client is alive, and the list is only read.
    let added = unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
    tracing::info!(added, "the client knew no broker any more; connecting to kafka.bootstrap_servers again");
}

/// Timeout for an answer to the other client.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns whether the group's coordinator answers another client, created for this call.
pub(crate) fn has_coordinator(kafka: &KafkaSettings, group: &str, topic: &str) -> bool {
    let mut config = client::reader(kafka);
    config.set("group.id", group);
    let Ok(other): KafkaResult<BaseConsumer<_>> = config.create_with_context(ConsumerEvents::new(topic)) else {
        return false;
    };
    other.context().close();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    other.committed_offsets(list, ANSWER_TIMEOUT).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::statistics::{Broker, Statistics};

    use super::super::cluster_state::is_stranded;
    use super::*;

    fn statistics(sources: &[&str]) -> Statistics {
        let broker = |source: &&str| (source.to_string(), Broker { source: source.to_string(), ..Broker::default() });
        Statistics { brokers: sources.iter().map(broker).collect(), ..Statistics::default() }
    }

    #[test]
    fn a_client_with_only_its_own_threads_is_stranded() {
        assert!(is_stranded(&statistics(&["internal", "logical"])));
        assert!(!is_stranded(&statistics(&["internal", "logical", "learned"])));
        assert!(!is_stranded(&statistics(&["configured"])));
    }

    #[test]
    #[ignore = "needs a broker: tests/run"]
    fn a_stranded_client_reaches_the_cluster_again() {
        let there = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("a box: run tests/run");
        let settings =
            |servers: &str| KafkaSettings { bootstrap_servers: servers.to_owned(), properties: BTreeMap::new() };
        // No process listens at this address, as if there were no broker.
        let consumer: BaseConsumer<ConsumerEvents> =
            client::reader(&settings("127.0.0.1:9")).create_with_context(ConsumerEvents::new("")).unwrap();
        let trouble = &consumer.context().trouble;
        assert!(consumer.fetch_metadata(None, Duration::from_millis(300)).is_err());
        trouble.update(&statistics(&["logical"]));
        rescue(consumer.client(), &settings(&there), trouble);
        assert!(consumer.fetch_metadata(None, Duration::from_secs(20)).is_ok());
        assert!(!trouble.take_stranded(), "once is enough");
    }

    #[test]
    #[ignore = "needs a broker: tests/run"]
    fn a_coordinator_is_available_when_it_answers_any_client() {
        let there = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("a box: run tests/run");
        let settings =
            |servers: &str| KafkaSettings { bootstrap_servers: servers.to_owned(), properties: BTreeMap::new() };
        wait_for_answer(|| has_coordinator(&settings(&there), "nobody", "nothing"));
        assert!(!has_coordinator(&settings("127.0.0.1:9"), "nobody", "nothing"));
    }

    /// Waits for an answer. A broker that has just started must load its groups first.
    fn wait_for_answer(answers: impl Fn() -> bool) {
        assert!((0..10).any(|_| answers()), "no answer in {} s", 10 * ANSWER_TIMEOUT.as_secs());
    }
}
