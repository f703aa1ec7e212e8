//! Creates the topics, and reports how existing ones differ from the requirements.

use std::time::Duration;

use super::client::{ClusterAdministration, Fault, NewTopicRequest, TopicConfig};
use super::kafka::KafkaAdministration;
use crate::config::resolved::{KafkaSettings, TopicSettings};
use crate::error::{Error, Result};
use crate::finding::{Finding, Grade};

/// Maximum size that the headers of a dead letter add to a record, in bytes.
const HEADER_BYTES: i64 = 64 * 1024;
/// Maximum record size in bytes of a topic without this setting; Kafka's default.
const DEFAULT_RECORD_BYTES: i64 = 1_048_588;

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

fn administration(kafka: &KafkaSettings) -> Result<KafkaAdministration> {
    KafkaAdministration::new(kafka).map_err(|fault| Error::config(format_args!("kafka.properties: {fault}")))
}

fn unavailable(fault: Fault) -> Error {
    Error::unavailable(fault.message)
}

/// Creates missing topics, raw_events first, because the others depend on its partitions and record size.
///
/// # Errors
/// 69 if the cluster is unavailable or refuses.
pub(crate) fn create(kafka: &KafkaSettings, topics: &TopicSettings) -> Result<Vec<TopicReport>> {
    create_in(&mut administration(kafka)?, topics)
}

fn create_in(cluster: &mut impl ClusterAdministration, topics: &TopicSettings) -> Result<Vec<TopicReport>> {
    let raw = ensure(cluster, topics, &topics.raw_events, topics.partitions, &[])?;
    let partitions = i32::try_from(raw.partitions).unwrap_or(topics.partitions);
    // An unreadable configuration is reported below.
    let events = cluster.config_of(&topics.raw_events).unwrap_or_default();
    let largest = needed(&events).to_string();
    // Retention and compaction use the brokers' clock. A detector's wrong clock must not date its records.
    let time = ("message.timestamp.type", "LogAppendTime");
    let compact =
        [time, ("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    let size = [time, ("max.message.bytes", largest.as_str())];
    let anomalies = ensure(cluster, topics, &topics.anomalies, topics.partitions, &[time])?;
    let dead_letters = ensure(cluster, topics, &topics.dead_letter, topics.partitions, &size)?;
    let mut state = ensure(cluster, topics, &topics.state, partitions, &compact)?;
    if state.partitions < raw.partitions {
        // State is stored in the partition with the same number, so more partitions are harmless.
        cluster.add_partitions(&state.name, raw.partitions).map_err(unavailable)?;
        state.differs.push(format!("it had {} partitions, and now has {}", state.partitions, raw.partitions));
        state.partitions = raw.partitions;
    }
    let mut all = vec![raw, anomalies, dead_letters, state];
    for (purpose, found) in Purpose::ALL.into_iter().zip(&mut all) {
        let found_so = differences(cluster, topics, purpose, &events);
        found.differs.extend(found_so.into_iter().map(|(_, text)| text));
    }
    Ok(all)
}

/// Returns how existing topics differ from the requirements. It skips the state topic unless `keeps_state` is set.
///
/// # Errors
/// 69 if the cluster is unavailable.
pub(crate) fn check(kafka: &KafkaSettings, topics: &TopicSettings, keeps_state: bool) -> Result<Vec<Finding>> {
    check_in(&mut administration(kafka)?, topics, keeps_state)
}

fn check_in(
    cluster: &mut impl ClusterAdministration,
    topics: &TopicSettings,
    keeps_state: bool,
) -> Result<Vec<Finding>> {
    let events = cluster.config_of(&topics.raw_events).unwrap_or_default();
    let raw = cluster.partitions_of(&topics.raw_events).map_err(unavailable)?;
    let mut found = Vec::new();
    for purpose in Purpose::ALL {
        let name = purpose.name(topics);
        let Some(partitions) = cluster.partitions_of(name).map_err(unavailable)? else { continue };
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
        let differences = differences(cluster, topics, purpose, &events);
        found.extend(differences.into_iter().map(|(grade, text)| Finding::new(format!("topic {name}"), grade, text)));
    }
    Ok(found)
}

/// Returns the maximum size of a dead letter for records of this topic, in bytes.
fn needed(events: &TopicConfig) -> i64 {
    events.get("max.message.bytes").and_then(|bytes| bytes.parse::<i64>().ok()).unwrap_or(DEFAULT_RECORD_BYTES)
        + HEADER_BYTES
}

/// Returns the effect of `anomaly dlq replay` on a compacted topic; `None` if the topic keeps every record until its
/// retention.
///
/// # Errors
/// 78 if librdkafka refuses the settings.
pub(crate) fn replay_hazard(kafka: &KafkaSettings, topic: &str) -> Result<Option<String>> {
    let config = match administration(kafka)?.config_of(topic) {
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

fn policy(config: &TopicConfig) -> &str {
    config.get("cleanup.policy").map_or("delete", String::as_str)
}

fn is_compacted(policy: &str) -> bool {
    policy.split(',').any(|word| word.trim() == "compact")
}

fn differences(
    cluster: &mut impl ClusterAdministration,
    topics: &TopicSettings,
    purpose: Purpose,
    events: &TopicConfig,
) -> Vec<(Grade, String)> {
    match cluster.config_of(purpose.name(topics)) {
        Ok(config) => differs(purpose, &config, events),
        Err(why) => vec![(Grade::Doubtful, format!("its configuration cannot be read, so it is not checked: {why}"))],
    }
}

/// Returns how a topic's configuration differs from the requirements of its purpose, and the consequence.
fn differs(purpose: Purpose, config: &TopicConfig, events: &TopicConfig) -> Vec<(Grade, String)> {
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

/// Creates a topic unless it exists.
fn ensure(
    cluster: &mut impl ClusterAdministration,
    topics: &TopicSettings,
    name: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<TopicReport> {
    let report = |partitions, is_new| TopicReport { name: name.to_owned(), partitions, is_new, differs: Vec::new() };
    if let Some(partitions) = cluster.partitions_of(name).map_err(unavailable)? {
        return Ok(report(partitions, false));
    }
    let replication = (topics.replication > 0).then_some(topics.replication);
    let request = NewTopicRequest { name, partitions, replication, config };
    Ok(report(cluster.create_topic(&request).map_err(unavailable)?, true))
}

/// Returns the number of brokers of the cluster.
///
/// # Errors
/// `Stop` if librdkafka does not accept the settings; otherwise why the cluster does not answer within `limit`.
pub(crate) fn brokers(kafka: &KafkaSettings, limit: Duration) -> Result<usize, Fault> {
    KafkaAdministration::new(kafka)?.brokers(limit)
}

/// Returns the number of partitions; `None` if the topic does not exist, or is just being created.
///
/// # Errors
/// 69 if the cluster is unavailable, or does not show the topic to this user.
pub(crate) fn partitions(kafka: &KafkaSettings, name: &str) -> Result<Option<usize>> {
    administration(kafka)?.partitions_of(name).map_err(unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolved::Settings;
    use crate::stream::simulation::topics::SimulatedTopics;

    #[test]
    fn the_harmful_cleanup_policy_is_named_for_each_purpose() {
        let config = |policy: &str| TopicConfig::from([("cleanup.policy".to_owned(), policy.to_owned())]);
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
            let found = differs(purpose, &config(policy), &TopicConfig::new());
            assert_eq!(found.first().map(|(grade, _)| *grade), grade, "{purpose:?} {policy}: {found:?}");
            assert!(found.iter().all(|(_, text)| text.contains(policy)), "{found:?}");
        }
    }

    #[test]
    fn the_state_topic_gets_a_partition_for_each_of_the_events_and_the_dead_letters_fit() {
        let topics = TopicSettings {
            raw_events: "events".into(),
            anomalies: "anomalies".into(),
            dead_letter: "letters".into(),
            state: "state".into(),
            partitions: 4,
            replication: 0,
        };
        let mut cluster = SimulatedTopics::default();
        let size = [("max.message.bytes", "5000000")];
        let events = NewTopicRequest { name: "events", partitions: 7, replication: None, config: &size };
        let state = NewTopicRequest { name: "state", partitions: 2, config: &[], ..events };
        cluster.create_topic(&events).unwrap();
        cluster.create_topic(&state).unwrap();
        let found = check_in(&mut cluster, &topics, true).unwrap();
        assert!(found.iter().any(|finding| finding.text.contains("has 2 partitions, and events has 7")), "{found:?}");
        let made = create_in(&mut cluster, &topics).unwrap();
        let made = made.iter().map(|made| (made.name.as_str(), made.partitions, made.is_new)).collect::<Vec<_>>();
        assert_eq!(made, [("events", 7, false), ("anomalies", 4, true), ("letters", 4, true), ("state", 7, false)]);
        let dead_letters = cluster.config_of("letters").unwrap();
        assert_eq!(dead_letters["max.message.bytes"], (5_000_000 + HEADER_BYTES).to_string());
        assert_eq!(dead_letters["message.timestamp.type"], "LogAppendTime");
        let again = create_in(&mut cluster, &topics).unwrap();
        assert!(
            again.iter().all(|topic| !topic.is_new && (topic.name == "state" || topic.differs.is_empty())),
            "{again:?}"
        );
    }

    /// A cluster whose other broker answers, which does not know new topics yet.
    struct LateBroker(SimulatedTopics);

    impl ClusterAdministration for LateBroker {
        fn brokers(&mut self, limit: Duration) -> Result<usize, Fault> {
            self.0.brokers(limit)
        }

        fn partitions_of(&mut self, _topic: &str) -> Result<Option<usize>, Fault> {
            Ok(None)
        }

        fn config_of(&mut self, topic: &str) -> Result<TopicConfig, Fault> {
            self.0.config_of(topic)
        }

        fn create_topic(&mut self, topic: &NewTopicRequest<'_>) -> Result<usize, Fault> {
            self.0.create_topic(topic)
        }

        fn add_partitions(&mut self, topic: &str, partitions: usize) -> Result<(), Fault> {
            self.0.add_partitions(topic, partitions)
        }
    }

    #[test]
    fn a_new_topic_that_another_broker_does_not_know_yet_is_reported_as_created() {
        let made =
            ensure(&mut LateBroker(SimulatedTopics::default()), &Settings::default().topics, "new", 3, &[]).unwrap();
        assert_eq!((made.partitions, made.is_new), (3, true));
    }
}
