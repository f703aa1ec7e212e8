//! Returns the id of a topic, which distinguishes a recreated topic from its predecessor. rdkafka does not wrap this
//! call of librdkafka (rd_kafka_DescribeTopics), so this file uses the C interface.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::types::{RDKafka, RDKafkaRespErr};

/// Id that a broker before Kafka 2.8 and librdkafka's mock return.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Timeout of one request for an id that a client can do without.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Error: the cluster did not answer within the timeout.
pub(crate) struct TimedOut;

/// Ids of topics when a client began to use them.
///
/// librdkafka keeps the leaders of a topic that is deleted and created again, because it ignores leaders with a lower epoch
/// than those it knows (`rd_kafka_toppar_leader_update`). If the new topic has other leaders, only a new client finds them.
#[derive(Debug, Default)]
pub(crate) struct KnownTopics(BTreeMap<String, String>);

impl KnownTopics {
    /// Reads the ids of these topics. A topic whose id the cluster does not return is not known.
    pub(crate) fn read<'t>(client: *mut RDKafka, topics: impl IntoIterator<Item = &'t str>) -> Self {
        let id = |topic: &str| Some((topic.to_owned(), topic_id(client, topic, READ_TIMEOUT).ok().flatten()?));
        KnownTopics(topics.into_iter().filter_map(id).collect())
    }

    /// Returns whether the topic has another id now. False while the cluster does not answer.
    pub(crate) fn is_recreated(&self, client: *mut RDKafka, topic: &str) -> bool {
        let Some(known) = self.0.get(topic) else { return false };
        matches!(topic_id(client, topic, READ_TIMEOUT), Ok(Some(now)) if now != *known)
    }
}

/// Returns the id in base64, as Kafka's tools show it; `None` if the cluster does not return it.
///
/// # Errors
/// Fails with [`TimedOut`].
pub(crate) fn topic_id(client: *mut RDKafka, topic: &str, timeout: Duration) -> Result<Option<String>, TimedOut> {
    let Ok(topic) = CString::new(topic) else { return Ok(None) };
    let mut names = [topic.as_ptr()];
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call, which waits for the answer. Every object is destroyed once, after its last use.
    // Values from the result's accessors live as long as the event, and are copied before it is destroyed.
    unsafe {
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        c::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = c::rd_kafka_queue_new(client);
        c::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = c::rd_kafka_queue_poll(queue, millis);
        let id = if event.is_null() { Err(TimedOut) } else { Ok(id_in(event)) };
        if !event.is_null() {
            c::rd_kafka_event_destroy(event);
        }
        c::rd_kafka_queue_destroy(queue);
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_TopicCollection_destroy(topics);
        id
    }
}

/// Returns the topic id from a result event.
///
/// # Safety
/// `event` is a live event.
unsafe fn id_in(event: *mut c::rd_kafka_event_t) -> Option<String> {
    // SAFETY: the caller guarantees a live event; null pointers are checked for, and the string is copied.
    unsafe {
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return None;
        }
        let error = c::rd_kafka_TopicDescription_error(*topics);
        if c::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let uuid = c::rd_kafka_TopicDescription_topic_id(*topics);
        let text = if uuid.is_null() { ptr::null() } else { c::rd_kafka_Uuid_base64str(uuid) };
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text).to_str().ok().filter(|id| *id != NONE).map(str::to_owned)
    }
}
