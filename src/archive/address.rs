//! The address of an anomaly: its identity, of which a person may leave out parts.

use crate::anomaly::{AnomalyId, RecordId};

/// Address of an anomaly, as it is in a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnomalyAddress {
    /// Topic of the event, `source.topic`.
    pub topic: String,
    /// Generation of the topic, `source.generation`. `None` means the newest one that has this anomaly.
    pub generation: Option<i32>,
    /// Partition of the event, `source.partition`.
    pub partition: i32,
    /// Offset of the event, `source.offset`.
    pub offset: i64,
    /// Index of the value, `source.index`, and the kind. `None` means the first anomaly of the record.
    pub value: Option<(i32, String)>,
}

impl AnomalyAddress {
    /// Returns the complete address of an anomaly.
    pub fn of(AnomalyId { source, kind }: &AnomalyId) -> AnomalyAddress {
        let RecordId { topic, generation, partition, offset, index } = source;
        let value = Some((*index, kind.clone()));
        let (topic, generation) = (topic.clone(), Some(*generation));
        AnomalyAddress { topic, generation, partition: *partition, offset: *offset, value }
    }

    /// Returns whether both are addresses of one place, whatever the generation.
    pub fn is_at(&self, other: &AnomalyAddress) -> bool {
        AnomalyAddress { generation: other.generation, ..self.clone() } == *other
    }
}
