//! Configurations of librdkafka's clients. The program's properties override those of the user.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::tls;
use crate::config::resolved::KafkaSettings;

/// Property that finds a missing topic in seconds instead of minutes, also one that a starting broker does not know
/// yet.
pub(crate) const LOOK_OFTEN: (&str, &str) = ("topic.metadata.refresh.interval.ms", "5000");

/// Property that ends a hanging call. A call of a transaction waits without end for a coordinator that has left the
/// metadata, until the state of any connection changes (librdkafka #5511, #5456). Closing idle connections between two
/// metadata requests changes it.
pub(crate) const WAKE_UP: (&str, &str) = ("connections.max.idle.ms", "4500");

/// Property that sends records without delay. The records of a transaction are sent when it ends, so there is no reason
/// to wait.
pub(crate) const AT_ONCE: (&str, &str) = ("linger.ms", "0");

/// Sets defaults of this program for properties that the user has not set.
pub(crate) fn set_missing(config: &mut ClientConfig, kafka: &KafkaSettings, choices: &[(&str, &str)]) {
    for (property, value) in choices {
        let is_given = |name: &str| kafka.properties.contains_key(name);
        // librdkafka accepts a second name for these two.
        let by_alias = match *property {
            "compression.type" => is_given("compression.codec"),
            "linger.ms" => is_given("queue.buffering.max.ms"),
            _ => false,
        };
        if !is_given(property) && !by_alias {
            config.set(*property, *value);
        }
    }
}

const ID: &str = "anomaly";

/// Returns the client name that the cluster sees.
pub(crate) fn id(kafka: &KafkaSettings) -> &str {
    kafka.properties.get("client.id").map_or(ID, String::as_str)
}

/// Returns the properties of every client.
pub(crate) fn base(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (property, value) in &kafka.properties {
        config.set(property, value);
    }
    let set_unless_given = [
        ("client.id", ID),
        // After an outage the client reconnects within a second instead of ten.
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.keepalive.enable", "true"),
    ];
    set_missing(&mut config, kafka, &set_unless_given);
    if tls::uses_tls(kafka) {
        // Without a passphrase, OpenSSL asks on the terminal for that of an encrypted key. A key without a passphrase
        // ignores it.
        set_missing(&mut config, kafka, &[("ssl.key.password", "none is set")]);
    }
    config.set("bootstrap.servers", &kafka.bootstrap_servers).set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Enables statistics every two seconds, for the brokers and the ends of partitions.
pub(crate) fn watched(config: &mut ClientConfig) {
    config.set("statistics.interval.ms", "2000");
}

/// Returns the user's limit for the time that a broker holds back the answer to a fetch without records. The default of
/// half a second counts as none.
pub(crate) fn fetch_wait(kafka: &KafkaSettings) -> Duration {
    let given = kafka.properties.get("fetch.wait.max.ms").and_then(|given| given.trim().parse().ok());
    given.map_or(Duration::ZERO, Duration::from_millis)
}

/// Returns the interval between two heartbeats of a member.
pub(crate) fn heartbeat(session: Duration) -> Duration {
    session / 4
}

/// Returns the properties of a consumer in a group, at explicit offsets.
pub(crate) fn member(kafka: &KafkaSettings, group: &str, instance: &str, session: Duration) -> ClientConfig {
    let mut config = reader(kafka);
    config
        .set("group.id", group)
        .set("group.instance.id", instance)
        .set("session.timeout.ms", session.as_millis().to_string())
        .set("heartbeat.interval.ms", heartbeat(session).as_millis().to_string())
        .set("max.poll.interval.ms", session.as_millis().max(300_000).to_string())
        .set("partition.assignment.strategy", "range");
    watched(&mut config);
    config
}

/// Returns the properties of a consumer outside of any group, which receives the ends of partitions.
pub(crate) fn reader(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = base(kafka);
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set("enable.partition.eof", "true");
    let set_unless_given = [
        LOOK_OFTEN,
        // This halves the cost of delivery, because less memory is in transit between the threads.
        ("queued.max.messages.kbytes", "2048"),
        ("fetch.queue.backoff.ms", "1"),
        // Consecutive offset commits wait this long.
        ("retry.backoff.ms", "1"),
    ];
    set_missing(&mut config, kafka, &set_unless_given);
    config
}

/// Returns the properties of an idempotent producer. Keys map to partitions as in Java clients.
pub(crate) fn producer(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = base(kafka);
    config
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        // The broker decides the maximum size.
        .set("message.max.bytes", "100000000");
    let set_unless_given =
        [("compression.type", "lz4"), ("retry.backoff.ms", "1"), ("queue.buffering.max.kbytes", "262144")];
    set_missing(&mut config, kafka, &set_unless_given);
    config
}
