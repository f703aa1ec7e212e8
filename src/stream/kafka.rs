//! Implements the traits of [`client`](super::client) with librdkafka: [`KafkaGroupConsumer`] those of the sink,
//! [`KafkaTransactionalClient`] those of a worker.
//!
//! `client` builds configurations. [`context`] receives librdkafka's callbacks. [`fault`] decides what an error
//! means.

pub mod client;
mod cluster_state;
pub mod context;
pub mod fault;
mod fetch;
mod identity;
mod observer;
mod origin;
mod history;
mod consumer;
mod transactional;
pub mod stranded;
pub mod tls;
mod names;
mod transaction;
mod duplicate;

pub use consumer::KafkaGroupConsumer;
pub use history::KafkaHistoryClient;
pub use names::MemberNames;
pub use transactional::KafkaTransactionalClient;
