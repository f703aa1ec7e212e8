//! Observes a consumer group at intervals. It uses its own thread, because an answer may take seconds and the loops must
//! not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};

use super::assignment::ObservedGroup;
use super::cluster_state::lock;
use super::context::ConsumerEvents;
use super::topic;
use crate::stream::client::AssignmentReading;

/// Time between two observations of the group.
const OBSERVATION_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two observations while partitions are assigned to no member.
const UNASSIGNED_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout of one request to the cluster.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What an observer has found, and whether it shall end.
#[derive(Debug, Default)]
pub(super) struct Observed<T> {
    found: Mutex<T>,
    is_over: AtomicBool,
}

impl<T> Observed<T> {
    /// Locks what was found.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.found)
    }

    /// Returns whether the observer shall end.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// A thread that observes a group. It stops when dropped.
pub(super) struct Observer<T> {
    seen: Arc<Observed<T>>,
    thread: Option<Thread>,
}

impl<T: Default + Send + 'static> Observer<T> {
    /// Starts the thread. It calls `observe` at intervals, which stores what it finds, and returns its reading of the
    /// assignment.
    pub(super) fn start(
        name: &str,
        config: ClientConfig,
        mut observe: impl FnMut(&BaseConsumer<ConsumerEvents>, &Observed<T>) -> AssignmentReading + Send + 'static,
    ) -> Self {
        let seen = Arc::new(Observed::default());
        let theirs = seen.clone();
        let body = move || {
            let opened: KafkaResult<BaseConsumer<ConsumerEvents>> = config.create_with_context(ConsumerEvents::new(""));
            let Ok(consumer) = opened else { return };
            consumer.context().close();
            while !theirs.is_over() {
                let reading = observe(&consumer, &theirs);
                let is_whole = reading.found.is_ok_and(|assignment| assignment.unassigned.is_empty());
                std::thread::park_timeout(if is_whole { OBSERVATION_INTERVAL } else { UNASSIGNED_INTERVAL });
            }
        };
        // Without a thread there are no observations; the threads of the role also fail then.
        let thread = std::thread::Builder::new().name(name.into()).spawn(body).ok();
        Observer { seen, thread: thread.map(|thread| thread.thread().clone()) }
    }

    /// Locks what was found.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.seen.lock()
    }
}

impl<T> Drop for Observer<T> {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// A topic, the group that reads it, and the instance name of a member in this group.
#[derive(Debug, Clone)]
pub(super) struct ObservedPlace {
    pub topic: String,
    pub group: String,
    pub member: String,
}

/// Answers of the cluster about a group and its topic.
pub(super) struct GroupAnswers {
    /// Partitions of the topic.
    pub partitions: KafkaResult<Vec<i32>>,
    /// The group.
    pub group: KafkaResult<ObservedGroup>,
}

impl GroupAnswers {
    /// Asks the cluster. The group is read first: partitions that are added meanwhile then look unassigned, and the next
    /// observation corrects this.
    pub(super) fn ask(consumer: &BaseConsumer<ConsumerEvents>, place: &ObservedPlace) -> Self {
        let groups = consumer.fetch_group_list(Some(&place.group), ANSWER_TIMEOUT);
        let group = groups.map(|groups| ObservedGroup::new(&groups, &place.topic));
        GroupAnswers { partitions: topic::partitions(consumer.client(), &place.topic, ANSWER_TIMEOUT), group }
    }

    /// Compares the assignment of the group with the partitions of the topic.
    pub(super) fn assignment(&self, number: u64, place: &ObservedPlace) -> AssignmentReading {
        let not_answered =
            |what: &str, name: &str, error: &KafkaError| format!("the cluster did not describe {what} {name}: {error}");
        let found = match (&self.group, &self.partitions) {
            (Err(error), _) => Err(not_answered("group", &place.group, error)),
            (_, Err(error)) => Err(not_answered("topic", &place.topic, error)),
            (Ok(group), Ok(partitions)) => group.compare(partitions.iter().copied().collect(), &place.member),
        };
        AssignmentReading { number, found }
    }
}
