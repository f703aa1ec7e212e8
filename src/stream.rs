//! Kafka: the transactional loop, the traits that it needs, and their implementations.
//!
//! [`worker`] is the loop. [`client`] has the traits, and [`progress`] the data that it commits. [`kafka`] implements
//! the traits with librdkafka. [`sink`] copies topic `anomalies` into a ledger. [`publish`] sends the producer's
//! events. [`topics`] creates topics. [`dead_letters`] reads and replays dead letters.

pub mod kafka;
pub mod dead_letters;
pub mod client;
pub mod progress;
pub mod publish;
#[cfg(test)]
mod simulation;
pub mod sink;
pub mod topics;
pub mod worker;
