//! A client without any broker, and the way back. A broker that has just started may tell of a cluster without brokers;
//! librdkafka believes it, forgets all that it knew, the first ones included, and never connects again (its issue #5301).

use std::ffi::CString;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::statistics::Statistics;

use super::context::Trouble;
use crate::config::resolved::Kafka;

/// Whether the client has no broker left that it could connect to.
pub fn is(statistics: &Statistics) -> bool {
    !statistics.brokers.values().any(|broker| matches!(broker.source.as_str(), "learned" | "configured"))
}

/// Gives a stranded client the first brokers again.
pub fn rescue<C: ClientContext>(client: &Client<C>, kafka: &Kafka, trouble: &Trouble) {
    if !trouble.take_stranded() {
        return;
    }
    // Settings do not hold U+0000.
    let Ok(servers) = CString::new(kafka.bootstrap_servers.as_str()) else { return };
    // SAFETY: the client is alive, and the list is only read.
    let added = unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
    tracing::info!(added, "no broker was left to connect to; beginning again from kafka.bootstrap_servers");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::statistics::Broker;

    use super::super::client;
    use super::super::context::Member;
    use super::*;

    fn statistics(sources: &[&str]) -> Statistics {
        let broker = |source: &&str| (source.to_string(), Broker { source: source.to_string(), ..Broker::default() });
        Statistics { brokers: sources.iter().map(broker).collect(), ..Statistics::default() }
    }

    #[test]
    fn a_client_with_only_its_own_threads_is_stranded() {
        assert!(is(&statistics(&["internal", "logical"])));
        assert!(!is(&statistics(&["internal", "logical", "learned"])));
        assert!(!is(&statistics(&["configured"])));
    }

    #[test]
    fn a_stranded_client_reaches_the_cluster_again() {
        let there = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("a box: run tests/run");
        let settings = |servers: &str| Kafka { bootstrap_servers: servers.to_owned(), properties: BTreeMap::new() };
        // Nobody listens there: as good as no broker at all.
        let consumer: BaseConsumer<Member> =
            client::reader(&settings("127.0.0.1:9")).create_with_context(Member::new("")).unwrap();
        let trouble = &consumer.context().trouble;
        assert!(consumer.fetch_metadata(None, Duration::from_millis(300)).is_err());
        trouble.look(&statistics(&["logical"]));
        rescue(consumer.client(), &settings(&there), trouble);
        assert!(consumer.fetch_metadata(None, Duration::from_secs(20)).is_ok());
        assert!(!trouble.take_stranded(), "once is enough");
    }
}
