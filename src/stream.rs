//! Kafka: the transactional loop, the trait it needs, and what stands behind that trait.
//!
//! [`worker`] is the loop; [`client`] the trait, [`progress`] what it commits; [`kafka`] the real log; [`sink`] carries topic `anomalies` into a ledger;
//! [`publish`] sends the producer's events; [`topics`] creates topics; [`dead_letters`] reads
//! dead letters back.

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
