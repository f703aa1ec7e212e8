//! Clients of commands that never join the groups of the detector: for `anomaly check`, `dlq` and `offsets`.

use std::time::Duration;

use super::instance::{instance, names};
use crate::config::Settings;
use crate::config::resolved::Delivery;
use crate::error::{Error, Result};
use crate::stream::client::Fault;
use crate::stream::kafka::{KafkaGroupConsumer, KafkaTransactionalClient, MemberNames};

/// Tests exactly-once delivery for `anomaly check`, with a transactional id of its own: whether transactions work.
///
/// # Errors
/// The errors of `instance`.
pub fn names_for_check(settings: &Settings) -> Result<(String, bool)> {
    let id = format!("{}-{}-check", settings.detector.group, instance(settings)?);
    Ok((id, settings.detector.delivery == Delivery::ExactlyOnce))
}

/// Creates a client that never joins the group, for `anomaly check`.
///
/// # Errors
/// `Stop` if librdkafka does not accept the settings.
pub(crate) fn client_for_check(settings: &Settings) -> Result<KafkaTransactionalClient, Fault> {
    let (names, session) = (names(settings, "check", 0), settings.detector.session_timeout);
    KafkaTransactionalClient::new(&settings.kafka, names, Delivery::AtLeastOnce, session)
}

/// Creates a client that never joins the group, for `anomaly offsets`. While the group has members, Kafka refuses its
/// commits.
///
/// # Errors
/// 78 if the instance has no name, or librdkafka does not accept the settings.
pub(crate) fn client_for_offsets(settings: &Settings) -> Result<KafkaTransactionalClient> {
    /// Timeout for the delivery of a record. A million windows are deleted within it.
    const DELIVERY: Duration = Duration::from_secs(60);
    let (transactional_id, _) = names_for_check(settings)?;
    let names = MemberNames { transactional_id, ..names(settings, "offsets", 0) };
    let (delivery, session) = (settings.detector.delivery, settings.detector.session_timeout);
    KafkaTransactionalClient::with_limit(&settings.kafka, names, delivery, session, DELIVERY).map_err(Error::config)
}

/// Returns a client for the offsets of the sink, for `anomaly offsets`. It never joins the group.
///
/// # Errors
/// 78 if librdkafka does not accept the settings.
pub(crate) fn client_for_sink_offsets(settings: &Settings) -> Result<KafkaGroupConsumer> {
    let (topic, group) = (&settings.topics.anomalies, &settings.sink.group);
    let session = settings.detector.session_timeout;
    KafkaGroupConsumer::new(&settings.kafka, topic, group, "offsets", session).map_err(Error::config)
}

/// Returns the partitions whose state belongs to this group and topic, for `anomaly check`.
///
/// # Errors
/// The error with which a start would stop, or why it cannot be known.
pub fn check_state(settings: &Settings, partitions: &[i32]) -> Result<usize, String> {
    let state = client_for_check(settings)
        .and_then(|mut client| crate::stream::worker::check_stored_state(&mut client, settings, partitions));
    state.map_err(|fault| fault.message)
}
