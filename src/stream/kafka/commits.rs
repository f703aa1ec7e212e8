//! Observes the group of the workers: members that are not detectors, offsets without progress, and the assignment.

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::context::ConsumerEvents;
use super::observer::{ANSWER_TIMEOUT, GroupAnswers, Observed, ObservedPlace, Observer};
use super::{client, origin};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{AssignmentReading, CommittedOffset, ForeignCommits, Positions};

/// The observer of the workers' group. It stops when dropped.
pub(super) struct GroupObserver(Observer<WorkerGroup>);

/// Result of the last observation.
#[derive(Debug, Default)]
struct WorkerGroup {
    foreign: ForeignCommits,
    assignment: AssignmentReading,
}

impl GroupObserver {
    /// Starts the thread of the observer. `place` has the name of a member of this process.
    pub(super) fn new(kafka: &KafkaSettings, place: ObservedPlace) -> Self {
        let mut config = client::reader(kafka);
        config.set("group.id", &place.group);
        let (ours, mut number) = (client::id(kafka).to_owned(), 0);
        GroupObserver(Observer::start("group-observer", config, move |consumer, seen: &Observed<WorkerGroup>| {
            number += 1;
            let answers = GroupAnswers::ask(consumer, &place);
            let commits = answers.partitions.clone().and_then(|all| commits(consumer, &place.topic, &all));
            let assignment = answers.assignment(number, &place);
            let mut seen = seen.lock();
            // Without an answer the last one is kept.
            match commits {
                Ok(commits) => seen.foreign.commits = commits,
                Err(error) => tracing::debug!("the group's offsets cannot be read: {error}"),
            }
            match &answers.group {
                Ok(group) => seen.foreign.members = group.foreign(&ours),
                Err(error) => tracing::debug!("the group's members cannot be read: {error}"),
            }
            seen.assignment = assignment.clone();
            assignment
        }))
    }

    /// Returns the activity of other programs, as last observed.
    pub(super) fn foreign(&self) -> ForeignCommits {
        self.0.lock().foreign.clone()
    }

    /// Returns the last observation of the assignment.
    pub(super) fn assignment(&self) -> AssignmentReading {
        self.0.lock().assignment.clone()
    }
}

/// Returns the partitions whose committed offset was committed by another program.
fn commits(consumer: &BaseConsumer<ConsumerEvents>, topic: &str, all: &[i32]) -> KafkaResult<Positions> {
    let mut list = TopicPartitionList::new();
    all.iter().for_each(|partition| {
        list.add_partition(topic, *partition);
    });
    let list = consumer.committed_offsets(list, ANSWER_TIMEOUT)?;
    let (_, standing) = origin::standing(&list);
    let foreign = |&partition: &i32| match standing(partition) {
        CommittedOffset::Foreign { offset, .. } | CommittedOffset::Earlier(offset) => Some((partition, offset)),
        CommittedOffset::At(_) | CommittedOffset::New | CommittedOffset::Added { .. } => None,
    };
    Ok(all.iter().filter_map(foreign).collect())
}
