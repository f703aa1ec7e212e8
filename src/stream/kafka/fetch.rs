//! Fetches records from a consumer in batches. The partitions' queues are forwarded to one queue, which
//! `rd_kafka_consume_batch_queue` empties. One call per record, as `BaseConsumer::poll` needs, doubles the total cost.
//!
//! The consumer's own queue still receives assignment changes and errors, so it must be polled as well.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use super::context::ConsumerEvents;
use crate::stream::client::{ConsumedRecord, Headers, Positions, RecordVisitor};

const LABEL: &CStr = c"anomaly-label";

/// A queue of records from the assigned partitions of a consumer. It must be dropped before the consumer.
pub(crate) struct FetchQueue {
    queue: *mut sys::rd_kafka_queue_t,
    /// The queues of the assigned partitions.
    sources: Vec<Source>,
    /// Messages of the last call, until [`FetchedBatch`] frees them.
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

/// The queue of one partition.
struct Source {
    partition: i32,
    queue: *mut sys::rd_kafka_queue_t,
    /// Whether a message of the current assignment has arrived through this queue.
    is_proven: bool,
}

impl Source {
    /// Forwards present and future messages to another queue, in order. Repeating the call is harmless.
    fn lead(&self, to: *mut sys::rd_kafka_queue_t) {
        // SAFETY: both queues are alive.
        unsafe { sys::rd_kafka_queue_forward(self.queue, to) };
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: this is the only reference that this object owns, and it is not used afterwards.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

// SAFETY: librdkafka's queues may be used by any thread; messages never outlive a borrow of this.
unsafe impl Send for FetchQueue {}

impl FetchQueue {
    /// Creates a queue without partitions.
    pub(crate) fn new(consumer: &BaseConsumer<ConsumerEvents>) -> Self {
        // SAFETY: the client is alive; the caller guarantees that it outlives the queue.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        FetchQueue { queue, sources: Vec::new(), messages: Vec::new() }
    }

    /// Forwards the records of these partitions to this queue, instead of those of earlier partitions. Call it before
    /// assigning the partitions. Otherwise new records would overtake those already in the consumer's own queue.
    pub(crate) fn lead(
        &mut self,
        consumer: &BaseConsumer<ConsumerEvents>,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) {
        // A topic's name never contains U+0000.
        let Ok(topic) = CString::new(topic) else { return };
        let client = consumer.client().native_ptr();
        let source = |partition| {
            // SAFETY: the client is alive; `Source` releases the reference.
            let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
            (!queue.is_null()).then_some(Source { partition, queue, is_proven: false })
        };
        self.sources = partitions.into_iter().filter_map(source).collect();
        self.sources.iter().for_each(|source| source.lead(self.queue));
    }

    /// Waits at most `wait` for the first message, then takes at most `most` messages that are present.
    pub(crate) fn take(&mut self, wait: Duration, most: usize) -> FetchedBatch<'_> {
        // When an earlier assignment of the partition ends, librdkafka removes the forwarding without notice.
        self.sources.iter().filter(|source| !source.is_proven).for_each(|source| source.lead(self.queue));
        self.messages.resize(most.max(1), ptr::null_mut());
        // librdkafka counts whole milliseconds, so the time is rounded up: 0 would not wait at all.
        let wait = i32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX);
        let into = self.messages.as_mut_ptr();
        // SAFETY: `into` has room for `most` messages, and each call returns how many it filled. A call waits until all
        // requested messages are present or the time is over, hence the separate call for the first.
        let taken = unsafe {
            match sys::rd_kafka_consume_batch_queue(self.queue, wait, into, 1) {
                1.. => 1 + sys::rd_kafka_consume_batch_queue(self.queue, 0, into.add(1), most.max(1) - 1).max(0),
                _ => 0,
            }
        };
        self.messages.truncate(taken as usize);
        let batch = FetchedBatch(&mut self.messages);
        for partition in batch.partitions() {
            self.sources
                .iter_mut()
                .filter(|source| source.partition == partition)
                .for_each(|source| source.is_proven = true);
        }
        batch
    }
}

impl Drop for FetchQueue {
    fn drop(&mut self) {
        // SAFETY: `new` created the queue, and it is not used afterwards.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Records and errors of one call, in the order of their arrival.
pub(crate) struct FetchedBatch<'f>(&'f mut Vec<*mut sys::rd_kafka_message_t>);

impl FetchedBatch<'_> {
    fn messages(&self) -> impl Iterator<Item = &sys::rd_kafka_message_t> {
        // SAFETY: the messages are alive until the batch is dropped.
        self.0.iter().map(|message| unsafe { &**message })
    }

    /// Returns the partition of each run of consecutive messages.
    fn partitions(&self) -> impl Iterator<Item = i32> {
        let mut last = None;
        let partitions = self.messages().map(|message| message.partition);
        partitions.filter(move |partition| last.replace(*partition) != Some(*partition))
    }

    /// Returns the number of records and errors.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the first error. The end of a partition is not an error.
    pub(crate) fn error(&self) -> Option<KafkaError> {
        let failed = self.messages().find(|message| !is_record(message) && !is_end(message))?;
        Some(KafkaError::MessageConsumption(failed.err.into()))
    }

    /// Adds partitions whose end was reached, with the end offset, and removes those with further records.
    pub(crate) fn note_ends(&self, ended: &mut Positions) {
        for message in self.messages() {
            if is_end(message) {
                ended.insert(message.partition, message.offset);
            } else if is_record(message) {
                ended.remove(&message.partition);
            }
        }
    }

    /// Returns topic, partition and offset of each partition end that was reached.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.messages().filter(|message| is_end(message)).map(|message| {
            // SAFETY: the end of a partition carries its topic, whose name is UTF-8.
            let topic = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) };
            (topic.to_str().unwrap_or_default(), message.partition, message.offset)
        })
    }

    /// Passes the wanted records to `visit`, in runs of one partition.
    pub(crate) fn hand_over(&self, is_wanted: impl Fn(&str, i32, i64) -> bool, visit: &mut RecordVisitor<'_>) {
        let mut run = Vec::with_capacity(self.len());
        let (mut of, mut topic) = (None, (ptr::null_mut(), ""));
        for message in self.messages().filter(|message| is_record(message)) {
            if message.rkt != topic.0 {
                // SAFETY: a message without an error carries its topic, whose name is UTF-8.
                let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) };
                topic = (message.rkt, name.to_str().unwrap_or_default());
            }
            if !is_wanted(topic.1, message.partition, message.offset) {
                continue;
            }
            if let Some(partition) = of.replace(message.partition).filter(|partition| *partition != message.partition) {
                visit(partition, &run);
                run.clear();
            }
            run.push(record(message));
        }
        if let Some(partition) = of {
            visit(partition, &run);
        }
    }
}

impl Drop for FetchedBatch<'_> {
    fn drop(&mut self) {
        for message in self.0.drain(..) {
            // SAFETY: librdkafka passed each message to this object, which frees it once.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

fn is_record(message: &sys::rd_kafka_message_t) -> bool {
    message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

fn is_end(message: &sys::rd_kafka_message_t) -> bool {
    message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF
}

fn record(message: &sys::rd_kafka_message_t) -> ConsumedRecord<'_> {
    // SAFETY: librdkafka gives the lengths of key and payload, which live as long as the message.
    let bytes = |from: *const std::ffi::c_void, length| {
        (!from.is_null()).then(|| unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) })
    };
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive.
    let time = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
    ConsumedRecord {
        offset: message.offset,
        timestamp: (time >= 0).then_some(time),
        key: bytes(message.key, message.key_len),
        value: bytes(message.payload, message.len),
        headers: message,
    }
}

impl Headers for sys::rd_kafka_message_t {
    fn label(&self) -> Option<&str> {
        let (mut headers, mut value, mut length) = (ptr::null_mut(), ptr::null(), 0);
        // SAFETY: the message owns its headers, and the headers own their values.
        unsafe {
            let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            if sys::rd_kafka_message_headers(self, &raw mut headers) != none
                || sys::rd_kafka_header_get(headers, 0, LABEL.as_ptr(), &raw mut value, &raw mut length) != none
                || value.is_null()
            {
                return None;
            }
            std::str::from_utf8(std::slice::from_raw_parts(value.cast::<u8>(), length)).ok()
        }
    }

    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
        let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let (mut headers, mut all) = (ptr::null_mut(), Vec::new());
        // SAFETY: the message owns its headers, and the headers own their names and values.
        unsafe {
            if sys::rd_kafka_message_headers(self, &raw mut headers) != none {
                return all;
            }
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            while sys::rd_kafka_header_get_all(headers, all.len(), &raw mut name, &raw mut value, &raw mut length)
                == none
            {
                let bytes = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), length));
                all.push((CStr::from_ptr(name).to_string_lossy(), bytes));
            }
        }
        all
    }
}
