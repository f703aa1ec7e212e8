//! The checks of Kafka for `anomaly check --connect`: brokers, topics, the group, and the permissions to read and to write.
//! They leave nothing that a reader of committed records would see.

use std::time::Duration;

use super::{CheckReport, records};
use crate::config::Settings;
use crate::config::resolved::Delivery;
use crate::config::schema::ShippedFile;
use crate::finding::Finding;
use crate::role::detector;
use crate::stream;
use crate::stream::client::{
    Fault, GroupAdministration, GroupMembership, OutgoingRecord, OutputTopic, Positions, RecordFetch, Remedy,
    TransactionalProducer, insist,
};
use crate::stream::kafka::{KafkaGroupConsumer, KafkaTransactionalProducer};

/// Longest wait for an answer of the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a failure to read counts. A client that is still connecting recovers sooner.
const FAILURE_TIME: Duration = Duration::from_secs(3);

/// Checks everything that the role of `file` requires of Kafka; without `file`, everything that all roles require.
pub(super) fn try_all(settings: &Settings, file: Option<ShippedFile>, report: &mut CheckReport) {
    if file == Some(ShippedFile::Dashboard) {
        return;
    }
    let (kafka, topics) = (&settings.kafka, &settings.topics);
    match stream::topics::brokers(kafka, ANSWER_TIMEOUT) {
        Err(fault) if fault.remedy == Remedy::Stop => return report.tried("kafka.properties", Err(fault.message)),
        Err(fault) => return report.tried("Kafka", Err(format!("{}: {fault}", kafka.bootstrap_servers))),
        Ok(brokers) => report.tried("Kafka", Ok(format!("{brokers} brokers"))),
    }
    if file == Some(ShippedFile::Producer) {
        try_topic(settings, &topics.raw_events, false, report);
        return;
    }
    let mut written = vec![&topics.anomalies, &topics.dead_letter];
    if settings.detector.keeps_state() {
        written.push(&topics.state);
    }
    let input = try_topic(settings, &topics.raw_events, true, report);
    let mut is_complete = input.is_some();
    for topic in &written {
        is_complete &= try_topic(settings, topic, **topic != topics.dead_letter, report).is_some();
    }
    try_detector(settings, input.as_deref(), is_complete.then_some(written.as_slice()), report);
}

/// Checks that a topic exists and, if `is_read` is set, that it can be read. Returns its partitions, if it exists.
fn try_topic(settings: &Settings, topic: &str, is_read: bool, report: &mut CheckReport) -> Option<Vec<i32>> {
    let partitions = partitions(settings, topic);
    let numbers = partitions.as_ref().ok().map(|n| (0..i32::try_from(*n).unwrap_or(i32::MAX)).collect());
    let found = partitions.and_then(|n| match is_read {
        true => readable(settings, topic).map(|()| format!("{n} partitions, readable")),
        false => Ok(format!("{n} partitions")),
    });
    report.tried(&format!("topic {topic}"), found);
    numbers
}

/// Checks what only a detector requires. `input` has the partitions of the input topic, and `written` the topics that
/// the detector writes, if all of them exist.
fn try_detector(settings: &Settings, input: Option<&[i32]>, written: Option<&[&String]>, report: &mut CheckReport) {
    let keeps_state = settings.detector.keeps_state();
    match configurations(settings, keeps_state) {
        Ok(found) => found.into_iter().for_each(|finding| report.add(finding)),
        Err(e) => report.tried("topics", Err(e)),
    }
    let group = offsets(settings).map_err(|fault| fault.message).map(|()| "readable".into());
    report.tried(&format!("group {}", settings.detector.group), group);
    if let (true, Some(partitions), Some(_)) = (keeps_state, input, written) {
        let state = detector::check_state(settings, partitions);
        let state = state.map(|n| format!("windows of {n} of {} partitions, which a start takes", partitions.len()));
        report.tried(&format!("state in {}", settings.topics.state), state);
    }
    match (detector::names_for_check(settings), written) {
        (Err(e), _) => report.tried("detector.instance", Err(e.message)),
        (Ok((id, true)), Some(written)) => {
            let tried_writing = writable(settings, &id, written);
            report.tried(
                "transactions",
                tried_writing.map(|()| format!("as {id}, which may write (tried, and aborted)")),
            );
        }
        (Ok(_), _) => {}
    }
    if let Some(partitions) = input {
        records::show(settings, partitions, report);
    }
}

/// Returns the topics whose configuration differs from the required one.
fn configurations(settings: &Settings, keeps_state: bool) -> Result<Vec<Finding>, String> {
    stream::topics::check(&settings.kafka, &settings.topics, keeps_state).map_err(|e| e.message)
}

fn partitions(settings: &Settings, topic: &str) -> Result<usize, String> {
    let found = stream::topics::partitions(&settings.kafka, topic).map_err(|e| e.message)?;
    found.ok_or_else(|| "does not exist; `anomaly topics` creates it".into())
}

/// Fetches from the end of the first partition, because the broker refuses at once if that is not allowed. The consumer
/// never joins the group.
fn readable(settings: &Settings, topic: &str) -> Result<(), String> {
    let (group, session) = (&settings.detector.group, settings.detector.session_timeout);
    let consumer = KafkaGroupConsumer::new(&settings.kafka, topic, group, "check", session);
    let mut consumer = consumer.map_err(|fault| fault.message)?;
    fetch(&mut consumer).map_err(|fault| fault.message)
}

/// Waits until the first partition is read to its end, or has a new record.
fn fetch(consumer: &mut (impl GroupMembership + RecordFetch)) -> Result<(), Fault> {
    let (_, end) = insist(consumer, ANSWER_TIMEOUT, |consumer| consumer.bounds(0))?;
    consumer.assign(&Positions::from([(0, end)]))?;
    consumer.resume(&[0])?;
    let began = consumer.now();
    let mut failed_since = None;
    let mut is_read = false;
    while !is_read {
        consumer.poll(Duration::from_millis(100), 1, &mut |_, _| is_read = true)?;
        is_read |= !consumer.reached().is_empty();
        let (now, trouble) = (consumer.now(), consumer.trouble());
        failed_since = trouble.is_some().then(|| failed_since.unwrap_or(now));
        let has_failed = failed_since.is_some_and(|since| now.saturating_sub(since) > FAILURE_TIME);
        if !is_read && (has_failed || now.saturating_sub(began) > ANSWER_TIMEOUT) {
            return Err(Fault::new(Remedy::Retry, trouble.unwrap_or_else(|| "no answer to a fetch".into())));
        }
    }
    Ok(())
}

/// Requests the committed offset of the first partition.
fn offsets(settings: &Settings) -> Result<(), Fault> {
    let mut client = detector::client_for_check(settings)?;
    insist(&mut client, ANSWER_TIMEOUT, |client| client.committed(&[0])).map(drop)
}

/// Sends one record to each topic in a transaction, and aborts it.
fn writable(settings: &Settings, id: &str, topics: &[&String]) -> Result<(), String> {
    let producer =
        KafkaTransactionalProducer::new(&settings.kafka, &settings.topics, id, Delivery::ExactlyOnce, ANSWER_TIMEOUT);
    let mut producer = producer.map_err(|fault| fault.message)?;
    insist(&mut producer, ANSWER_TIMEOUT, TransactionalProducer::init_transactions)
        .map_err(|fault| format!("{fault}; does the cluster allow transactional id {id}?"))?;
    let sent = send_to_each(&mut producer, topics);
    let aborted = producer.abort();
    match sent {
        Err(fault) if fault.remedy == Remedy::Abort => {
            let topics = topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>().join(" or ");
            Err(format!("cannot write to {topics}: {fault}"))
        }
        sent => sent.and(aborted).map_err(|fault| fault.message),
    }
}

/// Sends one record to each topic, and waits until all are accepted.
fn send_to_each(producer: &mut impl TransactionalProducer, topics: &[&String]) -> Result<(), Fault> {
    producer.begin()?;
    for topic in topics {
        producer.send(OutgoingRecord {
            output: OutputTopic::Named { topic: (*topic).clone(), partition: None },
            key: Some(b"check".to_vec()),
            value: Some(b"check".to_vec()),
            timestamp: None,
            headers: Vec::new(),
        })?;
    }
    producer.flush()
}
