//! Who else uses our consumer group: members that are not detectors, and offsets that carry no progress of ours. A thread of its
//! own asks the cluster, since the answer may take seconds and the loop must not wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupMemberInfo;

use super::context::ConsumerEvents;
use super::{client, origin};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{CommittedOffset, ForeignCommits, Positions};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What was seen last.
#[derive(Default)]
struct Seen {
    foreign: Mutex<ForeignCommits>,
    is_over: AtomicBool,
}

impl Seen {
    /// Each answer replaces what was known; where there is none, what was seen before is all that is known.
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

/// Looks until it is dropped.
pub struct GroupObserver(Arc<Seen>, Option<Thread>);

impl GroupObserver {
    /// Begins to look.
    pub fn new(kafka: &KafkaSettings, topic: &str, group: &str) -> Self {
        let seen = Arc::new(Seen::default());
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
                std::thread::park_timeout(PAUSE);
            }
        };
        // Without a thread nothing is seen; the worker's own threads fail then, too.
        let thread = std::thread::Builder::new().name("onlooker".into()).spawn(body).ok();
        GroupObserver(seen, thread.map(|thread| thread.thread().clone()))
    }

    /// What was seen last.
    pub fn foreign(&self) -> ForeignCommits {
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

/// Partitions whose committed offset is not ours.
fn commits(consumer: &BaseConsumer<ConsumerEvents>, topic: &str) -> KafkaResult<Positions> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
    let all = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|p| p.id()).collect::<Vec<_>>();
    let mut list = TopicPartitionList::new();
    all.iter().for_each(|partition| {
        list.add_partition(topic, *partition);
    });
    let list = consumer.committed_offsets(list, ANSWER)?;
    let (_, standing) = origin::standing(&list);
    let foreign = |&partition: &i32| match standing(partition) {
        CommittedOffset::Foreign(offset) => Some((partition, offset)),
        CommittedOffset::At(_) | CommittedOffset::New | CommittedOffset::Added => None,
    };
    Ok(all.iter().filter_map(foreign).collect())
}

/// Members that are not detectors. A detector is a static member: its id begins with its instance, and that of other members with
/// their client id.
fn members(consumer: &BaseConsumer<ConsumerEvents>, group: &str, ours: &str) -> KafkaResult<Vec<String>> {
    let groups = consumer.fetch_group_list(Some(group), ANSWER)?;
    let is_dynamic = |member: &&GroupMemberInfo| {
        member.id().strip_prefix(member.client_id()).is_some_and(|rest| rest.starts_with('-'))
    };
    let members = groups.groups().iter().flat_map(|group| group.members());
    let members = members.filter(|member| member.client_id() != ours).filter(is_dynamic);
    Ok(members.map(|member| format!("{} at {}", member.client_id(), member.client_host())).collect())
}
