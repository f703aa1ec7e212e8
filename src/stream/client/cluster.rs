//! Requests about topics by their names, and about the cluster as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;

/// Configuration of a topic, by property.
pub(crate) type TopicConfig = BTreeMap<String, String>;

/// A topic to create.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewTopicRequest<'a> {
    /// Name of the topic.
    pub name: &'a str,
    /// Number of partitions.
    pub partitions: i32,
    /// Replication factor; `None` for the broker's default.
    pub replication: Option<i32>,
    /// Properties that differ from the broker's defaults.
    pub config: &'a [(&'a str, &'a str)],
}

/// Creates and describes topics. It needs no group and consumes nothing.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait ClusterAdministration {
    /// Returns the number of brokers, after waiting at most `limit`. `Stop` if the settings do not allow to consume.
    fn brokers(&mut self, limit: Duration) -> Result<usize, Fault>;

    /// Returns the number of partitions; `None` if the topic does not exist, or is just being created.
    fn partitions_of(&mut self, topic: &str) -> Result<Option<usize>, Fault>;

    /// Returns the configuration of a topic, with the broker's defaults.
    fn config_of(&mut self, topic: &str) -> Result<TopicConfig, Fault>;

    /// Creates a topic. Returns the number of its partitions, once a broker describes it; others may not know it yet. A
    /// topic that exists stays as it is.
    fn create_topic(&mut self, topic: &NewTopicRequest<'_>) -> Result<usize, Fault>;

    /// Adds partitions to a topic, up to this number. Fails if the topic has as many or more.
    fn add_partitions(&mut self, topic: &str, partitions: usize) -> Result<(), Fault>;
}
