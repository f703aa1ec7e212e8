//! Creates and describes topics with librdkafka's client for administration.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client;
use super::context::ConsumerEvents;
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{ClusterAdministration, Fault, NewTopicRequest, Remedy, TopicConfig};

/// Longest wait for an answer of the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of requests until the cluster describes a created topic.
const DESCRIPTION_REQUESTS: u32 = 100;
/// Pause between two of these requests.
const DESCRIPTION_PAUSE: Duration = Duration::from_millis(100);

/// A client for administration. Its calls must not be made within a tokio runtime.
pub(crate) struct KafkaAdministration {
    kafka: KafkaSettings,
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl KafkaAdministration {
    /// Creates the client without connecting.
    ///
    /// # Errors
    /// `Stop` if librdkafka does not accept the settings.
    pub(crate) fn new(kafka: &KafkaSettings) -> Result<Self, Fault> {
        let stop = |why: &dyn std::fmt::Display| Fault::new(Remedy::Stop, why);
        let client = client::base(kafka).create().map_err(|e: KafkaError| stop(&e))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| stop(&e))?;
        Ok(KafkaAdministration { kafka: kafka.clone(), client, runtime })
    }

    fn away(&self, what: &str, error: &KafkaError) -> Fault {
        retry(format_args!("{what} at {}: {error}", self.kafka.bootstrap_servers))
    }
}

fn retry(why: impl std::fmt::Display) -> Fault {
    Fault::new(Remedy::Retry, why)
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT))
}

impl ClusterAdministration for KafkaAdministration {
    fn brokers(&mut self, limit: Duration) -> Result<usize, Fault> {
        let consumer: BaseConsumer<_> = client::reader(&self.kafka)
            .create_with_context(ConsumerEvents::new(""))
            .map_err(|e| Fault::new(Remedy::Stop, e))?;
        let metadata = consumer.fetch_metadata(None, limit).map_err(retry)?;
        Ok(metadata.brokers().len())
    }

    fn partitions_of(&mut self, topic: &str) -> Result<Option<usize>, Fault> {
        let metadata = self.client.inner().fetch_metadata(Some(topic), ANSWER_TIMEOUT);
        let metadata = metadata.map_err(|e| self.away("cannot reach Kafka", &e))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        match found.error().map(Code::from) {
            None => Ok(Some(found.partitions().len()).filter(|partitions| *partitions > 0)),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => Ok(None),
            Some(Code::TopicAuthorizationFailed) => {
                Err(retry(format_args!("not authorized to see topic {topic}: grant Describe on the topic")))
            }
            Some(code) => Err(retry(format_args!("topic {topic}: {code}"))),
        }
    }

    fn config_of(&mut self, topic: &str) -> Result<TopicConfig, Fault> {
        let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
        let resources = [ResourceSpecifier::Topic(topic)];
        let results = self.runtime.block_on(self.client.describe_configs(&resources, &options)).map_err(retry)?;
        let config = results.into_iter().next().ok_or_else(|| retry("no answer"))?.map_err(retry)?;
        // rdkafka drops the error of a single topic. A topic that is described has entries.
        if config.entries.is_empty() {
            return Err(retry("the cluster does not describe it: grant DescribeConfigs on the topic"));
        }
        Ok(config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    fn create_topic(&mut self, topic: &NewTopicRequest<'_>) -> Result<usize, Fault> {
        let NewTopicRequest { name, partitions, replication, config } = *topic;
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(replication.unwrap_or(-1)));
        let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
        let results = self.runtime.block_on(self.client.create_topics(&[new], &options()));
        for result in results.map_err(|e| self.away("cannot create topics", &e))? {
            match result {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(retry(format_args!("cannot create topic {name}: {code}"))),
            }
        }
        // The answer arrives before all brokers know the topic.
        for _ in 0..DESCRIPTION_REQUESTS {
            if let Some(partitions) = self.partitions_of(name)? {
                return Ok(partitions);
            }
            std::thread::sleep(DESCRIPTION_PAUSE);
        }
        Err(retry(format_args!("topic {name} was created, but the cluster does not show it")))
    }

    fn add_partitions(&mut self, topic: &str, partitions: usize) -> Result<(), Fault> {
        let more = [NewPartitions::new(topic, partitions)];
        let results = self.runtime.block_on(self.client.create_partitions(&more, &options()));
        match results.map_err(|e| self.away("cannot add partitions", &e))?.into_iter().next() {
            Some(Err((name, code))) => {
                Err(retry(format_args!("cannot give topic {name} {partitions} partitions: {code}")))
            }
            _ => Ok(()),
        }
    }
}
