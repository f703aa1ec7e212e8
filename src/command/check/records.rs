//! Shows the newest records of `raw_events`, and how each is decoded, for `anomaly check --connect`. It reads outside
//! any group and commits nothing.

use std::time::Duration;

use super::CheckReport;
use crate::config::Settings;
use crate::event::{Decoder, Timestamp};
use crate::finding::{Finding, Grade};
use crate::foreign;
use crate::stream::client::{
    Consumed, ConsumedRecord, Fault, HistoryReader, HistoryTopic, ReadLimits, Remedy, read_to_end,
};
use crate::stream::kafka::KafkaHistoryClient;

/// Number of records that are shown.
const MAX_RECORDS: usize = 20;
/// Timeout for reading the records.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// One record, and how it is decoded.
struct DecodedRecord {
    /// Time of the record in milliseconds, for the order.
    at: i64,
    partition: i32,
    offset: i64,
    result: Result<String, String>,
}

/// Prints the newest records and their outcomes.
pub(super) fn show(settings: &Settings, partitions: &[i32], report: &mut CheckReport) {
    let what = format!("records of {}", settings.topics.raw_events);
    let mut seen = match newest(settings, partitions) {
        Ok(seen) => seen,
        Err(e) => return report.add(Finding::new(what, Grade::Wrong, format!("cannot be read: {e}"))),
    };
    seen.sort_by_key(|one| (one.at, one.partition, one.offset));
    let seen = seen.split_off(seen.len().saturating_sub(MAX_RECORDS));
    let rejected = seen.iter().filter(|one| one.result.is_err()).count();
    let (grade, text) = match (seen.len(), rejected) {
        (0, _) => (Grade::Good, "there are none yet".to_owned()),
        (n, 0) => (Grade::Good, format!("the newest {n} are understood")),
        (n, bad) if bad == n => {
            (Grade::Wrong, format!("all of the newest {n} are rejected: do [fields] name their fields?"))
        }
        (n, bad) => (Grade::Doubtful, format!("{bad} of the newest {n} are rejected")),
    };
    report.add(Finding::new(what, grade, text));
    for one in seen {
        let place = format!("[{}] {}", one.partition, one.offset);
        match one.result {
            Ok(event) => report.line(&format!("        {place}: {event}")),
            Err(why) => report.line(&format!("        {place}: rejected: {why}")),
        }
    }
}

fn newest(settings: &Settings, partitions: &[i32]) -> Result<Vec<DecodedRecord>, Fault> {
    let mut history = KafkaHistoryClient::new(&settings.kafka, &settings.topics, &settings.detector.group);
    let mut ranges = history.bounds_of(HistoryTopic::Input, partitions)?;
    ranges.values_mut().for_each(|range| range.start = range.start.max(range.end - MAX_RECORDS as i64));
    let mut decoder = Decoder::new(&settings.fields);
    let mut seen = Vec::new();
    let limits = ReadLimits { total: READ_TIMEOUT, silence: READ_TIMEOUT };
    let read = read_to_end(&mut history, HistoryTopic::Input, &ranges, limits, |partition, consumed| {
        match consumed {
            Consumed::Records(records) => seen.extend(records.iter().map(|record| {
                let (at, result) = (record.timestamp.unwrap_or(i64::MIN), understood(&mut decoder, record));
                DecodedRecord { at, partition, offset: record.offset, result }
            })),
            Consumed::Oversized(batch) => {
                let (offset, result) = (batch.offsets.start, Err(batch.to_string()));
                seen.push(DecodedRecord { at: i64::MAX, partition, offset, result });
            }
        }
        Ok(())
    });
    match read {
        // What was read in time is shown.
        Err(Fault { remedy: Remedy::Retry, .. }) | Ok(()) => Ok(seen),
        Err(fault) => Err(fault),
    }
}

/// Describes device, metric, value and time as the detector reads them, or says why it does not.
fn understood(decoder: &mut Decoder, record: &ConsumedRecord<'_>) -> Result<String, String> {
    let events = decoder.decode(&record.input()).map_err(|why| foreign::text(&why.to_string()).to_string())?;
    let Some(event) = events.first() else {
        return Ok("ignored: it has no value, or fields.ignore names it".to_owned());
    };
    let others = match (events.len() - 1, events.partial()) {
        (0, None) => String::new(),
        (more, None) => format!(", and {more} more values"),
        (more, Some(why)) => {
            format!(", and {more} more values; others are invalid: {}", foreign::text(&why.to_string()))
        }
    };
    let own = record.timestamp.and_then(Timestamp::from_millis);
    let time = match (event.timestamp, own) {
        (Some(time), _) => time.to_string(),
        (None, Some(time)) => format!("{time} (the record's own time)"),
        (None, None) => "without a time".to_owned(),
    };
    let metric = event.metric_name.as_deref().map_or_else(|| "-".to_owned(), |name| foreign::name(name).to_string());
    Ok(format!(
        "device {} metric {metric} value {} at {time}{others}",
        foreign::name(&event.device_id),
        event.metric_value
    ))
}
