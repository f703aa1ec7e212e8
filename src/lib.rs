//! `anomaly` watches device metrics in Kafka and reports, exactly once, which values are abnormal.
//!
//! The modules are in the order in which the data flows. Core is pure and imports only core. Edges import core,
//! [`error`], [`config::resolved`] and [`http`], never one another. Only roles and commands wire.
#![warn(missing_docs, unreachable_pub)]
// These macros panic if the output is closed or the disk is full. Commands write with `command::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// Core: events, detection, and the records of anomalies.
pub mod anomaly;
pub mod detect;
pub mod event;
pub mod method;
mod series;
pub mod window;

// Core: plain data and traits that edges need of one another.
pub mod archive;
mod fail;
mod finding;
mod foreign;
pub mod health;
pub mod ledger;
pub mod limits;
mod meter;
mod pem;
pub mod policy;
mod stop;
mod unavailable;

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
