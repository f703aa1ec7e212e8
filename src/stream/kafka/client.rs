//! Configurations of librdkafka's clients. The user's properties come first, ours after them.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::tls;
use crate::config::resolved::KafkaSettings;

/// A topic that was missing, or that a broker did not know yet while it started, is found in seconds, not minutes.
pub const LOOK_OFTEN: (&str, &str) = ("topic.metadata.refresh.interval.ms", "5000");

/// A transaction's call waits without end for a coordinator that has left the metadata, until any connection changes its state
/// (librdkafka #5511, #5456): idle ones do so, between two looks at the topics.
pub const WAKE_UP: (&str, &str) = ("connections.max.idle.ms", "4500");

/// A transaction's records are sent when it ends: there is nothing more to wait for.
pub const AT_ONCE: (&str, &str) = ("linger.ms", "0");

/// Our choice where the user made none.
pub fn set_missing(config: &mut ClientConfig, kafka: &KafkaSettings, choices: &[(&str, &str)]) {
    for (property, value) in choices {
        let is_given = |name: &str| kafka.properties.contains_key(name);
        // librdkafka has a second name for these.
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

/// The name that our clients give to the cluster.
pub fn id(kafka: &KafkaSettings) -> &str {
    kafka.properties.get("client.id").map_or(ID, String::as_str)
}

/// What every client has.
pub fn base(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (property, value) in &kafka.properties {
        config.set(property, value);
    }
    let set_unless_given = [
        ("client.id", ID),
        // Back within a second, not ten, after an outage.
        ("reconnect.backoff.max.ms", "1000"),
        ("socket.keepalive.enable", "true"),
    ];
    set_missing(&mut config, kafka, &set_unless_given);
    if tls::uses_tls(kafka) {
        // Without any, OpenSSL asks on the terminal for the passphrase of an encrypted key. A key without one ignores it.
        set_missing(&mut config, kafka, &[("ssl.key.password", "none is set")]);
    }
    config.set("bootstrap.servers", &kafka.bootstrap_servers).set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Lets the client tell every two seconds of its brokers and of the ends of partitions.
pub fn watched(config: &mut ClientConfig) {
    config.set("statistics.interval.ms", "2000");
}

/// Between two heartbeats of a member.
pub fn heartbeat(session: Duration) -> Duration {
    session / 4
}

/// A consumer that takes part in a group, at offsets that it is told.
pub fn member(kafka: &KafkaSettings, group: &str, instance: &str, session: Duration) -> ClientConfig {
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

/// A consumer outside any group, which is told the ends of partitions.
pub fn reader(kafka: &KafkaSettings) -> ClientConfig {
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
        // Half the cost of delivery: less memory in flight between librdkafka's threads and ours.
        ("queued.max.messages.kbytes", "2048"),
        ("fetch.queue.backoff.ms", "1"),
        // Offset commits that follow one another at once wait this long.
        ("retry.backoff.ms", "1"),
    ];
    set_missing(&mut config, kafka, &set_unless_given);
    config
}

/// An idempotent producer. Keys are placed as Java clients place them.
pub fn producer(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = base(kafka);
    config
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        // The broker decides what is too large.
        .set("message.max.bytes", "100000000");
    let set_unless_given =
        [("compression.type", "lz4"), ("retry.backoff.ms", "1"), ("queue.buffering.max.kbytes", "262144")];
    set_missing(&mut config, kafka, &set_unless_given);
    config
}
