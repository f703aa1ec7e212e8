//! Finds the offsets at which the sink reads its partitions: those of the ledger, unless the topic was recreated or has
//! deleted records.

use crate::ledger::{Ledger, LedgerError, LedgerPosition};
use crate::stream::client::{Fault, GroupConsumer, Positions, Remedy};

/// Reason why assigned partitions were not accepted.
pub(super) enum TakeoverFault {
    /// A temporary reason, for people.
    Temporary(String),
    /// A permanent reason, with its remedy.
    Broken(Fault),
}

impl From<LedgerError> for TakeoverFault {
    fn from(why: LedgerError) -> Self {
        TakeoverFault::Temporary(why.to_string())
    }
}

/// Offsets at which the sink continues.
pub(super) struct SinkStart {
    /// The ledger's offset of each partition.
    pub positions: Positions,
    /// The offset to read from: the topic may have deleted records.
    pub from: Positions,
    /// Id of the topic, if it is known.
    pub topic_id: Option<String>,
}

/// Returns the offsets of these partitions.
pub(super) fn positions(
    reader: &mut impl GroupConsumer,
    ledger: &mut dyn Ledger,
    topic: &str,
    partitions: &[i32],
) -> Result<SinkStart, TakeoverFault> {
    let known = ledger.positions(partitions)?;
    let (mut positions, mut from) = (Positions::new(), Positions::new());
    let (mut current, mut without_id) = (None, Vec::new());
    for &partition in partitions {
        let (first, end) = reader.bounds(partition).map_err(|fault| match fault.remedy {
            Remedy::Retry | Remedy::Abort => TakeoverFault::Temporary(fault.message),
            Remedy::Rebuild | Remedy::Yield | Remedy::Stop | Remedy::Correct => TakeoverFault::Broken(fault),
        })?;
        // The id is requested once, and only from a cluster that has just answered.
        let current = current.get_or_insert_with(|| reader.topic_id());
        let known = known.get(&partition);
        if let Some(recreated) = known.and_then(|known| recreated(known, current.as_deref(), end)) {
            return Err(TakeoverFault::Temporary(format!(
                "{topic} [{partition}] {recreated}: the topic was recreated or cut. `anomaly offsets accept --sink` continues \
                 at its first record"
            )));
        }
        if known.is_some_and(|known| known.topic_id.is_none()) {
            without_id.push(partition);
        }
        let next = match known.map(|known| known.next) {
            None => {
                ledger.begin(partition, &LedgerPosition { next: first, topic_id: current.clone() })?;
                first
            }
            // The ledger's row keeps the old offset until the next write, whose move starts there.
            Some(next) if next < first => {
                tracing::error!(
                    topic,
                    partition,
                    lost = first - next,
                    "anomalies were deleted by the topic's retention before they were stored"
                );
                next
            }
            Some(next) => next,
        };
        positions.insert(partition, next);
        from.insert(partition, next.max(first));
    }
    let topic_id = current.flatten();
    if let Some(topic_id) = &topic_id
        && !without_id.is_empty()
    {
        ledger.note_topic_id(&without_id, topic_id)?;
    }
    Ok(SinkStart { positions, from, topic_id })
}

/// Returns how the topic differs from the one that the ledger's offset belongs to.
fn recreated(known: &LedgerPosition, current: Option<&str>, end: i64) -> Option<String> {
    let next = known.next;
    (!known.is_in(current, end)).then(|| match (known.topic_id.as_deref(), current) {
        (Some(then), Some(now)) if then != now => {
            format!("has the id {now}, but the offset {next} in sink_offsets belongs to the id {then}")
        }
        _ => format!("ends at {end}, before the offset {next} in sink_offsets"),
    })
}
