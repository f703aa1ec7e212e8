//! Creates the topics, and reports how existing ones differ from the requirements.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{Fault, Remedy};
use super::kafka::client;
use super::kafka::context::ConsumerEvents;
use crate::config::resolved::{KafkaSettings, TopicSettings};
use crate::error::{Error, Result};
use crate::finding::{Finding, Grade};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum size that the headers of a dead letter add to a record, in bytes.
const HEADROOM: i64 = 64 * 1024;
/// Maximum record size in bytes of a topic without this setting; Kafka's default.
const LARGEST: i64 = 1_048_588;

/// State of one topic, as reported to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicReport {
    /// Name of the topic.
    pub name: String,
    /// Number of partitions of the topic.
    pub partitions: usize,
    /// Whether this call has created the topic.
    pub is_new: bool,
    /// Differences of an existing topic from the requirements, with their consequences.
    pub differs: Vec<String>,
}

/// Purpose of a topic, which decides its requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Events,
    Anomalies,
    DeadLetters,
    State,
}

impl Purpose {
    const ALL: [Purpose; 4] = [Purpose::Events, Purpose::Anomalies, Purpose::DeadLetters, Purpose::State];

    fn name(self, topics: &TopicSettings) -> &str {
        match self {
            Purpose::Events => &topics.raw_events,
            Purpose::Anomalies => &topics.anomalies,
            Purpose::DeadLetters => &topics.dead_letter,
            Purpose::State => &topics.state,
        }
    }
}

/// Configuration of a topic, by property.
type Config = BTreeMap<String, String>;

type Admin = AdminClient<DefaultClientContext>;

fn away(what: &str, error: &KafkaError, kafka: &KafkaSettings) -> Error {
    Error::unavailable(format_args!("{what} at {}: {error}", kafka.bootstrap_servers))
}

fn admin(kafka: &KafkaSettings) -> Result<Admin> {
    client::base(kafka).create().map_err(|e| Error::config(format_args!("kafka.properties: {e}")))
}

/// Creates missing topics, raw_events first, because the others depend on its partitions and record size.
///
/// # Errors
/// 69 if the cluster is unavailable or refuses.
pub(crate) async fn create(kafka: &KafkaSettings, topics: &TopicSettings) -> Result<Vec<TopicReport>> {
    let admin = admin(kafka)?;
    let raw = ensure(&admin, kafka, topics, &topics.raw_events, topics.partitions, &[]).await?;
    let partitions = i32::try_from(raw.partitions).unwrap_or(topics.partitions);
    // An unreadable configuration is reported below.
    let events = config_of(&admin, &topics.raw_events).await.unwrap_or_default();
    let largest = needed(&events).to_string();
    // Retention and compaction use the brokers' clock. A detector's wrong clock must not date its records.
    let time = ("message.timestamp.type", "LogAppendTime");
    let compact =
        [time, ("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    let size = [time, ("max.message.bytes", largest.as_str())];
    let anomalies = ensure(&admin, kafka, topics, &topics.anomalies, topics.partitions, &[time]).await?;
    let letters = ensure(&admin, kafka, topics, &topics.dead_letter, topics.partitions, &size).await?;
    let mut state = ensure(&admin, kafka, topics, &topics.state, partitions, &compact).await?;
    if state.partitions < raw.partitions {
        widen(&admin, kafka, &state.name, raw.partitions).await?;
        state.differs.push(format!("it had {} partitions, and now has {}", state.partitions, raw.partitions));
        state.partitions = raw.partitions;
    }
    let mut all = vec![raw, anomalies, letters, state];
    for (purpose, found) in Purpose::ALL.into_iter().zip(&mut all) {
        let found_so = differences(&admin, topics, purpose, &events).await;
        found.differs.extend(found_so.into_iter().map(|(_, text)| text));
    }
    Ok(all)
}

/// Returns how existing topics differ from the requirements. It skips the state topic unless `keeps_state` is set.
///
/// # Errors
/// 69 if the cluster is unavailable.
pub(crate) async fn look(kafka: &KafkaSettings, topics: &TopicSettings, keeps_state: bool) -> Result<Vec<Finding>> {
    let admin = admin(kafka)?;
    let events = config_of(&admin, &topics.raw_events).await.unwrap_or_default();
    let raw = partitions_of(&admin, kafka, &topics.raw_events)?;
    let mut found = Vec::new();
    for purpose in Purpose::ALL {
        let name = purpose.name(topics);
        let Some(partitions) = partitions_of(&admin, kafka, name)? else { continue };
        if purpose == Purpose::State && !keeps_state {
            continue;
        }
        if let (Purpose::State, Some(raw)) = (purpose, raw.filter(|raw| *raw > partitions)) {
            let text = format!(
                "has {partitions} partitions, and {} has {raw}: the detector cannot keep windows of all of them; \
                 `anomaly topics` adds what is missing",
                topics.raw_events
            );
            found.push(Finding::new(format!("topic {name}"), Grade::Wrong, text));
        }
        let differences = differences(&admin, topics, purpose, &events).await;
        found.extend(differences.into_iter().map(|(grade, text)| Finding::new(format!("topic {name}"), grade, text)));
    }
    Ok(found)
}

/// Returns the maximum size of a dead letter for records of this topic, in bytes.
fn needed(events: &Config) -> i64 {
    events.get("max.message.bytes").and_then(|bytes| bytes.parse::<i64>().ok()).unwrap_or(LARGEST) + HEADROOM
}

/// Returns the effect of `anomaly dlq replay` on a compacted topic; `None` if the topic keeps every record until its
/// retention.
///
/// # Errors
/// 78 if librdkafka refuses the settings.
pub(crate) async fn replay_hazard(kafka: &KafkaSettings, topic: &str) -> Result<Option<String>> {
    let config = match config_of(&admin(kafka)?, topic).await {
        Ok(config) => config,
        Err(why) => {
            return Ok(Some(format!("the cleanup.policy of {topic} cannot be read, so it is not checked: {why}")));
        }
    };
    let policy = policy(&config);
    Ok(is_compacted(policy).then(|| {
        format!(
            "the cleanup.policy of {topic} is {policy}: after compaction an older record that is sent again replaces the newer \
             ones of its key. Set cleanup.policy=delete on {topic} first"
        )
    }))
}

fn policy(config: &Config) -> &str {
    config.get("cleanup.policy").map_or("delete", String::as_str)
}

fn is_compacted(policy: &str) -> bool {
    policy.split(',').any(|word| word.trim() == "compact")
}

async fn differences(admin: &Admin, topics: &TopicSettings, purpose: Purpose, events: &Config) -> Vec<(Grade, String)> {
    match config_of(admin, purpose.name(topics)).await {
        Ok(config) => differs(purpose, &config, events),
        Err(why) => vec![(Grade::Doubtful, format!("its configuration cannot be read, so it is not checked: {why}"))],
    }
}

/// Returns how a topic's configuration differs from the requirements of its purpose, and the consequence.
fn differs(purpose: Purpose, config: &Config, events: &Config) -> Vec<(Grade, String)> {
    let policy = policy(config);
    let is_compacted = is_compacted(policy);
    let mut all = Vec::new();
    match purpose {
        Purpose::Events if is_compacted => all.push((
            Grade::Wrong,
            format!(
                "its cleanup.policy is {policy}: Kafka deletes the older records of each key, so that records get no \
                 verdict, and a restart reads other windows back. Set cleanup.policy=delete"
            ),
        )),
        Purpose::Anomalies | Purpose::DeadLetters if is_compacted => {
            all.push((
                Grade::Doubtful,
                format!("its cleanup.policy is {policy}: only the newest record of each key stays. Set cleanup.policy=delete"),
            ));
        }
        Purpose::State if policy != "compact" => all.push((
            Grade::Wrong,
            format!(
                "its cleanup.policy is {policy}, not compact: windows will be deleted, or old ones kept for ever, and the \
                 detector does not start. Set cleanup.policy=compact"
            ),
        )),
        _ => {}
    }
    let largest = config.get("max.message.bytes").and_then(|bytes| bytes.parse::<i64>().ok());
    if let (Purpose::DeadLetters, Some(has)) = (purpose, largest.filter(|has| *has < needed(events))) {
        let text = format!(
            "its max.message.bytes is {has}, less than {}: the largest dead letters will be truncated",
            needed(events)
        );
        all.push((Grade::Doubtful, text));
    }
    all
}

async fn ensure(
    admin: &Admin,
    kafka: &KafkaSettings,
    topics: &TopicSettings,
    name: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<TopicReport> {
    if let Some(partitions) = partitions_of(admin, kafka, name)? {
        return Ok(TopicReport { name: name.to_owned(), partitions, is_new: false, differs: Vec::new() });
    }
    let replication = if topics.replication == 0 { -1 } else { topics.replication };
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
    let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
    let results = admin.create_topics(&[topic], &options).await.map_err(|e| away("cannot create topics", &e, kafka))?;
    for result in results {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(Error::unavailable(format_args!("cannot create topic {name}: {code}")));
            }
        }
    }
    // The answer arrives before all brokers know the topic.
    for _ in 0..100 {
        if let Some(partitions) = partitions_of(admin, kafka, name)? {
            return Ok(TopicReport { name: name.to_owned(), partitions, is_new: true, differs: Vec::new() });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::unavailable(format_args!("topic {name} was created, but the cluster does not show it")))
}

/// Adds partitions to the state topic. State is stored in the partition with the same number, so more partitions are
/// harmless.
async fn widen(admin: &Admin, kafka: &KafkaSettings, name: &str, partitions: usize) -> Result<()> {
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
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

/// Returns the number of brokers of the cluster.
///
/// # Errors
/// `Stop` if librdkafka does not accept the settings; otherwise why the cluster does not answer within `limit`.
pub(crate) fn brokers(kafka: &KafkaSettings, limit: Duration) -> Result<usize, Fault> {
    let consumer: BaseConsumer<_> =
        client::reader(kafka).create_with_context(ConsumerEvents::new("")).map_err(|e| Fault::new(Remedy::Stop, e))?;
    let metadata = consumer.fetch_metadata(None, limit).map_err(|e| Fault::new(Remedy::Retry, e))?;
    Ok(metadata.brokers().len())
}

/// Returns the number of partitions; `None` if the topic does not exist, or is just being created.
///
/// # Errors
/// 69 if the cluster is unavailable, or does not show the topic to this user.
pub(crate) fn partitions(kafka: &KafkaSettings, name: &str) -> Result<Option<usize>> {
    partitions_of(&admin(kafka)?, kafka, name)
}

/// Returns the number of partitions; `None` if the topic does not exist, or is just being created.
fn partitions_of(admin: &Admin, kafka: &KafkaSettings, name: &str) -> Result<Option<usize>> {
    let metadata =
        admin.inner().fetch_metadata(Some(name), ANSWER_TIMEOUT).map_err(|e| away("cannot reach Kafka", &e, kafka))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
    match topic.error().map(Code::from) {
        None => Ok(Some(topic.partitions().len()).filter(|partitions| *partitions > 0)),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => Ok(None),
        Some(Code::TopicAuthorizationFailed) => {
            Err(Error::unavailable(format_args!("not authorized to see topic {name}: grant Describe on the topic")))
        }
        Some(code) => Err(Error::unavailable(format_args!("topic {name}: {code}"))),
    }
}

/// Reads the configuration of a topic.
///
/// # Errors
/// Returns why the configuration cannot be read: no answer, or no authorization.
async fn config_of(admin: &Admin, name: &str) -> Result<Config, String> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
    let results = admin.describe_configs([&ResourceSpecifier::Topic(name)], &options).await;
    let config = results.map_err(|e| e.to_string())?.into_iter().next().ok_or("no answer")?;
    let config = config.map_err(|code| code.to_string())?;
    let entries = config.entries.into_iter();
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harmful_cleanup_policy_is_named_for_each_purpose() {
        let config = |policy: &str| Config::from([("cleanup.policy".to_owned(), policy.to_owned())]);
        for (purpose, policy, grade) in [
            (Purpose::Events, "compact", Some(Grade::Wrong)),
            (Purpose::Events, "compact,delete", Some(Grade::Wrong)),
            (Purpose::Events, "delete", None),
            (Purpose::Anomalies, "compact", Some(Grade::Doubtful)),
            (Purpose::DeadLetters, "compact", Some(Grade::Doubtful)),
            (Purpose::State, "compact", None),
            (Purpose::State, "delete", Some(Grade::Wrong)),
            (Purpose::State, "compact,delete", Some(Grade::Wrong)),
        ] {
            let found = differs(purpose, &config(policy), &Config::new());
            assert_eq!(found.first().map(|(grade, _)| *grade), grade, "{purpose:?} {policy}: {found:?}");
            assert!(found.iter().all(|(_, text)| text.contains(policy)), "{found:?}");
        }
    }
}
