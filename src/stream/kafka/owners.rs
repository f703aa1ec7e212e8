//! Observes which member of the sink's group has which partition, and the bounds of partitions that the sink asks for.

use rdkafka::consumer::Consumer;

use super::client;
use super::observer::{ANSWER_TIMEOUT, GroupAnswers, Observed, ObservedPlace, Observer};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{AssignmentReading, GroupOwners, OwnerObserver};

/// The observer of the sink's group. It stops when dropped.
pub(crate) struct KafkaOwnerObserver(Observer<SinkGroup>);

/// Result of the last observation, and the partitions whose bounds the next one reads.
#[derive(Debug, Default)]
struct SinkGroup {
    owners: GroupOwners,
    assignment: AssignmentReading,
    wanted: Vec<i32>,
}

impl KafkaOwnerObserver {
    /// Starts the thread of the observer. `member` is the instance name of the sink in its group.
    pub(crate) fn new(kafka: &KafkaSettings, topic: &str, group: &str, member: &str) -> Self {
        let place = ObservedPlace { topic: topic.to_owned(), group: group.to_owned(), member: member.to_owned() };
        let (ours, mut number) = (client::id(kafka).to_owned(), 0);
        KafkaOwnerObserver(Observer::start(
            "sink-observer",
            client::reader(kafka),
            move |consumer, seen: &Observed<SinkGroup>| {
                number += 1;
                let answers = GroupAnswers::ask(consumer, &place);
                let assignment = answers.assignment(number, &place);
                let wanted = {
                    let mut seen = seen.lock();
                    match &answers.group {
                        Ok(group) => {
                            seen.owners.foreign = group.foreign(&ours);
                            // While the group assigns partitions, the last assignment is kept.
                            let owners = group.owners();
                            if !owners.is_empty() {
                                seen.owners.owners = owners;
                            }
                        }
                        Err(error) => tracing::debug!("the members of group {} cannot be read: {error}", place.group),
                    }
                    seen.assignment = assignment.clone();
                    seen.wanted.clone()
                };
                let bounds = wanted.into_iter().map_while(|partition| {
                    let bounds = consumer.fetch_watermarks(&place.topic, partition, ANSWER_TIMEOUT).ok();
                    Some((partition, bounds.filter(|_| !seen.is_over())?))
                });
                let bounds = bounds.collect();
                seen.lock().owners.bounds = bounds;
                assignment
            },
        ))
    }
}

impl OwnerObserver for KafkaOwnerObserver {
    fn owners(&self) -> GroupOwners {
        self.0.lock().owners.clone()
    }

    fn assignment(&self) -> AssignmentReading {
        self.0.lock().assignment.clone()
    }

    fn request_bounds(&self, partitions: Vec<i32>) {
        self.0.lock().wanted = partitions;
    }
}
