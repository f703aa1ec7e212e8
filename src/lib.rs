//! `anomaly` watches device metrics in Kafka and reports, exactly once, which values are abnormal.
//!
//! The modules are in the order in which the data flows. Core is pure and imports only core. Reports import core. Edges
//! import core, reports, [`error`], [`config::resolved`] and [`http`], never one another. Only roles and commands wire.
#![warn(missing_docs, unreachable_pub)]
// These macros panic if the output is closed or the disk is full. Commands write with `command::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// Core: events, detection, and the records of anomalies.
pub mod anomaly;
pub mod detect;
pub mod event;
mod fail;
mod foreign;
pub mod ledger;
pub mod limits;
pub mod method;
pub mod policy;
mod series;
pub mod series_block;
mod unavailable;

// Reports: data and traits that edges and roles exchange. They may log, count, and know the clock and files.
pub mod archive;
mod clock;
mod finding;
pub mod health;
mod meter;
mod pem;
mod stop;

pub mod config;
pub mod error;

// An HTTP server, for the pages and the endpoint of every role.
pub mod http;

// Edges: where events come from, Kafka, PostgreSQL, the pages, the service manager.
pub mod page;
mod service;
mod source;
pub mod store;
mod stream;

// Wiring.
pub mod cli;
pub mod command;
pub mod role;
