//! The sections of the settings, each with its sentence.

/// One sentence about each section.
pub const SECTIONS: &[(&str, &str)] = &[
    (
        "kafka",
        "The cluster. [kafka.properties] passes any librdkafka setting on, such as security.protocol or sasl.username.",
    ),
    ("topics", "Names of the topics, and how `anomaly topics` creates those that are missing."),
    ("fields", "Where the four fields are in your JSON, as dotted paths, and how they are spelt."),
    ("postgres", "The database that keeps the anomalies."),
    ("migrate", "The role that `anomaly migrate` uses, when it is another one."),
    ("service", "How a role starts and stops."),
    ("metrics", "/healthz, /readyz and /metrics of a role."),
    ("log", "What is logged, and where."),
    ("producer", "What is published to topics.raw_events."),
    ("detector", "What is abnormal, and how events are taken."),
    ("sink", "Anomalies into PostgreSQL."),
    ("dashboard", "The pages."),
    ("marks", "The role that writes what people say of anomalies, when it is another one."),
];
