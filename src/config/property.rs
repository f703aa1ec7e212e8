//! Properties of librdkafka that settings may not change, and properties whose values are never shown.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use super::schema::{PROPERTIES, ValueType, find};

/// Returns whether a path names a secret. Secrets of librdkafka are known by their names.
pub fn is_secret(path: &str) -> bool {
    match path.strip_prefix(PROPERTIES) {
        Some(property) => {
            ["password", "passphrase", "secret", "key.pem", "token", "sasl.jaas"]
                .iter()
                .any(|word| property.contains(word))
                || property == ".sasl.oauthbearer.config"
        }
        None => find(path).is_some_and(|key| key.kind == ValueType::Secret),
    }
}

/// Returns why librdkafka refuses a single property, without its value, which may be a secret.
pub fn problem(property: &str, value: &str) -> Option<String> {
    match ClientConfig::new().set(property, value).create_native_config() {
        Ok(_) => None,
        Err(error) => Some(describe(&error)),
    }
}

/// Formats a refusal of librdkafka without the value that it repeats.
fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, property, value) if !value.is_empty() => {
            format!("{property}: {}", why.replace(value.as_str(), "***"))
        }
        KafkaError::ClientConfig(_, why, ..) => why.clone(),
        other => other.to_string(),
    }
}

/// Properties of librdkafka that users may not set, each with the reason: a change would break the delivery guarantee.
pub const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers instead"),
    ("metadata.broker.list", "set kafka.bootstrap_servers instead"),
    ("group.id", "set detector.group or sink.group instead"),
    ("group.instance.id", "set detector.instance instead"),
    ("group.protocol", "anomaly needs the classic protocol"),
    ("transactional.id", "set detector.instance instead"),
    ("transaction.timeout.ms", "anomaly derives it from detector.session_timeout"),
    ("session.timeout.ms", "set detector.session_timeout instead"),
    ("enable.idempotence", "without it records may be lost or doubled"),
    ("enable.gapless.guarantee", "it would end the producer on the first fault"),
    ("acks", "anything but all loses records"),
    ("request.required.acks", "anything but all loses records"),
    ("message.timeout.ms", "anomaly limits the time of a transaction with it"),
    ("delivery.timeout.ms", "anomaly limits the time of a transaction with it"),
    ("enable.auto.commit", "anomaly commits offsets in its transactions"),
    ("auto.commit.enable", "anomaly commits offsets in its transactions"),
    ("enable.auto.offset.store", "anomaly commits offsets in its transactions"),
    ("auto.offset.reset", "set detector.start instead"),
    ("isolation.level", "read_committed is part of the guarantee"),
    ("partition.assignment.strategy", "anomaly needs eager assignment"),
    ("partitioner", "murmur2_random places keys as Java clients do"),
    ("enable.partition.eof", "anomaly finds the end of a restore with it"),
    ("check.crcs", "damaged records must be noticed"),
    ("max.in.flight", "the order of records depends on it"),
    ("max.in.flight.requests.per.connection", "the order of records depends on it"),
    ("statistics.interval.ms", "lag is read from the statistics"),
    ("heartbeat.interval.ms", "anomaly derives it from detector.session_timeout"),
    ("max.poll.interval.ms", "anomaly derives it from detector.session_timeout"),
    ("message.max.bytes", "the broker decides what is too large"),
    ("allow.auto.create.topics", "`anomaly topics` creates them"),
];
