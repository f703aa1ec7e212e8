//! Remedies for offsets with which a detector must not continue by itself. All of them are `anomaly offsets`.

use crate::config::resolved::Settings;
use crate::stream::client::{CommittedOffset, Fault, Remedy};

/// Returns the remedy for a topic that must be judged from its beginning, because its offsets and snapshots are
/// invalid.
pub(super) fn begin_again(settings: &Settings) -> String {
    format!(
        "To judge it from its beginning, stop all detectors of group {}, run `anomaly offsets set all earliest`, then start \
         the detectors again",
        settings.detector.group
    )
}

/// Returns the remedy for offsets of which a person must decide whether they are right. `effect` says what accepting
/// the offset of this partition does.
pub(super) fn accept(settings: &Settings, partition: i32, effect: &str) -> String {
    format!(
        "Stop all detectors of group {}, then start them again after one of two commands: `anomaly offsets accept` {effect}, \
         and `anomaly offsets set {partition} OFFSET` sets another offset. `anomaly offsets` lists the offsets",
        settings.detector.group
    )
}

/// Returns the fault for an offset that another program has committed.
pub(super) fn foreign(settings: &Settings, partition: i32, standing: CommittedOffset) -> Option<Fault> {
    let (offset, how) = match standing {
        CommittedOffset::Foreign { offset, was: Some(was) } => {
            (offset, format!("moved from offset {} with its metadata", was.offset))
        }
        CommittedOffset::Foreign { offset, was: None } | CommittedOffset::Earlier(offset) => {
            (offset, "committed".to_owned())
        }
        CommittedOffset::At(_) | CommittedOffset::New | CommittedOffset::Added => return None,
    };
    let (topic, group) = (&settings.topics.raw_events, &settings.detector.group);
    let place = format_args!("{topic} [{partition}]: the committed offset {offset} of group {group} was {how}");
    Some(Fault::new(
        Remedy::Stop,
        format_args!(
            "{place} by another program, so that records would get no verdict, or a second one. {}",
            accept(settings, partition, "continues there and counts the records that were passed as skipped")
        ),
    ))
}
