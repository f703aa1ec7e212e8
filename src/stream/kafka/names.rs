//! The names that identify a worker in Kafka.

use crate::config::resolved::TopicSettings;

/// Names of one worker in Kafka.
#[derive(Debug, Clone)]
pub(crate) struct MemberNames {
    /// Names of the program's topics.
    pub topics: TopicSettings,
    /// Name of the consumer group.
    pub group: String,
    /// Name of the member in the group, which is the same after a restart.
    pub member: String,
    /// Number of the worker in the process, from 0.
    pub worker: usize,
    /// Transactional id of this member.
    pub transactional_id: String,
}
