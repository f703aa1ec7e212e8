//! Remedies for offsets with which a detector must not continue by itself. All of them are `anomaly offsets`.

use std::cmp::Ordering;

use super::live::LiveDigest;
use crate::config::resolved::Settings;
use crate::stream::client::{CommittedOffset, Fault, Remedy};
use crate::stream::progress::Progress;

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

/// Returns the fault for a state topic whose cleanup policy deletes windows.
pub(super) fn wrong_policy(settings: &Settings, policy: &str) -> Option<Fault> {
    let state = &settings.topics.state;
    (policy != "compact").then(|| {
        Fault::new(
            Remedy::Correct,
            format_args!(
                "the cleanup.policy of {state} is {policy}, not compact, so that Kafka deletes windows or keeps old ones for ever. \
                 Set it (kafka-configs --alter --entity-type topics --entity-name {state} --add-config cleanup.policy=compact)"
            ),
        )
    })
}

/// Returns the fault for snapshots that are missing.
pub(super) fn missing(settings: &Settings, partition: i32, expected: LiveDigest, found: LiveDigest) -> Fault {
    let state = &settings.topics.state;
    let what = match expected.count.cmp(&found.count) {
        Ordering::Greater => format!("has {} of {} records with windows", found.count, expected.count),
        _ => format!("has {} records with windows, and not the {} that were written", found.count, expected.count),
    };
    Fault::new(
        Remedy::Stop,
        format_args!(
            "{state} [{partition}] {what}: records were deleted, as with cleanup.policy=delete. {}",
            accept(settings, partition, "reads the windows of this partition back from the input")
        ),
    )
}

/// Returns the fault for a log that has another record in place of the one with the last outcome.
pub(super) fn rewritten(settings: &Settings, partition: i32, progress: &Progress) -> Fault {
    let (topic, offset) = (&settings.topics.raw_events, progress.offset);
    let last = progress.last.map_or(offset, |last| last.offset);
    let place = format_args!("{topic} [{partition}] has another record at offset {last} than the one that was judged");
    let cause = "the log was cut before the committed offset and has grown again, as after an unclean leader election";
    let effect = format!("continues at offset {offset}, and the new records before it get no verdict");
    Fault::new(Remedy::Stop, format_args!("{place}: {cause}. {}", accept(settings, partition, &effect)))
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
        CommittedOffset::At(_) | CommittedOffset::New | CommittedOffset::Added { .. } => return None,
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
