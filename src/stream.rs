//! Kafka: the transactional loop, the traits that it needs, and their implementations.
//!
//! [`worker`] is the loop. [`client`] has the traits, and [`progress`] the data that it commits. [`kafka`] implements
//! the traits with librdkafka. [`sink`] copies topic `anomalies` into a ledger. [`publish`] sends the producer's
//! events. [`topics`] creates topics. [`dead_letters`] reads and replays dead letters.

pub(crate) mod client;
pub(crate) mod dead_letters;
mod identity;
pub(crate) mod kafka;
mod open_transactions;
pub(crate) mod progress;
#[cfg(test)]
mod simulation;
pub(crate) mod sink;
mod standstill;
pub(crate) mod topics;
pub(crate) mod unassigned;
pub(crate) mod worker;
