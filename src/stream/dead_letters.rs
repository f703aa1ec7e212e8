//! Reads dead letters, and sends them again to the input topic, each exactly once. The transaction that sends a
//! record also writes a receipt to the dead-letter topic. A dead letter with a receipt is not sent again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use super::client::{
    ClusterConnection, ConsumedRecord, Fault, HistoryReader, HistoryTopic, OffsetRanges, OutgoingRecord, OutputTopic,
    ReadLimits, Remedy, TransactionalProducer, insist, read_to_end,
};
use super::kafka::{KafkaHistoryClient, KafkaTransactionalProducer};
use super::progress::ProgressByPartition;
use crate::config::resolved::{Delivery, KafkaSettings, TopicSettings};
use crate::error::{Error, Result};
use crate::event::{RejectClass, Timestamp};

/// Longest wait for an answer of the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Number of dead letters per transaction.
const DEAD_LETTERS_PER_TRANSACTION: usize = 500;
/// Headers of a receipt: position of the dead letter, and time of the replay.
const RECEIPT_HEADERS: [&str; 3] = ["anomaly.replay.partition", "anomaly.replay.offset", "anomaly.replay.at"];
/// Header of a replayed record: the position of its dead letter.
const ORIGIN_HEADER: &str = "anomaly.replayed-from";
/// Prefix of the headers that describe the rejection.
const ERROR_PREFIX: &str = "anomaly.error.";
/// Number of the record's own headers, which are the last ones. An older detector did not write it, and kept only the
/// label.
const OWN_HEADERS_COUNT: &str = "anomaly.error.headers";

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
    /// Time of the replay; `None` if the dead letter was not replayed.
    pub replayed: Option<String>,
}

impl RejectedRecord {
    /// Returns the detector's header with this name, without the prefix `anomaly.error.`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        text(self.headers[..self.own_from()].iter(), |key| key.strip_prefix(ERROR_PREFIX) == Some(name))
    }

    /// Returns the partition that the rejected record came from, as the headers name it.
    fn origin_partition(&self) -> Option<i32> {
        self.header("partition")?.parse().ok()
    }

    /// Returns whether the rejected record came from one of the partitions of this topic.
    pub(crate) fn is_from(&self, topic: &str, partitions: usize) -> bool {
        let partition = self.origin_partition().and_then(|partition| usize::try_from(partition).ok());
        self.header("topic") == Some(topic) && partition.is_some_and(|partition| partition < partitions)
    }

    /// Returns all headers of the detector, without the prefix, in order.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&str, &Option<Vec<u8>>)> {
        let ours = self.headers[..self.own_from()].iter();
        ours.filter_map(|(key, value)| Some((key.strip_prefix(ERROR_PREFIX)?, value)))
    }

    /// Returns the index of the record's first own header.
    fn own_from(&self) -> usize {
        let all = self.headers.len();
        let own =
            text(self.headers.iter(), |key| key == OWN_HEADERS_COUNT).and_then(|count| count.parse::<usize>().ok());
        own.map_or(all, |own| all.saturating_sub(own))
    }

    /// Returns the record's own headers. Headers that only this program writes are left out: a replay added them, or
    /// another program copied them from the dead letters.
    pub(crate) fn own_headers(&self) -> impl Iterator<Item = &DeadLetterHeader> {
        let own = self.own_from();
        let older = self.headers[..own].iter().filter(|(key, _)| !key.starts_with(ERROR_PREFIX));
        let is_own = |(key, _): &&DeadLetterHeader| !key.starts_with(ERROR_PREFIX) && key != ORIGIN_HEADER;
        older.chain(&self.headers[own..]).filter(is_own)
    }

    /// Returns whether the dead letter is about an oversized batch, whose records it does not have.
    pub(crate) fn is_batch(&self) -> bool {
        self.header("class") == Some(RejectClass::BatchSize.as_str())
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
        self.value.is_none() && !self.is_batch()
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

/// Passes every current dead letter to `visit`, partition by partition, after it has read all receipts.
///
/// # Errors
/// 69 if the topic is unavailable, 65 if it cannot be read at an offset. Otherwise the error of `visit`.
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
        None => visit(read_record(partition, record, &receipts)),
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
        if fault.remedy == Remedy::Stop {
            return Error::data(format_args!("{topic} {fault}"));
        }
        let servers = &kafka.bootstrap_servers;
        Error::unavailable(format_args!("cannot read {topic} at {servers}: {fault}; try again later"))
    };
    let mut history = KafkaHistoryClient::new(kafka, topics, "anomaly-dlq");
    let partitions = (0..i32::try_from(partitions).unwrap_or(i32::MAX)).collect::<Vec<_>>();
    let bounds = history.bounds_of(HistoryTopic::DeadLetters, &partitions).map_err(unreadable)?;
    let limits = ReadLimits { total: Duration::MAX, silence: ANSWER_TIMEOUT };
    for (partition, range) in bounds {
        let range = OffsetRanges::from([(partition, range)]);
        let read = read_to_end(&mut history, HistoryTopic::DeadLetters, &range, limits, |partition, consumed| {
            let mut records = consumed.records().iter();
            records.try_for_each(|record| visit(partition, record)).map_err(ScanFailure::Visitor)
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
    let is_receipt = headers.iter().map(|(key, _)| key.as_str()).eq(RECEIPT_HEADERS);
    let [partition, offset, at] =
        RECEIPT_HEADERS.map(|name| text(headers.iter().filter(|_| is_receipt), |key| key == name));
    Some(((partition?.parse().ok()?, offset?.parse().ok()?), at?.to_owned()))
}

fn read_record(partition: i32, record: &ConsumedRecord<'_>, receipts: &HashMap<(i32, i64), String>) -> RejectedRecord {
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
    producer: KafkaTransactionalProducer,
    servers: String,
    /// Name of the dead-letter topic.
    topic: String,
    waiting: Vec<RejectedRecord>,
    /// Number of dead letters sent and committed.
    pub sent: u64,
    /// Dead letters that a topic refuses.
    pub refused: RefusedDeadLetters,
}

/// Dead letters that a topic refuses, however often they are sent.
#[derive(Debug, Default)]
pub(crate) struct RefusedDeadLetters {
    /// Number of these dead letters.
    pub count: u64,
    /// The first of them, each with its place and the reason.
    pub places: Vec<String>,
}

/// Maximum number of refused dead letters that are named.
const MAX_NAMED: usize = 10;
/// Maximum number of attempts to send a batch that no topic refuses.
const MAX_ATTEMPTS: usize = 5;
/// Time between two of these attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

impl DeadLetterReplayer {
    /// Initialises the transactions; fences another replay of the same name.
    ///
    /// # Errors
    /// 69 if the cluster does not allow it.
    pub(crate) fn new(kafka: &KafkaSettings, topics: &TopicSettings, name: &str) -> Result<Self> {
        let failed = failed(&kafka.bootstrap_servers);
        let producer = KafkaTransactionalProducer::new(kafka, topics, name, Delivery::ExactlyOnce, ANSWER_TIMEOUT);
        let mut producer = producer.map_err(&failed)?;
        insist(&mut producer, ANSWER_TIMEOUT, TransactionalProducer::init_transactions).map_err(&failed)?;
        Ok(DeadLetterReplayer {
            producer,
            servers: kafka.bootstrap_servers.clone(),
            topic: topics.dead_letter.clone(),
            waiting: Vec::new(),
            sent: 0,
            refused: RefusedDeadLetters::default(),
        })
    }

    /// Adds a dead letter; sends a batch when there are enough.
    ///
    /// # Errors
    /// 69: the transaction was not committed, or its outcome is unknown. The next run decides by the receipts.
    pub(crate) fn send(&mut self, dead_letter: RejectedRecord) -> Result<()> {
        self.waiting.push(dead_letter);
        if self.waiting.len() >= DEAD_LETTERS_PER_TRANSACTION { self.flush() } else { Ok(()) }
    }

    /// Sends and commits the waiting dead letters.
    ///
    /// # Errors
    /// Fails as [`send`](Self::send) does.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.send_all(&waiting)
    }

    /// Sends and commits these dead letters. If a topic refuses one, it halves the batch until that one is alone,
    /// counts it, and continues with the others.
    fn send_all(&mut self, dead_letters: &[RejectedRecord]) -> Result<()> {
        if dead_letters.is_empty() {
            return Ok(());
        }
        let mut attempts = 0;
        let fault = loop {
            let Err(fault) = self.commit(dead_letters, &Timestamp::now().to_string()) else {
                self.sent += dead_letters.len() as u64;
                return Ok(());
            };
            // If the abort gets no answer, the broker aborts the transaction later.
            let is_aborted = fault.remedy == Remedy::Abort && self.producer.abort().is_ok();
            if is_aborted && fault.is_refused {
                break fault;
            }
            attempts += 1;
            if !is_aborted || attempts == MAX_ATTEMPTS {
                return Err(failed(&self.servers)(fault));
            }
            // After a refusal librdkafka can also purge records of the next transaction.
            self.producer.sleep(ATTEMPT_PAUSE);
        };
        if let [dead_letter] = dead_letters {
            self.refused.count += 1;
            if self.refused.places.len() < MAX_NAMED {
                self.refused.places.push(format!("{}:{} ({fault})", dead_letter.partition, dead_letter.offset));
            }
            return Ok(());
        }
        let (left, right) = dead_letters.split_at(dead_letters.len() / 2);
        self.send_all(left)?;
        self.send_all(right)
    }

    /// Sends each of these dead letters and its receipt in one transaction.
    fn commit(&mut self, dead_letters: &[RejectedRecord], now: &str) -> Result<(), Fault> {
        self.producer.begin()?;
        for dead_letter in dead_letters {
            self.producer.send(replayed(dead_letter, &self.topic))?;
            self.producer.send(receipt_of(dead_letter, &self.topic, now))?;
        }
        insist(&mut self.producer, ANSWER_TIMEOUT, |producer| producer.commit(&ProgressByPartition::new()))
    }
}

fn failed(servers: &str) -> impl Fn(Fault) -> Error {
    move |fault| Error::unavailable(format_args!("cannot send dead letters again at {servers}: {fault}"))
}

/// Creates the rejected record again, unchanged and for its old partition.
fn replayed(dead_letter: &RejectedRecord, topic: &str) -> OutgoingRecord {
    let place = format!("{topic}[{}]@{}", dead_letter.partition, dead_letter.offset);
    let own = dead_letter.own_headers().map(|(name, value)| (Cow::Owned(name.clone()), value.clone()));
    let origin = (Cow::Borrowed(ORIGIN_HEADER), Some(place.into_bytes()));
    OutgoingRecord {
        output: OutputTopic::Named {
            topic: dead_letter.header("topic").unwrap_or_default().to_owned(),
            partition: dead_letter.origin_partition(),
        },
        key: dead_letter.key.clone(),
        value: dead_letter.value.clone(),
        timestamp: dead_letter.header("timestamp").and_then(|millis| millis.parse().ok()),
        headers: own.chain([origin]).collect(),
    }
}

/// Creates the receipt of a dead letter, for the same partition.
fn receipt_of(dead_letter: &RejectedRecord, topic: &str, now: &str) -> OutgoingRecord {
    let receipt = [dead_letter.partition.to_string(), dead_letter.offset.to_string(), now.to_owned()];
    let headers = RECEIPT_HEADERS.into_iter().zip(receipt);
    OutgoingRecord {
        output: OutputTopic::Named { topic: topic.to_owned(), partition: Some(dead_letter.partition) },
        key: dead_letter.key.clone(),
        value: None,
        timestamp: None,
        headers: headers.map(|(name, value)| (Cow::Borrowed(name), Some(value.into_bytes()))).collect(),
    }
}
