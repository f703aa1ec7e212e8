//! The proof, by promise. Each file says what it shows; `common` starts the real parts, `oracle` judges independently.
//!
//! Needs the box: `make test`, or `tests/run`. Tests take topics, groups and a schema of their own and run in parallel;
//! `faults` and `cluster` have boxes of their own, since they kill parts of them.

mod common;
/// Exact arithmetic that shares no code with `src/`.
mod oracle;
/// A box whose parts can be killed.
mod stage;

/// The arithmetic of windows and the screen that skips it, against the oracle.
mod arithmetic;
/// Whatever keeps records from being judged or stored is said in every place.
mod blind;
/// What the pages know by its arrival, whatever times the events have.
mod arrival;
/// The pages in a real browser.
mod browser;
/// Detectors that are killed at each step, stopped past their sessions, asked to stop under load.
mod chaos;
/// What is wrong before a start: files, topics, state, the database, the records.
mod check;
/// All faults in random order over a cluster of two brokers: `make chaos`, `make soak`.
mod cluster;
/// Settings, exit codes, notification, reload, signals.
mod daemon;
/// Pages and API on a real PostgreSQL.
mod dashboard;
/// `anomaly demo`, as `make demo` runs it.
mod demo;
/// Who may come in: TLS, passwords, roles of the database, clients that stall.
mod door;
/// The pages below a path, over plain HTTP, in browsers without storage.
mod edge;
/// Login to PostgreSQL by a client certificate.
mod certificate;
/// PostgreSQL behind a pooler, refusing, of another encoding, restored, one of several.
mod database;
/// Hosts without IPv4.
mod families;
/// Kafka and PostgreSQL away, coming and going.
mod faults;
/// Which room may import which.
mod layout;
/// `anomaly dlq`.
mod letters;
/// The event stream: each row once, also over a restart.
mod live;
/// Dropped packets.
mod network;
/// Standard output and standard error of every command.
mod output;
/// Events through Kafka to Kafka and PostgreSQL: each one verdict, the oracle's.
mod pipeline;
/// Generator, replay and host through Kafka.
mod producer;
/// What common producers send, byte for byte, and how it is read.
mod producers;
/// The pages behind nginx, Apache, HAProxy and Caddy.
mod proxies;
/// The table's partitions, and how long rows are kept.
mod retention;
/// `anomaly score`.
mod score;
/// `/metrics` as scrapers read it.
mod scrape;
/// Windows in their topic: survival, changed settings, and what cannot be trusted.
mod state;
