//! Creating the topics, or telling how those that are there differ from what is needed.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::kafka::client;
use crate::config::resolved::{Kafka, Topics};
use crate::error::{Error, Result};

const CALL: Duration = Duration::from_secs(15);
/// What a dead letter's headers may add to a record.
const HEADROOM: i64 = 64 * 1024;

/// What is known of one topic afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: usize,
    /// It was made just now.
    pub is_new: bool,
    /// How one that was there differs from what is needed, and what follows from that.
    pub differs: Option<String>,
}

fn away(what: &str, error: &KafkaError, kafka: &Kafka) -> Error {
    Error::unavailable(format_args!("{what} at {}: {error}", kafka.bootstrap_servers))
}

/// Creates what is missing, raw_events first, since the others follow its partitions and record size.
///
/// # Errors
/// 69 when the cluster cannot be reached or refuses.
pub async fn create(kafka: &Kafka, topics: &Topics) -> Result<Vec<Found>> {
    let admin = client::base(kafka)
        .create::<AdminClient<DefaultClientContext>>()
        .map_err(|e| Error::config(format_args!("kafka.properties: {e}")))?;
    let raw = ensure(&admin, kafka, topics, &topics.raw_events, topics.partitions, &[]).await?;
    let partitions = i32::try_from(raw.partitions).unwrap_or(topics.partitions);
    let largest = config_of(&admin, &topics.raw_events, "max.message.bytes").await;
    let needed = largest.and_then(|bytes| bytes.parse::<i64>().ok()).unwrap_or(1_048_588) + HEADROOM;
    let largest = needed.to_string();
    let state = [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    let anomalies = ensure(&admin, kafka, topics, &topics.anomalies, topics.partitions, &[]).await?;
    let size = [("max.message.bytes", largest.as_str())];
    let mut letters = ensure(&admin, kafka, topics, &topics.dead_letter, topics.partitions, &size).await?;
    let mut state = ensure(&admin, kafka, topics, &topics.state, partitions, &state).await?;
    let has = config_of(&admin, &topics.dead_letter, "max.message.bytes").await.and_then(|bytes| bytes.parse().ok());
    if let Some(has) = has.filter(|has: &i64| *has < needed) {
        letters.differs =
            Some(format!("its max.message.bytes is {has}, less than {needed}: the largest dead letters will be cut"));
    }
    let policy = config_of(&admin, &topics.state, "cleanup.policy").await;
    if state.partitions < raw.partitions {
        widen(&admin, kafka, &state.name, raw.partitions).await?;
        state.differs = Some(format!("it had {} partitions, and was given {}", state.partitions, raw.partitions));
        state.partitions = raw.partitions;
    } else if policy.as_ref().is_some_and(|policy| policy != "compact") {
        state.differs =
            Some("its cleanup.policy is not compact: it will grow without end, or windows will be deleted".into());
    }
    Ok(vec![raw, anomalies, letters, state])
}

async fn ensure(
    admin: &AdminClient<DefaultClientContext>,
    kafka: &Kafka,
    topics: &Topics,
    name: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<Found> {
    if let Some(partitions) = partitions_of(admin, kafka, name)? {
        return Ok(Found { name: name.to_owned(), partitions, is_new: false, differs: None });
    }
    let replication = if topics.replication == 0 { -1 } else { topics.replication };
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
    let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(CALL)).request_timeout(Some(CALL));
    let results = admin.create_topics(&[topic], &options).await.map_err(|e| away("cannot create topics", &e, kafka))?;
    for result in results {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(Error::unavailable(format_args!("cannot create topic {name}: {code}")));
            }
        }
    }
    // Creation is answered before every broker knows the topic.
    for _ in 0..100 {
        if let Some(partitions) = partitions_of(admin, kafka, name)? {
            return Ok(Found { name: name.to_owned(), partitions, is_new: true, differs: None });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::unavailable(format_args!("topic {name} was created, but the cluster does not show it")))
}

/// Windows are kept in the partition of their number, so that more of them harm none that is there.
async fn widen(admin: &AdminClient<DefaultClientContext>, kafka: &Kafka, name: &str, partitions: usize) -> Result<()> {
    let options = AdminOptions::new().operation_timeout(Some(CALL)).request_timeout(Some(CALL));
    let results = admin
        .create_partitions(&[NewPartitions::new(name, partitions)], &options)
        .await
        .map_err(|e| away("cannot add partitions", &e, kafka))?;
    match results.into_iter().next() {
        Some(Err((name, code))) => {
            Err(Error::unavailable(format_args!("cannot give topic {name} {partitions} partitions: {code}")))
        }
        _ => Ok(()),
    }
}

fn partitions_of(admin: &AdminClient<DefaultClientContext>, kafka: &Kafka, name: &str) -> Result<Option<usize>> {
    let metadata = admin.inner().fetch_metadata(Some(name), CALL).map_err(|e| away("cannot reach Kafka", &e, kafka))?;
    Ok(metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == name && topic.error().is_none())
        .map(|topic| topic.partitions().len())
        .filter(|partitions| *partitions > 0))
}

async fn config_of(admin: &AdminClient<DefaultClientContext>, name: &str, key: &str) -> Option<String> {
    let resource = ResourceSpecifier::Topic(name);
    let results = admin.describe_configs([&resource], &AdminOptions::new()).await.ok()?;
    let config = results.into_iter().next()?.ok()?;
    config.get(key)?.value.clone()
}
