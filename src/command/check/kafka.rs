//! The checks of Kafka for `anomaly check --connect`: brokers, topics, the group, and the rights to read and to write.
//! They leave nothing that a reader of committed records would see.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::quiet::Quiet;
use super::{Tally, records};
use crate::config::Settings;
use crate::config::schema::ShippedFile;
use crate::finding::Finding;
use crate::role::detector;
use crate::stream;
use crate::stream::kafka::client;
use crate::stream::kafka::context::DeliveryReports;

const CALL: Duration = Duration::from_secs(10);

/// Checks everything that the role of `file` requires of Kafka; without `file`, everything that all roles require.
pub(super) fn try_all(settings: &Settings, file: Option<ShippedFile>, tally: &mut Tally) {
    if file == Some(ShippedFile::Dashboard) {
        return;
    }
    let (kafka, topics) = (&settings.kafka, &settings.topics);
    let mut config = client::reader(kafka);
    config.set("group.id", &settings.detector.group);
    let consumer = match config.create_with_context::<_, BaseConsumer<_>>(Quiet) {
        Ok(consumer) => consumer,
        Err(e) => return tally.tried("kafka.properties", Err(e.to_string())),
    };
    match consumer.fetch_metadata(None, CALL) {
        Err(e) => return tally.tried("Kafka", Err(format!("{}: {e}", kafka.bootstrap_servers))),
        Ok(metadata) => tally.tried("Kafka", Ok(format!("{} brokers", metadata.brokers().len()))),
    }
    let is_detector = file != Some(ShippedFile::Producer);
    let keeps_state = settings.detector.keeps_state();
    let mut written = vec![&topics.anomalies, &topics.dead_letter];
    let mut read = vec![&topics.raw_events, &topics.anomalies];
    if keeps_state {
        written.push(&topics.state);
        read.push(&topics.state);
    }
    let all = if is_detector { [vec![&topics.raw_events], written.clone()].concat() } else { vec![&topics.raw_events] };
    let (mut is_complete, mut input) = (true, None);
    for topic in all {
        let partitions = partitions(settings, topic);
        is_complete &= partitions.is_ok();
        if let (Ok(partitions), true) = (&partitions, *topic == topics.raw_events) {
            input = Some((0..i32::try_from(*partitions).unwrap_or(i32::MAX)).collect::<Vec<_>>());
        }
        let found = partitions.and_then(|n| match is_detector && read.contains(&topic) {
            true => readable(&consumer, topic).map(|()| format!("{n} partitions, readable")),
            false => Ok(format!("{n} partitions")),
        });
        tally.tried(&format!("topic {topic}"), found);
    }
    if !is_detector {
        return;
    }
    match configurations(settings, keeps_state) {
        Ok(found) => found.into_iter().for_each(|finding| tally.add(finding)),
        Err(e) => tally.tried("topics", Err(e)),
    }
    let group = offsets(&consumer, &topics.raw_events).map_err(|e| e.to_string()).map(|()| "readable".into());
    tally.tried(&format!("group {}", settings.detector.group), group);
    if keeps_state && is_complete {
        let partitions = input.as_deref().unwrap_or_default();
        let state = detector::check_state(settings, partitions);
        let state = state.map(|n| format!("windows of {n} of {} partitions, which a start takes", partitions.len()));
        tally.tried(&format!("state in {}", topics.state), state);
    }
    match detector::names_for_check(settings) {
        Err(e) => tally.tried("detector.instance", Err(e.message)),
        Ok((id, true)) if is_complete => {
            let tried_writing = writable(settings, &id, &written);
            tally.tried(
                "transactions",
                tried_writing.map(|()| format!("as {id}, which may write (tried, and aborted)")),
            );
        }
        Ok(_) => {}
    }
    if let Some(partitions) = input {
        records::show(settings, &partitions, tally);
    }
}

/// Returns the topics whose configuration differs from the required one.
fn configurations(settings: &Settings, keeps_state: bool) -> Result<Vec<Finding>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(stream::topics::look(&settings.kafka, &settings.topics, keeps_state)).map_err(|e| e.message)
}

fn partitions(settings: &Settings, topic: &str) -> Result<usize, String> {
    let found = stream::topics::partitions(&settings.kafka, topic).map_err(|e| e.message)?;
    found.ok_or_else(|| "does not exist; `anomaly topics` creates it".into())
}

/// Fetches from the end of the first partition, because the broker refuses at once if that is not allowed.
fn readable(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<(), String> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::End).map_err(|e| e.to_string())?;
    consumer.assign(&list).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + CALL;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(e)) if e.rdkafka_error_code() == Some(Code::TopicAuthorizationFailed) => {
                return Err(format!("no right to read it: {e}"));
            }
            Some(Err(_)) | None => {}
        }
    }
    Err("no answer to a fetch".into())
}

fn offsets(consumer: &BaseConsumer<Quiet>, topic: &str) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let list = consumer.committed_offsets(list, CALL)?;
    list.elements().iter().try_for_each(|element| element.error())
}

/// Sends one record to each topic in a transaction, and aborts it.
fn writable(settings: &Settings, id: &str, topics: &[&String]) -> Result<(), String> {
    let mut config = client::producer(&settings.kafka);
    config.set("transactional.id", id).set("message.timeout.ms", CALL.as_millis().to_string());
    let producer =
        config.create_with_context::<_, BaseProducer<_>>(DeliveryReports::default()).map_err(|e| e.to_string())?;
    producer.init_transactions(CALL).map_err(|e| format!("{e}; does the cluster allow transactional id {id}?"))?;
    producer.begin_transaction().map_err(|e| e.to_string())?;
    for topic in topics {
        let record = BaseRecord::<str, str>::to(topic).key("check").payload("check");
        producer.send(record).map_err(|(e, _)| e.to_string())?;
    }
    let sent = producer.flush(CALL);
    let failure = producer.context().take_failure();
    let aborted = producer.abort_transaction(CALL);
    match failure {
        Some(e) => {
            Err(format!("cannot write to {}: {e}", topics.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(" or ")))
        }
        None => sent.and(aborted).map_err(|e| e.to_string()),
    }
}
