//! Tests of the program's promises. Each file says what it shows. `common` starts real services; `oracle` judges
//! independently.
//!
//! The files are grouped by what they need. `make test` and `tests/run` start the box. Each test has its own topics, groups
//! and schema, and runs in parallel with others.

// Shared code.

mod common;
/// Exact arithmetic, which shares no code with `src/`.
mod oracle;
/// A box whose services can be killed.
mod stage;

// Tests that need no service.

/// The arithmetic of windows, and the screen that skips it, compared with the oracle.
mod arithmetic;
/// The command `anomaly score` with the method `adaptive`, compared with another program.
mod detection;
/// The rooms and files that each file may import.
mod layout;
/// The command `anomaly passwd`.
mod passwd;
/// The command `anomaly score`.
mod score;

// Tests that need the box: a broker and a database.

/// Access control: TLS, passwords, roles of the database, clients that stall.
mod access;
/// What the pages show by time of arrival, whatever times the events have.
mod arrival;
/// Every cause that keeps records from being judged or stored is reported everywhere.
mod blind;
/// Compressed batches that expand to more memory than the process may use.
mod bombs;
/// Login to PostgreSQL with a client certificate.
mod certificate;
/// Detectors that are killed at each step, stopped longer than their sessions, or stopped under load.
mod chaos;
/// Problems that the check finds before a start: files, topics, state, the database, the records.
mod check;
/// Settings, exit codes, notification, reload and signals.
mod daemon;
/// Topics with a damaged batch: what each reader reports, and which records it processes.
mod damage;
/// Pages and API over a real PostgreSQL.
mod dashboard;
/// PostgreSQL behind a pooler, refusing, with another encoding, restored, or one of several hosts.
mod database;
/// The commands of `anomaly dlq`.
mod dead_letters;
/// The pages below a path, over plain HTTP, and in browsers without storage.
mod edge;
/// Exports whose clients read nothing.
mod exports;
/// The pages on hosts without IPv4.
mod families;
/// A PostgreSQL, or a pooler, that accepts connections and stops answering.
mod frozen;
/// Anomalies of topics of one name, which differ only in their generation.
mod generations;
/// The heartbeat while the database refuses one of its tables.
mod heartbeat;
/// The detector after the cluster has lost or replaced records.
mod incidents;
/// The event stream: each row once, also over a restart of the server.
mod live;
/// Topics that are deleted while a role writes to them.
mod missing;
/// The command `anomaly offsets`, and offsets that another program has committed.
mod offsets;
/// Standard output and standard error of every command.
mod output;
/// Methods, limits and exclusions of single series.
mod overrides;
/// The permissions of the detector's role in the database.
mod permissions;
/// Events through Kafka to Kafka and PostgreSQL: each has one verdict, which equals the oracle's.
mod pipeline;
/// Generator, replay and host metrics through Kafka.
mod producer;
/// Records of common producers, byte for byte, and how they are decoded.
mod producers;
/// Topics that are deleted and created again: offsets of the earlier topic are never used in the new one.
mod recreated;
/// The table's partitions, and how long rows are stored.
mod retention;
/// The metrics endpoint `/metrics`, as scrapers read it.
mod scrape;
/// Records with several values.
mod several;
/// A process that gets no further file descriptors.
mod shortage;
/// Windows in the state topic: survival, changed settings, and damaged state.
mod state;
/// Partitions that belong to no member of a group.
mod unassigned;

// Tests of a whole system: browsers, proxies, a demo, clusters and networks of their own.

/// The pages in a real browser.
mod browser;
/// All faults in random order over a cluster of two brokers: `make chaos`, `make soak`.
mod cluster;
/// The command `anomaly demo`, as `make demo` runs it.
mod demo;
/// Outages and restarts of Kafka and PostgreSQL.
mod faults;
/// A network that drops and delays packets.
mod network;
/// The pages behind nginx, Apache, HAProxy and Caddy.
mod proxies;
