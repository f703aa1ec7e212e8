//! Asks the cluster whether a topic exists. librdkafka learns only after half a minute that a topic was deleted, and
//! until then gives other reasons for records that are not delivered.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode as Code;

/// What the cluster says about a topic.
pub(crate) enum TopicAnswer {
    /// It has partitions.
    Exists,
    /// The cluster does not know it.
    Missing,
    /// The cluster does not describe it, for this reason.
    Refused(String),
    /// The cluster does not answer.
    None,
}

/// Asks the cluster for a topic. Waits at most `limit`.
pub(crate) fn ask<C: ClientContext>(client: &Client<C>, topic: &str, limit: Duration) -> TopicAnswer {
    let Ok(metadata) = client.fetch_metadata(Some(topic), limit) else {
        return TopicAnswer::None;
    };
    let Some(answer) = metadata.topics().iter().find(|answer| answer.name() == topic) else {
        return TopicAnswer::Missing;
    };
    match answer.error().map(Code::from) {
        None if !answer.partitions().is_empty() => TopicAnswer::Exists,
        None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => TopicAnswer::Missing,
        Some(code) => TopicAnswer::Refused(format!("topic {topic}: {code}")),
    }
}
