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
use super::epochs::LeaderEpochs;
use super::failed::{Arrival, FailedPartitions, Failure, is_failure};
use super::unpack::{PLACEHOLDER, read_placeholder};
use crate::stream::client::{Consumed, ConsumedRecord, Headers, OversizedBatch, Positions, RecordVisitor};

const LABEL: &CStr = c"anomaly-label";

/// What a reader does with a batch that exceeds the limits of compressed batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnOversized {
    /// It passes the batch to the visitor, and continues after it. The detector does this with its input.
    Deliver,
    /// The partition cannot be read there, as with a damaged batch.
    Fail,
}

/// A queue of records from the assigned partitions of a consumer. It must be dropped before the consumer.
pub(crate) struct FetchQueue {
    queue: *mut sys::rd_kafka_queue_t,
    /// The queues of the assigned partitions.
    sources: Vec<Source>,
    /// Messages of the last call, until [`FetchedBatch`] frees them.
    messages: Vec<*mut sys::rd_kafka_message_t>,
    topic: CString,
    pub(super) on_oversized: OnOversized,
    /// The next offsets, and the partitions that cannot be read there.
    pub(super) failed: FailedPartitions,
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
        FetchQueue {
            queue,
            sources: Vec::new(),
            messages: Vec::new(),
            topic: CString::default(),
            on_oversized: OnOversized::Fail,
            failed: FailedPartitions::default(),
        }
    }

    /// Forwards the records of these partitions to this queue, instead of those of earlier partitions. `from` has the
    /// offsets at which they will be assigned. Call it before assigning the partitions. Otherwise new records would
    /// overtake those already in the consumer's own queue.
    pub(crate) fn lead(
        &mut self,
        consumer: &BaseConsumer<ConsumerEvents>,
        topic: &str,
        on_oversized: OnOversized,
        from: Positions,
    ) {
        // A topic's name never contains U+0000.
        let Ok(topic) = CString::new(topic) else { return };
        let client = consumer.client().native_ptr();
        let source = |partition| {
            // SAFETY: the client is alive; `Source` releases the reference.
            let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
            (!queue.is_null()).then_some(Source { partition, queue, is_proven: false })
        };
        self.sources = from.keys().copied().filter_map(source).collect();
        self.sources.iter().for_each(|source| source.lead(self.queue));
        (self.topic, self.on_oversized, self.failed) = (topic, on_oversized, FailedPartitions::new(from));
    }

    /// Notes the partitions whose messages have arrived through this queue.
    fn prove(&mut self) {
        let mut last = None;
        for message in &self.messages {
            // SAFETY: the messages are alive until they are destroyed.
            let partition = unsafe { (**message).partition };
            // Messages arrive in runs of one partition.
            if last.replace(partition) != Some(partition) {
                let sources = self.sources.iter_mut().filter(|source| source.partition == partition);
                sources.for_each(|source| source.is_proven = true);
            }
        }
    }

    /// Returns whether a topic is that of this queue.
    fn is_ours(&self, topic: *mut sys::rd_kafka_topic_t) -> bool {
        // SAFETY: the caller has a message of the topic, which keeps its name alive.
        !topic.is_null() && unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(topic)) } == self.topic.as_c_str()
    }

    /// Returns the oversized batch that a record replaces, if the partition cannot be read there.
    fn refused(&self, message: &sys::rd_kafka_message_t) -> Option<OversizedBatch> {
        (self.on_oversized == OnOversized::Fail).then(|| oversized(message)).flatten()
    }

    /// Returns whether the messages of the last call are records of one topic, and no partition has failed.
    fn has_only_records(&self) -> bool {
        // SAFETY: the messages are alive until they are destroyed.
        let mut messages = self.messages.iter().map(|message| unsafe { &**message });
        let Some(first) = messages.next().filter(|first| is_record(first)) else { return false };
        self.failed.is_empty()
            && self.is_ours(first.rkt)
            && self.refused(first).is_none()
            && messages.all(|message| message.rkt == first.rkt && is_record(message) && self.refused(message).is_none())
    }

    /// Notes the messages of the last call, and removes those that follow a failure of their partition.
    fn sift(&mut self) {
        if self.has_only_records() {
            // The usual case. Of each run of one partition only the last record counts.
            // SAFETY: the messages are alive until they are destroyed.
            for run in self.messages.chunk_by(|one, next| unsafe { (**one).partition == (**next).partition }) {
                if let Some(last) = run.last().map(|last| unsafe { &**last }) {
                    self.failed.advance(last.partition, last.offset + 1);
                }
            }
            return;
        }
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain(|message| {
            // SAFETY: the messages are alive until they are destroyed here or by the batch.
            let read = unsafe { &**message };
            let arrival = match () {
                // Messages of an earlier topic, and errors that do not concern a partition.
                () if read.partition < 0 || !self.is_ours(read.rkt) => return true,
                () if is_record(read) => match self.refused(read) {
                    Some(batch) => Arrival::Failure(Failure::oversized(&batch)),
                    None => Arrival::Record,
                },
                () if is_end(read) => Arrival::End,
                () if is_failure(read.err) && read.offset >= 0 => {
                    Arrival::Failure(Failure::new(read.offset, read.err, cause(read)))
                }
                () => Arrival::Other,
            };
            let is_kept = self.failed.note(read.partition, read.offset, arrival);
            if !is_kept {
                // SAFETY: the message leaves the list, so nothing else destroys it.
                unsafe { sys::rd_kafka_message_destroy(*message) };
            }
            is_kept
        });
        self.messages = messages;
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
        self.prove();
        self.sift();
        FetchedBatch(&mut self.messages)
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

    /// Notes the leader epoch of the last record of each partition.
    pub(crate) fn note_epochs(&self, epochs: &mut LeaderEpochs) {
        for run in self.0.chunk_by(|one, next| unsafe { (**one).partition == (**next).partition }) {
            // SAFETY: the messages are alive until the batch is dropped.
            let messages = run.iter().map(|message| unsafe { &**message });
            if let Some(last) = messages.rev().find(|message| is_record(message)) {
                // SAFETY: the message is alive, and was consumed.
                let epoch = unsafe { sys::rd_kafka_message_leader_epoch(last) };
                epochs.note(last.partition, last.offset + 1, epoch);
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

    /// Passes the wanted records to `visit`, in runs of one partition, and oversized batches.
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
                visit(partition, Consumed::Records(&run));
                run.clear();
            }
            if let Some(batch) = oversized(message) {
                if !run.is_empty() {
                    visit(message.partition, Consumed::Records(&run));
                    run.clear();
                }
                visit(message.partition, Consumed::Oversized(&batch));
                continue;
            }
            run.push(record(message));
        }
        if let Some(partition) = of {
            visit(partition, Consumed::Records(&run));
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

/// Returns the oversized batch that a record replaces.
fn oversized(message: &sys::rd_kafka_message_t) -> Option<OversizedBatch> {
    if message.len != PLACEHOLDER || !message.key.is_null() || message.payload.is_null() {
        return None;
    }
    // SAFETY: librdkafka gives the length of the payload, which lives as long as the message.
    let value = unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) };
    read_placeholder(message.offset, value)
}

/// Returns librdkafka's description of an error.
fn cause(message: &sys::rd_kafka_message_t) -> String {
    // SAFETY: the text lives as long as the message.
    let text = unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(message)) };
    text.to_string_lossy().into_owned()
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
