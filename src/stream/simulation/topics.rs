//! The topics of a simulated cluster, by their names: a twin of the client for administration.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::stream::client::{ClusterAdministration, Fault, NewTopicRequest, Remedy, TopicConfig};

/// Number of partitions and configuration of each topic.
#[derive(Debug, Default)]
pub(in crate::stream) struct SimulatedTopics(BTreeMap<String, (usize, TopicConfig)>);

impl ClusterAdministration for SimulatedTopics {
    fn brokers(&mut self, _limit: Duration) -> Result<usize, Fault> {
        Ok(1)
    }

    fn partitions_of(&mut self, topic: &str) -> Result<Option<usize>, Fault> {
        Ok(self.0.get(topic).map(|(partitions, _)| *partitions))
    }

    fn config_of(&mut self, topic: &str) -> Result<TopicConfig, Fault> {
        self.0.get(topic).map(|(_, config)| config.clone()).ok_or_else(|| Fault::new(Remedy::Retry, "unknown topic"))
    }

    fn create_topic(&mut self, topic: &NewTopicRequest<'_>) -> Result<usize, Fault> {
        let defaults = [("cleanup.policy", "delete"), ("max.message.bytes", "1048588")];
        let config = defaults.iter().chain(topic.config).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let made = self.0.entry(topic.name.to_owned()).or_insert_with(|| (topic.partitions as usize, config.collect()));
        Ok(made.0)
    }

    fn add_partitions(&mut self, topic: &str, partitions: usize) -> Result<(), Fault> {
        match self.0.get_mut(topic) {
            Some((has, _)) if *has < partitions => *has = partitions,
            _ => return Err(Fault::new(Remedy::Retry, "the topic has as many partitions, or does not exist")),
        }
        Ok(())
    }
}
