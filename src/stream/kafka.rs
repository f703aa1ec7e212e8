//! Implements the traits of [`client`](super::client) with librdkafka: [`KafkaGroupConsumer`] those of the sink,
//! [`KafkaTransactionalClient`] those of a worker, and [`KafkaTransactionalProducer`] transactions outside of a group.
//!
//! `client` builds configurations. [`context`] receives librdkafka's callbacks. [`fault`] decides what an error
//! means.

pub(crate) mod client;
mod cluster_state;
pub(crate) mod context;
pub(crate) mod fault;
mod failed;
mod fetch;
mod attempt;
mod retry;
mod identity;
mod observer;
mod owners;
mod silence;
mod origin;
mod history;
mod consumer;
mod transactional;
pub(crate) mod stranded;
pub(crate) mod tls;
mod names;
mod transaction;
pub(crate) mod topic;
mod duplicate;

pub(crate) use attempt::unreadable_from;
pub(crate) use consumer::KafkaGroupConsumer;
pub(crate) use history::KafkaHistoryClient;
pub(crate) use names::MemberNames;
pub(crate) use owners::KafkaOwnerObserver;
pub(crate) use transaction::KafkaTransactionalProducer;
pub(crate) use transactional::KafkaTransactionalClient;
