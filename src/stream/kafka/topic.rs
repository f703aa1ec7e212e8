//! Asks the cluster whether a topic exists. librdkafka learns only after half a minute that a topic was deleted, and
//! until then gives other reasons for records that are not delivered.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

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

/// Asks the cluster for the numbers of a topic's partitions. Waits at most `limit`.
///
/// # Errors
/// A topic that the cluster does not know or does not describe is an error, not a topic without partitions.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    limit: Duration,
) -> Result<Vec<i32>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), limit)?;
    let answer = metadata.topics().iter().find(|answer| answer.name() == topic);
    match answer.map(|answer| (answer.error().map(Code::from), answer.partitions())) {
        Some((None, partitions)) if !partitions.is_empty() => Ok(partitions.iter().map(|p| p.id()).collect()),
        Some((Some(code), _)) => Err(KafkaError::MetadataFetch(code)),
        None | Some((None, _)) => Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::consumer::{BaseConsumer, Consumer};

    use super::super::client;
    use super::*;
    use crate::config::resolved::KafkaSettings;

    #[test]
    #[ignore = "needs a broker: tests/run"]
    fn a_topic_that_does_not_exist_is_an_error_and_not_a_topic_without_partitions() {
        let servers = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("a box: run tests/run");
        let kafka = KafkaSettings { bootstrap_servers: servers, properties: BTreeMap::new() };
        let consumer: BaseConsumer = client::reader(&kafka).create().unwrap();
        let error = partitions(consumer.client(), "topic-that-does-not-exist", Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.rdkafka_error_code(), Some(Code::UnknownTopicOrPartition));
    }
}
