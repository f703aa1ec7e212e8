//! Implements the traits of [`client`](super::client) with librdkafka: [`KafkaGroupConsumer`] those of the sink,
//! [`KafkaTransactionalClient`] those of a worker, [`KafkaTransactionalProducer`] transactions outside of a group, and
//! [`KafkaAdministration`] requests about topics.
//!
//! `client` builds configurations. [`context`] receives librdkafka's callbacks. [`fault`] decides what an error
//! means.

mod administration;
mod assignment;
mod attempt;
mod batch_progress;
pub(crate) mod client;
mod closing;
mod cluster_state;
mod commits;
mod consumer;
mod context;
mod duplicate;
mod epochs;
mod failed;
mod fault;
mod fetch;
mod history;
mod identity;
mod leaving;
mod lengths;
mod names;
mod observer;
mod origin;
mod owners;
mod policy;
mod publisher;
mod retry;
mod shortage;
mod silence;
mod stranded;
pub(crate) mod tls;
mod topic;
mod transaction;
mod transactional;
mod undelivered;
mod unpack;

pub(crate) use administration::KafkaAdministration;
pub(crate) use attempt::unreadable_from;
pub(crate) use consumer::KafkaGroupConsumer;
pub(crate) use fetch::OnOversized;
pub(crate) use history::KafkaHistoryClient;
pub(crate) use names::MemberNames;
pub(crate) use owners::KafkaOwnerObserver;
pub(crate) use publisher::Publisher;
pub(crate) use transaction::KafkaTransactionalProducer;
pub(crate) use transactional::KafkaTransactionalClient;
