//! The limit of the client: librdkafka hands over all records of a topic, and nothing reads them.
//! `count BOOTSTRAP INPUT OUTPUT EVENTS`; OUTPUT only names the group.

use std::ffi::CString;
use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [bootstrap, topic, group, events] = arguments.as_slice() else {
        return Err("usage: count BOOTSTRAP INPUT OUTPUT EVENTS".into());
    };
    let events = events.parse::<usize>()?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("queued.max.messages.kbytes", "2048")
        .set("fetch.queue.backoff.ms", "1")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), std::time::Duration::from_secs(10))?;
    let mut list = TopicPartitionList::new();
    // SAFETY: the queues belong to the consumer, which is alive to the end of `main`.
    let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
    let name = CString::new(topic.as_str())?;
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        // SAFETY: as above.
        unsafe {
            let source =
                sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition.id());
            sys::rd_kafka_queue_forward(source, queue);
            sys::rd_kafka_queue_destroy(source);
        }
    }
    consumer.assign(&list)?;
    let mut messages = vec![ptr::null_mut(); 1_000];
    let mut seen = 0;
    while seen < events {
        // SAFETY: `messages` has room for as many as are asked for; each is given back once.
        seen += unsafe {
            let taken = sys::rd_kafka_consume_batch_queue(queue, 100, messages.as_mut_ptr(), messages.len());
            messages.iter().take(taken.max(0) as usize).for_each(|message| sys::rd_kafka_message_destroy(*message));
            taken.max(0) as usize
        };
    }
    // SAFETY: not used any more.
    unsafe { sys::rd_kafka_queue_destroy(queue) };
    Ok(())
}
