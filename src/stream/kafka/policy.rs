//! Returns the `cleanup.policy` of a topic. rdkafka's call needs an executor and a client of its own, so this file uses the
//! C interface with the client that is there.

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::types::{RDKafka, RDKafkaRespErr};

/// Answer of the cluster.
pub(crate) enum PolicyAnswer {
    /// The policy of the topic.
    Known(String),
    /// The cluster does not tell it, for example because the user may not describe the topic's configuration.
    Refused,
    /// The cluster did not answer in time.
    TimedOut,
}

/// Asks for the policy of a topic.
pub(crate) fn cleanup_policy(client: *mut RDKafka, topic: &str, timeout: Duration) -> PolicyAnswer {
    let Ok(topic) = CString::new(topic) else { return PolicyAnswer::Refused };
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call, which waits for the answer. Every object is destroyed once, after its last use.
    // Values from the result's accessors live as long as the event, and are copied before it is destroyed.
    unsafe {
        let kind = c::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let mut resources = [c::rd_kafka_ConfigResource_new(kind, topic.as_ptr())];
        let options = c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
        c::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        let queue = c::rd_kafka_queue_new(client);
        c::rd_kafka_DescribeConfigs(client, resources.as_mut_ptr(), resources.len(), options, queue);
        let event = c::rd_kafka_queue_poll(queue, millis);
        let answer = if event.is_null() { PolicyAnswer::TimedOut } else { policy_in(event) };
        if !event.is_null() {
            c::rd_kafka_event_destroy(event);
        }
        c::rd_kafka_queue_destroy(queue);
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_ConfigResource_destroy(resources[0]);
        answer
    }
}

/// Returns the policy from a result event.
///
/// # Safety
/// `event` is a live event.
unsafe fn policy_in(event: *mut c::rd_kafka_event_t) -> PolicyAnswer {
    // SAFETY: the caller guarantees a live event; null pointers are checked for, and the string is copied.
    unsafe {
        match c::rd_kafka_event_error(event) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT | RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT => {
                return PolicyAnswer::TimedOut;
            }
            _ => return PolicyAnswer::Refused,
        }
        let result = c::rd_kafka_event_DescribeConfigs_result(event);
        if result.is_null() {
            return PolicyAnswer::Refused;
        }
        let mut count = 0;
        let resources = c::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
        if resources.is_null() || count == 0 {
            return PolicyAnswer::Refused;
        }
        let error = c::rd_kafka_ConfigResource_error(*resources);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return PolicyAnswer::Refused;
        }
        let entries = c::rd_kafka_ConfigResource_configs(*resources, &raw mut count);
        for at in 0..if entries.is_null() { 0 } else { count } {
            let entry = *entries.add(at);
            let (name, value) = (c::rd_kafka_ConfigEntry_name(entry), c::rd_kafka_ConfigEntry_value(entry));
            if !name.is_null() && !value.is_null() && CStr::from_ptr(name) == c"cleanup.policy" {
                return PolicyAnswer::Known(CStr::from_ptr(value).to_string_lossy().into_owned());
            }
        }
        PolicyAnswer::Refused
    }
}
