//! Reads dead letters, and sends them again to their original topics, each exactly once. The transaction that sends a
//! record also writes a receipt to the dead-letter topic. A dead letter with a receipt is not sent again.

use std::collections::HashMap;
use std::time::{Duration, Instant as Monotonic};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::{ConsumedRecord, Fault, HistoryReader, HistoryTopic, OffsetRanges, ReadLimits, read_to_end};
use super::kafka::context::DeliveryReports;
use super::kafka::{KafkaHistoryClient, client};
use crate::config::resolved::{KafkaSettings, TopicSettings};
use crate::error::{Error, Result};
use crate::event::Timestamp;

const CALL: Duration = Duration::from_secs(15);
/// Number of dead letters per transaction.
const BATCH: usize = 500;
/// Headers of a receipt: position of the dead letter, and time of the replay.
const RECEIPT: [&str; 3] = ["anomaly.replay.partition", "anomaly.replay.offset", "anomaly.replay.at"];
/// Header of a replayed record: the position of its dead letter.
const ORIGIN: &str = "anomaly.replayed-from";
/// Prefix of the headers that describe the rejection.
const ERROR: &str = "anomaly.error.";
/// Number of the record's own headers, which are the last ones. An older detector did not write it, and kept only the
/// label.
const OWN: &str = "anomaly.error.headers";

/// Name and value of a header; the value may be null.
pub(crate) type DeadLetterHeader = (String, Option<Vec<u8>>);

/// A rejected record, as read from the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RejectedRecord {
    /// Partition of the dead letter.
    pub partition: i32,
    /// Offset of the dead letter.
    pub offset: i64,
    /// Time at which the record was rejected.
    pub at: Option<Timestamp>,
    /// Key of the record, possibly truncated.
    pub key: Option<Vec<u8>>,
    /// Value of the record, possibly truncated.
    pub value: Option<Vec<u8>>,
    /// Headers of the detector, then the record's own, in order.
    pub headers: Vec<DeadLetterHeader>,
    /// Time of the replay; `None` if the letter was not replayed.
    pub replayed: Option<String>,
}

impl RejectedRecord {
    /// Returns the detector's header with this name, without the prefix `anomaly.error.`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        text(self.headers[..self.own_from()].iter(), |key| key.strip_prefix(ERROR) == Some(name))
    }

    /// Returns all headers of the detector, without the prefix, in order.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&str, &Option<Vec<u8>>)> {
        let ours = self.headers[..self.own_from()].iter();
        ours.filter_map(|(key, value)| Some((key.strip_prefix(ERROR)?, value)))
    }

    /// Returns the index of the record's first own header.
    fn own_from(&self) -> usize {
        let all = self.headers.len();
        let own = text(self.headers.iter(), |key| key == OWN).and_then(|count| count.parse::<usize>().ok());
        own.map_or(all, |own| all.saturating_sub(own))
    }

    /// Returns the record's own headers. Headers that only this program writes are left out: a replay added them, or
    /// another program copied them from the dead letters.
    pub(crate) fn own_headers(&self) -> impl Iterator<Item = &DeadLetterHeader> {
        let own = self.own_from();
        let older = self.headers[..own].iter().filter(|(key, _)| !key.starts_with(ERROR));
        let is_own = |(key, _): &&DeadLetterHeader| !key.starts_with(ERROR) && key != ORIGIN;
        older.chain(&self.headers[own..]).filter(is_own)
    }

    /// Returns whether the valid values of the record were judged. They would be judged twice if it were sent again.
    pub(crate) fn is_partial(&self) -> bool {
        self.header("judged").is_some()
    }

    /// Returns whether the record was truncated and cannot be sent unchanged.
    pub(crate) fn is_cut(&self) -> bool {
        ["truncated", "key_truncated", "headers_truncated"].iter().any(|name| self.header(name).is_some())
    }

    /// Returns whether the record was a tombstone. If sent again, it would delete the newer records of its key.
    pub(crate) fn is_null(&self) -> bool {
        self.value.is_none()
    }
}

/// Returns the text of the first matching header.
fn text<'h>(
    mut headers: impl Iterator<Item = &'h DeadLetterHeader>,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<&'h str> {
    let (_, value) = headers.find(|(key, _)| is_wanted(key))?;
    std::str::from_utf8(value.as_deref()?).ok()
}

fn failed(what: &str, kafka: &KafkaSettings) -> impl Fn(KafkaError) -> Error {
    let (what, servers) = (what.to_owned(), kafka.bootstrap_servers.clone());
    move |e| Error::unavailable(format_args!("cannot {what} at {servers}: {e}"))
}

/// Passes every current dead letter to `visit`, partition by partition, after it has read all receipts.
///
/// # Errors
/// 69 if the topic cannot be read. Otherwise the error of `visit`.
pub(crate) fn read(
    kafka: &KafkaSettings,
    topics: &TopicSettings,
    mut visit: impl FnMut(RejectedRecord) -> Result<()>,
) -> Result<()> {
    let mut receipts = HashMap::new();
    scan(kafka, topics, |_, record| {
        if let Some((place, at)) = receipt(record) {
            receipts.insert(place, at);
        }
        Ok(())
    })?;
    scan(kafka, topics, |partition, record| match receipt(record) {
        None => visit(letter(partition, record, &receipts)),
        Some(_) => Ok(()),
    })
}

/// Reason why a scan ended early.
enum ScanFailure {
    /// The topic cannot be read.
    Unreadable(Fault),
    /// The callback `visit` failed.
    Visitor(Error),
}

impl From<Fault> for ScanFailure {
    fn from(fault: Fault) -> Self {
        ScanFailure::Unreadable(fault)
    }
}

/// Reads up to the current ends. It waits for open transactions, because they may contain receipts.
fn scan(
    kafka: &KafkaSettings,
    topics: &TopicSettings,
    mut visit: impl FnMut(i32, &ConsumedRecord<'_>) -> Result<()>,
) -> Result<()> {
    let topic = &topics.dead_letter;
    let Some(partitions) = super::topics::partitions(kafka, topic)? else {
        return Err(Error::unavailable(format_args!("topic {topic} does not exist; `anomaly topics` creates it")));
    };
    let unreadable = |fault: Fault| {
        let servers = &kafka.bootstrap_servers;
        Error::unavailable(format_args!("cannot read {topic} at {servers}: {fault}; try again later"))
    };
    let mut history = KafkaHistoryClient::new(kafka, topics, "anomaly-dlq");
    let partitions = (0..i32::try_from(partitions).unwrap_or(i32::MAX)).collect::<Vec<_>>();
    let bounds = history.bounds_of(HistoryTopic::DeadLetters, &partitions).map_err(unreadable)?;
    let limits = ReadLimits { total: Duration::MAX, silence: CALL };
    for (partition, range) in bounds {
        let range = OffsetRanges::from([(partition, range)]);
        let read = read_to_end(&mut history, HistoryTopic::DeadLetters, &range, limits, |partition, record| {
            visit(partition, record).map_err(ScanFailure::Visitor)
        });
        read.map_err(|failure| match failure {
            ScanFailure::Unreadable(fault) => unreadable(fault),
            ScanFailure::Visitor(error) => error,
        })?;
    }
    Ok(())
}

fn headers(record: &ConsumedRecord<'_>) -> Vec<DeadLetterHeader> {
    let all = record.headers.all().into_iter();
    all.map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec))).collect()
}

/// Returns the dead letter's position and the time of the replay, if the record is a receipt. A receipt has no other
/// headers. A dead letter may have these too, from the rejected record.
fn receipt(record: &ConsumedRecord<'_>) -> Option<((i32, i64), String)> {
    let headers = headers(record);
    let is_receipt = headers.iter().map(|(key, _)| key.as_str()).eq(RECEIPT);
    let [partition, offset, at] = RECEIPT.map(|name| text(headers.iter().filter(|_| is_receipt), |key| key == name));
    Some(((partition?.parse().ok()?, offset?.parse().ok()?), at?.to_owned()))
}

fn letter(partition: i32, record: &ConsumedRecord<'_>, receipts: &HashMap<(i32, i64), String>) -> RejectedRecord {
    RejectedRecord {
        partition,
        offset: record.offset,
        at: record.timestamp.and_then(Timestamp::from_millis),
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: headers(record),
        replayed: receipts.get(&(partition, record.offset)).cloned(),
    }
}

/// Sends dead letters again, in transactions.
pub(crate) struct DeadLetterReplayer {
    producer: BaseProducer<DeliveryReports>,
    kafka: KafkaSettings,
    letters: String,
    waiting: Vec<RejectedRecord>,
    /// Number of dead letters sent and committed.
    pub sent: u64,
}

impl DeadLetterReplayer {
    /// Initialises the transactions; fences another replay of the same name.
    ///
    /// # Errors
    /// 69 if the cluster does not allow it.
    pub(crate) fn new(kafka: &KafkaSettings, letters: &str, name: &str) -> Result<Self> {
        let mut config = client::producer(kafka);
        config.set("transactional.id", name).set("message.timeout.ms", CALL.as_millis().to_string());
        let failed = failed("send dead letters again", kafka);
        let producer: BaseProducer<DeliveryReports> =
            config.create_with_context(DeliveryReports::default()).map_err(&failed)?;
        producer.init_transactions(CALL).map_err(&failed)?;
        Ok(DeadLetterReplayer {
            producer,
            kafka: kafka.clone(),
            letters: letters.to_owned(),
            waiting: Vec::new(),
            sent: 0,
        })
    }

    /// Adds a dead letter; sends a batch when there are enough.
    ///
    /// # Errors
    /// 69: the transaction was not committed, or its outcome is unknown. The next run decides by the receipts.
    pub(crate) fn send(&mut self, letter: RejectedRecord) -> Result<()> {
        self.waiting.push(letter);
        if self.waiting.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Sends and commits the waiting dead letters.
    ///
    /// # Errors
    /// Fails as [`send`](Self::send) does.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let failed = failed("send dead letters again", &self.kafka);
        let now = Timestamp::now().to_string();
        self.producer.begin_transaction().map_err(&failed)?;
        for letter in &self.waiting {
            self.queue(letter, &now).map_err(&failed)?;
        }
        let flushed = self.producer.flush(CALL);
        if let Some(e) = self.producer.context().take_failure() {
            let _ = self.producer.abort_transaction(CALL);
            return Err(failed(e));
        }
        flushed.map_err(&failed)?;
        let deadline = Monotonic::now() + CALL;
        loop {
            match self.producer.commit_transaction(CALL) {
                Ok(()) => break,
                Err(KafkaError::Transaction(e)) if e.is_retriable() && Monotonic::now() < deadline => {}
                Err(e) => return Err(failed(e)),
            }
        }
        self.sent += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Creates the record, unchanged and for its old partition, and the receipt.
    fn queue(&self, letter: &RejectedRecord, now: &str) -> Result<(), KafkaError> {
        let place = format!("{}[{}]@{}", self.letters, letter.partition, letter.offset);
        let headers = letter
            .own_headers()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_deref() }));
        let headers = headers.insert(Header { key: ORIGIN, value: Some(&place) });
        let topic = letter.header("topic").unwrap_or_default();
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
        record.partition = letter.header("partition").and_then(|partition| partition.parse().ok());
        record.timestamp = letter.header("timestamp").and_then(|millis| millis.parse().ok());
        (record.key, record.payload) = (letter.key.as_deref(), letter.value.as_deref());
        self.insist(record)?;
        let receipt = [letter.partition.to_string(), letter.offset.to_string(), now.to_owned()];
        let headers = RECEIPT
            .iter()
            .zip(&receipt)
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.letters).partition(letter.partition).headers(headers);
        record.key = letter.key.as_deref();
        self.insist(record)
    }

    fn insist(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((e, _)) => return Err(e),
            }
        }
    }
}
