//! Names by which Kafka knows a worker.

use crate::config::resolved::TopicSettings;

/// Names of one worker.
#[derive(Debug, Clone)]
pub(crate) struct MemberNames {
    /// Names of the topics.
    pub topics: TopicSettings,
    /// Consumer group.
    pub group: String,
    /// Name of the member in the group; the same after a restart.
    pub member: String,
    /// Number of the worker in the process, from 0.
    pub worker: usize,
    /// Transactional id of this member.
    pub transactional_id: String,
}
