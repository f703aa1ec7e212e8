//! Shows the newest records of `raw_events`, and how each is decoded, for `anomaly check --connect`. It reads outside
//! any group and commits nothing.

use std::borrow::Cow;
use std::time::{Duration, Instant as Monotonic};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::Tally;
use super::quiet::Quiet;
use crate::config::Settings;
use crate::event::{Decoder, Headers, RawRecord, Timestamp};
use crate::finding::{Finding, Grade};
use crate::foreign;

/// Number of records that are shown.
const SHOWN: usize = 20;
/// Timeout for reading the records.
const LIMIT: Duration = Duration::from_secs(10);

/// One record, and how it is decoded.
struct DecodedRecord {
    /// Time of the record in milliseconds, for the order.
    at: i64,
    partition: i32,
    offset: i64,
    result: Result<String, String>,
}

/// Prints the newest records and their outcomes.
pub(super) fn show(settings: &Settings, consumer: &BaseConsumer<Quiet>, partitions: usize, tally: &mut Tally) {
    let what = format!("records of {}", settings.topics.raw_events);
    let mut seen = match newest(settings, consumer, partitions) {
        Ok(seen) => seen,
        Err(e) => return tally.add(Finding::new(what, Grade::Wrong, format!("cannot be read: {e}"))),
    };
    seen.sort_by_key(|one| (one.at, one.partition, one.offset));
    let seen = seen.split_off(seen.len().saturating_sub(SHOWN));
    let rejected = seen.iter().filter(|one| one.result.is_err()).count();
    let (grade, text) = match (seen.len(), rejected) {
        (0, _) => (Grade::Good, "there are none yet".to_owned()),
        (n, 0) => (Grade::Good, format!("the newest {n} are understood")),
        (n, bad) if bad == n => {
            (Grade::Wrong, format!("all of the newest {n} are rejected: do [fields] name their fields?"))
        }
        (n, bad) => (Grade::Doubtful, format!("{bad} of the newest {n} are rejected")),
    };
    tally.add(Finding::new(what, grade, text));
    for one in seen {
        let place = format!("[{}] {}", one.partition, one.offset);
        match one.result {
            Ok(event) => tally.line(&format!("        {place}: {event}")),
            Err(why) => tally.line(&format!("        {place}: rejected: {why}")),
        }
    }
}

fn newest(
    settings: &Settings,
    consumer: &BaseConsumer<Quiet>,
    partitions: usize,
) -> Result<Vec<DecodedRecord>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        list.add_partition_offset(&settings.topics.raw_events, partition, Offset::OffsetTail(SHOWN as i64))?;
    }
    consumer.assign(&list)?;
    let mut decoder = Decoder::new(&settings.fields);
    let (mut seen, mut ended) = (Vec::new(), 0);
    let deadline = Monotonic::now() + LIMIT;
    while ended < partitions && Monotonic::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let at = record.timestamp().to_millis();
                seen.push(DecodedRecord {
                    at: at.unwrap_or(i64::MIN),
                    partition: record.partition(),
                    offset: record.offset(),
                    result: understood(&mut decoder, &record, at),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(_)) | None => {}
        }
    }
    consumer.unassign()?;
    Ok(seen)
}

/// Headers borrowed from the client.
struct Lent<'a>(Option<&'a BorrowedHeaders>);

impl Headers for Lent<'_> {
    fn label(&self) -> Option<&str> {
        None
    }

    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
        let headers = self.0.into_iter().flat_map(|headers| headers.iter());
        headers.map(|header| (Cow::Borrowed(header.key), header.value)).collect()
    }
}

/// Describes device, metric, value and time as the detector reads them, or says why it does not.
fn understood(decoder: &mut Decoder, record: &BorrowedMessage<'_>, at: Option<i64>) -> Result<String, String> {
    let headers = Lent(record.headers());
    let input = RawRecord { key: record.key(), value: record.payload(), headers: &headers };
    let event = decoder.decode(&input).map_err(|why| foreign::text(&why.to_string()).to_string())?;
    let Some(event) = event else { return Ok("ignored: a null value, or fields.ignore names it".to_owned()) };
    let own = at.and_then(Timestamp::from_millis);
    let time = match (event.timestamp, own) {
        (Some(time), _) => time.to_string(),
        (None, Some(time)) => format!("{time} (the record's own time)"),
        (None, None) => "without a time".to_owned(),
    };
    let metric = event.metric_name.as_deref().map_or_else(|| "-".to_owned(), |name| foreign::name(name).to_string());
    Ok(format!("device {} metric {metric} value {} at {time}", foreign::name(&event.device_id), event.metric_value))
}
