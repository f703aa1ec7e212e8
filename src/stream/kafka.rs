//! The real log: librdkafka's consumer behind [`Reader`](super::log::Reader), and with the transactional producer behind
//! [`Log`](super::log::Log).
//!
//! [`client`] makes configurations; [`context`] hears what librdkafka says in its callbacks; [`fault`] decides what an
//! error means.

pub mod client;
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
mod transaction;
mod duplicate;

pub use consumer::KafkaGroupConsumer;
pub use transactional::{KafkaTransactionalClient, MemberNames};
