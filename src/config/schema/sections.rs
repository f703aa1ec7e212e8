//! The sections of the settings, each with its sentence.

/// One sentence about each section.
pub const SECTIONS: &[(&str, &str)] = &[
    (
        "kafka",
        "Connection to Kafka. [kafka.properties] accepts any librdkafka property, such as security.protocol or sasl.username.",
    ),
    ("topics", "Names of the topics, and how `anomaly topics` creates missing ones."),
    ("fields", "Where the four fields are in your JSON, and which spellings are accepted."),
    ("postgres", "Database that stores the anomalies."),
    ("migrate", "Database role that `anomaly migrate` uses, if it is another one."),
    ("service", "Start and stop of a role."),
    ("metrics", "Endpoint of each role with /healthz, /readyz and /metrics."),
    ("log", "Logging."),
    ("producer", "Events that the producer publishes to topics.raw_events."),
    ("detector", "Detection: which values are abnormal, and how the detector consumes events."),
    ("sink", "Sink, which copies anomalies from Kafka into PostgreSQL."),
    ("dashboard", "Pages of the dashboard, and access to them."),
    ("marks", "Database role that writes reviews, if it is another one."),
];
