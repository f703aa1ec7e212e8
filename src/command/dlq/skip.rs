//! `anomaly dlq skip`: skips records that cannot be read, as `detector.on_damage = "skip"` does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::command::output;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, LedgerError};
use crate::role::detector;
use crate::store::ledger::PostgresLedger;
use crate::stream::client::{CommittedOffset, Fault, GroupAdministration, TransactionalProducer, insist};
use crate::stream::kafka::{OnOversized, unreadable_from};
use crate::stream::progress::{Progress, ProgressByPartition};

/// Longest wait for an answer from the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Skips the batch of a topic that contains this offset.
///
/// # Errors
/// 65 if the records can be read, or are not the next ones; 69 if Kafka or PostgreSQL is unavailable or refuses, as while
/// a detector runs.
pub(super) fn skip(settings: &Settings, topic: &str, partition: i32, offset: i64) -> Result<()> {
    let topics = &settings.topics;
    let range = match topic {
        _ if topic == topics.raw_events => skip_input(settings, partition, offset)?,
        _ if topic == topics.anomalies => skip_anomalies(settings, partition, offset)?,
        _ if topic == topics.state => {
            return Err(Error::data(format_args!(
                "snapshots cannot be skipped by offset. Set detector.on_damage = \"skip\", or delete {topic} and create it again \
                 with `anomaly topics`: windows are then read back from the input"
            )));
        }
        _ => {
            let (input, anomalies) = (&topics.raw_events, &topics.anomalies);
            return Err(Error::data(format_args!("{topic} is neither {input} nor {anomalies}: nothing was skipped")));
        }
    };
    let count = range.end - range.start;
    output::line(format_args!(
        "{count} records of {topic} [{partition}] were skipped: offsets {} to {}",
        range.start,
        range.end - 1
    ))
}

fn unavailable(fault: &Fault) -> Error {
    Error::unavailable(format_args!("{fault}; nothing was skipped"))
}

/// Returns the offsets of the damaged batch at `next`, the next offset to process.
///
/// # Errors
/// 65 if the batch does not contain `offset`, or if `next` can be read; 69 if Kafka is unavailable, or for another
/// cause than damage.
fn damaged(settings: &Settings, topic: &str, partition: i32, next: i64, offset: i64) -> Result<Range<i64>> {
    // The detector skips an oversized batch of its input by itself.
    let is_input = topic == settings.topics.raw_events;
    let on_oversized = if is_input { OnOversized::Deliver } else { OnOversized::Fail };
    let range = unreadable_from(&settings.kafka, (topic, partition), on_oversized, next);
    let range = range.map_err(|fault| unavailable(&fault))?;
    let range = range.ok_or_else(|| {
        Error::data(format_args!(
            "{topic} [{partition}] can be read at offset {next}, which is the next one to process: nothing was skipped"
        ))
    })?;
    if range.contains(&offset) {
        return Ok(range);
    }
    Err(Error::data(format_args!(
        "{topic} [{partition}] cannot be read from offset {} to {}, but offset {offset} is not one of them: nothing was \
         skipped",
        range.start,
        range.end - 1
    )))
}

/// Moves the committed offset of the detector's group, and counts the records as skipped.
fn skip_input(settings: &Settings, partition: i32, offset: i64) -> Result<Range<i64>> {
    let (topic, group) = (&settings.topics.raw_events, &settings.detector.group);
    let mut client = detector::client_for_check(settings).map_err(Error::config)?;
    let committed = insist(&mut client, ANSWER_TIMEOUT, |client| client.committed(&[partition]));
    let committed = committed.map_err(|fault| unavailable(&fault))?;
    let Some(CommittedOffset::At(Progress { offset: next, mut counts, last, generation })) =
        committed.get(&partition).copied()
    else {
        return Err(Error::data(format_args!(
            "group {group} has judged nothing of {topic} [{partition}]: start the detector first. Nothing was skipped"
        )));
    };
    let range = damaged(settings, topic, partition, next, offset)?;
    counts.skipped += (range.end - range.start).unsigned_abs();
    let progress = ProgressByPartition::from([(partition, Progress { offset: range.end, counts, last, generation })]);
    insist(&mut client, ANSWER_TIMEOUT, |client| client.commit(&progress)).map_err(|fault| {
        Error::unavailable(format_args!(
            "{fault}; nothing was skipped. Stop every detector of group {group}, wait for detector.session_timeout, and \
             run the command again"
        ))
    })?;
    Ok(range)
}

/// Moves the offset of the sink in the database. A running sink notices it within seconds.
fn skip_anomalies(settings: &Settings, partition: i32, offset: i64) -> Result<Range<i64>> {
    let (topic, group) = (&settings.topics.anomalies, &settings.sink.group);
    let failed = |why: LedgerError| Error::unavailable(format_args!("{why}; nothing was skipped"));
    let mut ledger = PostgresLedger::new(&settings.postgres, group, topic);
    let Some(next) = ledger.positions(&[partition]).map_err(failed)?.get(&partition).map(|known| known.next) else {
        return Err(Error::data(format_args!(
            "sink_offsets has no offset of {topic} [{partition}]: start the detector first. Nothing was skipped"
        )));
    };
    let range = damaged(settings, topic, partition, next, offset)?;
    ledger.write(&[], &BTreeMap::from([(partition, (next, range.end))])).map_err(failed)?;
    Ok(range)
}
