//! Names by which Kafka knows a worker.

/// Names of one worker.
#[derive(Debug, Clone)]
pub struct MemberNames {
    /// Input topic, by default `raw_events`.
    pub input: String,
    /// Topic of anomalies.
    pub anomalies: String,
    /// Dead-letter topic.
    pub dead_letter: String,
    /// State topic.
    pub state: String,
    /// Consumer group.
    pub group: String,
    /// Name of the member in the group; the same after a restart.
    pub member: String,
    /// Number of the worker in the process, from 0.
    pub worker: usize,
    /// Transactional id of this member.
    pub transactional_id: String,
}
