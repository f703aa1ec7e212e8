//! Observes other programs in the consumer group: members that are not detectors, and offsets without progress. It uses
//! its own thread, because an answer may take seconds and the loop must not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::{GroupList, GroupMemberInfo};

use super::context::ConsumerEvents;
use super::{client, origin};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{CommittedOffset, ForeignCommits, Positions};

/// Time between two observations of the group.
const OBSERVATION_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of one request to the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Result of the last observation.
#[derive(Default)]
struct Observation {
    foreign: Mutex<ForeignCommits>,
    is_over: AtomicBool,
}

impl Observation {
    /// Replaces the last result with each answer. Without an answer it keeps the last one.
    fn note(&self, commits: KafkaResult<Positions>, members: KafkaResult<Vec<String>>) {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        match commits {
            Ok(commits) => foreign.commits = commits,
            Err(error) => tracing::debug!("the group's offsets cannot be read: {error}"),
        }
        match members {
            Ok(members) => foreign.members = members,
            Err(error) => tracing::debug!("the group's members cannot be read: {error}"),
        }
    }
}

/// The observer of the group. It stops when dropped.
pub(crate) struct GroupObserver(Arc<Observation>, Option<Thread>);

impl GroupObserver {
    /// Starts the thread of the observer.
    pub(crate) fn new(kafka: &KafkaSettings, topic: &str, group: &str) -> Self {
        let seen = Arc::new(Observation::default());
        let (kafka, topic, group, theirs) = (kafka.clone(), topic.to_owned(), group.to_owned(), seen.clone());
        let body = move || {
            let mut config = client::reader(&kafka);
            config.set("group.id", &group);
            let opened: KafkaResult<BaseConsumer<ConsumerEvents>> = config.create_with_context(ConsumerEvents::new(""));
            let Ok(consumer) = opened else { return };
            consumer.context().close();
            while !theirs.is_over.load(Ordering::Relaxed) {
                let (commits, members) = (commits(&consumer, &topic), members(&consumer, &group, client::id(&kafka)));
                theirs.note(commits, members);
                std::thread::park_timeout(OBSERVATION_INTERVAL);
            }
        };
        // Without a thread there are no observations; the threads of the worker also fail then.
        let thread = std::thread::Builder::new().name("group-observer".into()).spawn(body).ok();
        GroupObserver(seen, thread.map(|thread| thread.thread().clone()))
    }

    /// Returns the result of the last observation.
    pub(crate) fn foreign(&self) -> ForeignCommits {
        self.0.foreign.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for GroupObserver {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.1 {
            thread.unpark();
        }
    }
}

/// Returns the partitions whose committed offset was committed by another program.
fn commits(consumer: &BaseConsumer<ConsumerEvents>, topic: &str) -> KafkaResult<Positions> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
    let all = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|p| p.id()).collect::<Vec<_>>();
    let mut list = TopicPartitionList::new();
    all.iter().for_each(|partition| {
        list.add_partition(topic, *partition);
    });
    let list = consumer.committed_offsets(list, ANSWER_TIMEOUT)?;
    let (_, standing) = origin::standing(&list);
    let foreign = |&partition: &i32| match standing(partition) {
        CommittedOffset::Foreign(offset) => Some((partition, offset)),
        CommittedOffset::At(_) | CommittedOffset::New | CommittedOffset::Added => None,
    };
    Ok(all.iter().filter_map(foreign).collect())
}

/// Returns the members that are not detectors. A detector is a static member, whose id begins with its instance name.
/// The id of other members begins with their client id.
fn members(consumer: &BaseConsumer<ConsumerEvents>, group: &str, ours: &str) -> KafkaResult<Vec<String>> {
    Ok(foreign(&consumer.fetch_group_list(Some(group), ANSWER_TIMEOUT)?, ours))
}

/// Returns the members of these groups that are not of this program, each as client id and host.
pub(super) fn foreign(groups: &GroupList, ours: &str) -> Vec<String> {
    let is_dynamic = |member: &&GroupMemberInfo| {
        member.id().strip_prefix(member.client_id()).is_some_and(|rest| rest.starts_with('-'))
    };
    let members = groups.groups().iter().flat_map(|group| group.members());
    let members = members.filter(|member| member.client_id() != ours).filter(is_dynamic);
    members.map(|member| format!("{} at {}", member.client_id(), member.client_host())).collect()
}
