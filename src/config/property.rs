//! librdkafka's properties that settings may not choose, and those whose values are never shown.

use super::schema::{Kind, PROPERTIES, find};

/// Whether a path holds a secret; librdkafka's own are known by their names.
pub fn is_secret(path: &str) -> bool {
    match path.strip_prefix(PROPERTIES) {
        Some(property) => {
            ["password", "passphrase", "secret", "key.pem", "token", "sasl.jaas"]
                .iter()
                .any(|word| property.contains(word))
                || property == ".sasl.oauthbearer.config"
        }
        None => find(path).is_some_and(|key| key.kind == Kind::Secret),
    }
}

/// librdkafka settings that are ours to choose, with the reason: changing them would break the guarantee.
pub const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap_servers instead"),
    ("metadata.broker.list", "set kafka.bootstrap_servers instead"),
    ("group.id", "set detector.group or sink.group instead"),
    ("group.instance.id", "set detector.instance instead"),
    ("group.protocol", "the loop relies on the classic protocol"),
    ("transactional.id", "set detector.instance instead"),
    ("transaction.timeout.ms", "it is tied to the session timeout"),
    ("session.timeout.ms", "set detector.session_timeout instead"),
    ("enable.idempotence", "without it records may be lost or doubled"),
    ("enable.gapless.guarantee", "it would end the producer on the first fault"),
    ("acks", "anything but all loses records"),
    ("request.required.acks", "anything but all loses records"),
    ("message.timeout.ms", "it bounds the transaction"),
    ("delivery.timeout.ms", "it bounds the transaction"),
    ("enable.auto.commit", "offsets travel in the transaction"),
    ("auto.commit.enable", "offsets travel in the transaction"),
    ("enable.auto.offset.store", "offsets travel in the transaction"),
    ("auto.offset.reset", "set detector.start instead"),
    ("isolation.level", "read_committed is part of the guarantee"),
    ("partition.assignment.strategy", "the loop relies on eager assignment"),
    ("partitioner", "murmur2_random places keys as Java clients do"),
    ("enable.partition.eof", "the restore relies on it"),
    ("check.crcs", "damaged records must be noticed"),
    ("max.in.flight", "ordering relies on it"),
    ("max.in.flight.requests.per.connection", "ordering relies on it"),
    ("statistics.interval.ms", "lag is read from the statistics"),
];
