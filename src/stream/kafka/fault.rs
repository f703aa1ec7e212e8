//! Decides which remedy an error of librdkafka needs.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::stream::client::{Fault, Remedy};

/// Returns the fault for an error: its remedy follows from librdkafka's classification, then from the code.
pub(crate) fn of(what: &str, error: &KafkaError) -> Fault {
    if is_replaced(error) {
        return Fault::new(
            Remedy::Yield,
            format_args!("{what}: the group has another member with this group.instance.id"),
        );
    }
    let remedy = match error {
        KafkaError::Transaction(error) if error.is_fatal() => Remedy::Rebuild,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Remedy::Abort,
        KafkaError::Transaction(error) if error.is_retriable() => Remedy::Retry,
        KafkaError::Transaction(_) | KafkaError::MessageConsumptionFatal(_) => Remedy::Rebuild,
        KafkaError::Flush(_) => Remedy::Retry,
        other => match other.rdkafka_error_code() {
            Some(Code::Fatal | Code::Fenced | Code::State | Code::ProducerFenced) => Remedy::Rebuild,
            Some(
                Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::MessageSizeTooLarge
                | Code::InvalidMessageSize,
            ) => Remedy::Abort,
            _ => Remedy::Retry,
        },
    };
    let (is_too_large, is_refused) = (is_too_large(error), is_refused(error));
    Fault { remedy, message: format!("{what}: {}", describe(error)), is_too_large, is_refused }
}

/// Returns the fault for a record that its topic did not accept. The message for a missing topic is the same wherever the
/// error occurred.
pub(crate) fn of_record(what: &str, topic: &str, error: &KafkaError) -> Fault {
    let fault = of(what, error);
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Fault { message: missing(topic), ..fault },
        _ => fault,
    }
}

/// Describes a topic that the cluster does not know.
pub(crate) fn missing(topic: &str) -> String {
    format!("topic {topic} does not exist; `anomaly topics` creates it")
}

/// Returns whether a member with the same `group.instance.id` joined later. A fenced producer is weaker evidence: its
/// own slow transaction may be the cause.
fn is_replaced(error: &KafkaError) -> bool {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    code == Some(Code::FencedInstanceId)
}

/// Returns whether a record was larger than its topic accepts.
pub(crate) fn is_too_large(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize))
}

/// Returns whether a topic refuses a record for what it is: too large, without the key that compaction needs, or of a time
/// that the topic does not accept.
fn is_refused(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    is_too_large(error) || matches!(code, Some(Code::InvalidRecord | Code::InvalidTimestamp))
}

/// Returns librdkafka's own message, which is more specific than the code.
fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        other => match other.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                "the topic does not exist; `anomaly topics` creates it".to_owned()
            }
            _ => other.to_string(),
        },
    }
}
