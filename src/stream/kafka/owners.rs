//! Observes which member of the sink's group has which partition, and the bounds of partitions that the sink asks for. It
//! uses its own thread, because an answer may take seconds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupMemberInfo;

use super::context::ConsumerEvents;
use super::{client, observer};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{GroupOwners, OwnerObserver};

/// Time between two observations of the group.
const OBSERVATION_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of one request to the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Result of the last observation, and the partitions whose bounds the next one reads.
#[derive(Default)]
struct Observed {
    owners: Mutex<GroupOwners>,
    wanted: Mutex<Vec<i32>>,
    is_over: AtomicBool,
}

/// The observer of the sink's group. It stops when dropped.
pub(crate) struct KafkaOwnerObserver(Arc<Observed>, Option<Thread>);

impl KafkaOwnerObserver {
    /// Starts the thread of the observer.
    pub(crate) fn new(kafka: &KafkaSettings, topic: &str, group: &str) -> Self {
        let seen = Arc::new(Observed::default());
        let (kafka, topic, group, theirs) = (kafka.clone(), topic.to_owned(), group.to_owned(), seen.clone());
        let body = move || {
            let opened: KafkaResult<BaseConsumer<ConsumerEvents>> =
                client::reader(&kafka).create_with_context(ConsumerEvents::new(""));
            let Ok(consumer) = opened else { return };
            consumer.context().close();
            while !theirs.is_over.load(Ordering::Relaxed) {
                match look(&consumer, &topic, &group, client::id(&kafka)) {
                    Ok((members, owners)) => {
                        let mut seen = theirs.owners.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.foreign = members;
                        // While the group assigns partitions, the last assignment is kept.
                        if !owners.is_empty() {
                            seen.owners = owners;
                        }
                    }
                    Err(error) => tracing::debug!("the members of group {group} cannot be read: {error}"),
                }
                let wanted = theirs.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let bounds = wanted.into_iter().map_while(|partition| {
                    let is_over = theirs.is_over.load(Ordering::Relaxed);
                    let bounds =
                        consumer.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT).ok().filter(|_| !is_over)?;
                    Some((partition, bounds))
                });
                let bounds = bounds.collect();
                theirs.owners.lock().unwrap_or_else(PoisonError::into_inner).bounds = bounds;
                std::thread::park_timeout(OBSERVATION_INTERVAL);
            }
        };
        // Without a thread there are no observations; the threads of the role also fail then.
        let thread = std::thread::Builder::new().name("sink-observer".into()).spawn(body).ok();
        KafkaOwnerObserver(seen, thread.map(|thread| thread.thread().clone()))
    }
}

impl OwnerObserver for KafkaOwnerObserver {
    fn owners(&self) -> GroupOwners {
        self.0.owners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn request_bounds(&self, partitions: Vec<i32>) {
        *self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner) = partitions;
    }
}

impl Drop for KafkaOwnerObserver {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.1 {
            thread.unpark();
        }
    }
}

/// Returns the members that are not of this program, and the member that has each partition of the topic.
fn look(
    consumer: &BaseConsumer<ConsumerEvents>,
    topic: &str,
    group: &str,
    ours: &str,
) -> KafkaResult<(Vec<String>, BTreeMap<i32, String>)> {
    let groups = consumer.fetch_group_list(Some(group), ANSWER_TIMEOUT)?;
    let members = groups.groups().iter().flat_map(|group| group.members());
    let owners = members.flat_map(|member| {
        let partitions = member.assignment().and_then(|bytes| partitions(bytes, topic)).unwrap_or_default();
        partitions.into_iter().map(|partition| (partition, name(member)))
    });
    Ok((observer::foreign(&groups, ours), owners.collect()))
}

/// Returns the member's id and host. The broker appends a UUID to the instance name of a static member.
fn name(member: &GroupMemberInfo) -> String {
    /// Length of a UUID with the hyphen before it.
    const UUID: usize = 37;
    let id = member.id();
    let id = id.len().checked_sub(UUID).and_then(|at| id.get(..at)).filter(|id| !id.is_empty()).unwrap_or(id);
    format!("{} at {}", crate::foreign::name(id), member.client_host())
}

/// Returns the partitions of a topic in an assignment of Kafka's consumer protocol: a version, then each topic with its
/// partitions. `None` if the bytes are something else.
fn partitions(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let (_version, bytes) = bytes.split_first_chunk::<2>()?;
    let (count, mut bytes) = bytes.split_first_chunk::<4>()?;
    let mut found = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(i32::from_be_bytes(*count)).ok()?.checked_mul(4)?;
        let (numbers, rest) = rest.split_at_checked(size)?;
        if name == topic.as_bytes() {
            found.extend(numbers.chunks_exact(4).filter_map(|four| Some(i32::from_be_bytes(four.try_into().ok()?))));
        }
        bytes = rest;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_the_partitions_of_each_topic_and_other_bytes_name_none() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (topic, partitions) in [("other", vec![7]), ("t", vec![0_i32, 3])] {
            bytes.extend((topic.len() as u16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as u32).to_be_bytes());
            partitions.iter().for_each(|partition: &i32| bytes.extend(partition.to_be_bytes()));
        }
        let whole = [bytes.clone(), vec![255; 4]].concat();
        assert_eq!(partitions(&whole, "t"), Some(vec![0, 3]));
        assert_eq!(partitions(&whole, "other"), Some(vec![7]));
        assert_eq!(partitions(&whole, "none"), Some(Vec::new()));
        assert!((0..bytes.len()).all(|length| partitions(&bytes[..length], "t").is_none()), "of a truncated one");
        assert_eq!(partitions(&[255; 64], "t"), Some(Vec::new()), "a negative count");
    }
}
