//! The names that Kafka knows a worker by.

/// Names by which Kafka knows one worker.
#[derive(Debug, Clone)]
pub struct MemberNames {
    /// Input topic.
    pub input: String,
    /// Output topic.
    pub anomalies: String,
    /// Output topic.
    pub dead_letter: String,
    /// Windows.
    pub state: String,
    /// Consumer group.
    pub group: String,
    /// Member of the group; the same after a restart.
    pub member: String,
    /// Of the process, from 0.
    pub worker: usize,
    /// Transactions of this member.
    pub transactional_id: String,
}
