//! Implements [`GroupConsumer`](crate::stream::client::GroupConsumer) with librdkafka: a `BaseConsumer` on the thread
//! of its loop.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};

use super::context::ConsumerEvents;
use super::epochs::LeaderEpochs;
use super::fetch::OnOversized;
use super::retry::RetriedFetch;
use super::{client, fault, identity, leaving, shortage, stranded, topic};
use crate::config::resolved::KafkaSettings;
use crate::stream::client::{
    AssignmentChange, ClusterConnection, Fault, GroupMembership, Positions, ReadFailures, RecordFetch, RecordVisitor,
    Remedy, TopicAdministration, TopicIdentity,
};

/// Timeout of one call to the cluster.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the id of the topic. Without an answer the id is unknown; a cluster without ids may not answer at
/// all.
const TOPIC_ID: Duration = Duration::from_secs(2);

/// A member of a consumer group that reads one topic.
pub(crate) struct KafkaGroupConsumer {
    fetch: RetriedFetch,
    pub(super) consumer: BaseConsumer<ConsumerEvents>,
    kafka: KafkaSettings,
    topic: String,
    on_oversized: OnOversized,
    group: String,
    began: Instant,
    assigned: Positions,
    /// Partitions that were read to their end, with the end offset.
    reached: Positions,
    /// Leader epochs of the records that were read, and of committed offsets.
    pub(super) epochs: LeaderEpochs,
    /// Time of the last request for a lost coordinator by another client, and whether it was answered. `None` if the
    /// coordinator is known.
    asked: Option<(Instant, bool)>,
}

/// Interval between two requests for a lost coordinator. A client that recovers by itself does so before the second
/// answer.
const COORDINATOR_INTERVAL: Duration = Duration::from_secs(10);

impl KafkaGroupConsumer {
    /// Creates a consumer without connecting.
    ///
    /// # Errors
    /// `Stop` if librdkafka does not accept the configuration, `Retry` if the system has too few resources.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        topic: &str,
        group: &str,
        member: &str,
        session: Duration,
    ) -> Result<Self, Fault> {
        let consumer = client::member(kafka, group, member, session)
            .create_with_context(ConsumerEvents::new(topic).with_fetch_wait(client::fetch_wait(kafka)))
            .map_err(|e| shortage::refused(&e))?;
        Ok(KafkaGroupConsumer {
            fetch: RetriedFetch::new(&consumer),
            consumer,
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            on_oversized: OnOversized::Fail,
            group: group.to_owned(),
            began: Instant::now(),
            assigned: Positions::new(),
            reached: Positions::new(),
            epochs: LeaderEpochs::default(),
            asked: None,
        })
    }

    /// Sets what to do with oversized batches; without this call they fail.
    pub(super) fn with_oversized(mut self, on_oversized: OnOversized) -> Self {
        self.on_oversized = on_oversized;
        self
    }

    /// Discards the known ends of these partitions, which are read from other offsets. Returns those to which the consumer
    /// must seek.
    pub(super) fn rewind(&mut self, to: &Positions) -> Positions {
        self.reached.retain(|partition, _| !to.contains_key(partition));
        self.fetch.rewind(to)
    }

    /// Converts offsets to librdkafka's list type.
    pub(super) fn list(&self, at: &Positions) -> Result<TopicPartitionList, Fault> {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in at {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))
                .map_err(|e| fault::of("offsets", &e))?;
        }
        Ok(list)
    }

    /// Answers all changes, also those that the loop has not answered. A client with an unanswered change neither
    /// closes nor leaves the group.
    fn answer_changes(&self) {
        self.consumer.context().close();
        while let Some(change) = self.consumer.context().change() {
            let _ = match change {
                AssignmentChange::Assigned(_) => self.consumer.assign(&TopicPartitionList::new()),
                AssignmentChange::Revoked(_) => self.consumer.unassign(),
            };
        }
    }

    /// Fails if the coordinator answers another client, but not this one.
    fn check_coordinator(&mut self) -> Result<(), Fault> {
        if !self.consumer.context().is_lost() {
            self.asked = None;
            return Ok(());
        }
        if self.asked.is_some_and(|(at, _)| at.elapsed() < COORDINATOR_INTERVAL) {
            return Ok(());
        }
        let is_there = stranded::has_coordinator(&self.kafka, &self.group, &self.topic);
        let (_, was_there) = self.asked.replace((Instant::now(), is_there)).unwrap_or((self.began, false));
        if is_there && was_there {
            return Err(Fault::new(Remedy::Rebuild, "the group's coordinator answers others, but not us"));
        }
        Ok(())
    }

    /// Converts the error of a poll to a fault; `Ok` if it needs no action.
    fn heard(&self, error: &KafkaError) -> Result<(), Fault> {
        let trouble = &self.consumer.context().trouble;
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                trouble.set(format!("topic {} does not exist; `anomaly topics` creates it", self.topic));
            }
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                trouble.set(format!("no permission to read {} as group {}: {error}", self.topic, self.group));
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                return Err(Fault::new(Remedy::Rebuild, "an offset is out of range"));
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                // The event reports only that there is a fatal error; the client has its code.
                let cause = self
                    .consumer
                    .client()
                    .fatal_error()
                    .map_or_else(|| error.clone(), |(code, _)| KafkaError::MessageConsumptionFatal(code));
                return Err(fault::of("consuming", &cause));
            }
            _ => tracing::debug!("while reading {}: {error}", self.topic),
        }
        Ok(())
    }
}

impl Drop for KafkaGroupConsumer {
    fn drop(&mut self) {
        self.answer_changes();
    }
}

impl ClusterConnection for KafkaGroupConsumer {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn trouble(&self) -> Option<String> {
        self.consumer.context().trouble.get()
    }
}

impl GroupMembership for KafkaGroupConsumer {
    fn subscribe(&mut self) -> Result<(), Fault> {
        self.consumer.context().asks();
        self.consumer.subscribe(&[&self.topic]).map_err(|e| fault::of("subscribing", &e))
    }

    fn has_change(&self) -> bool {
        self.consumer.context().has_change()
    }

    fn next_change(&mut self) -> Option<AssignmentChange> {
        self.consumer.context().change()
    }

    fn assign(&mut self, at: &Positions) -> Result<(), Fault> {
        let list = self.list(at)?;
        self.fetch.lead(&self.consumer, &self.topic, self.on_oversized, at.clone());
        self.consumer.assign(&list).map_err(|e| fault::of("taking partitions", &e))?;
        self.consumer.pause(&list).map_err(|e| fault::of("pausing", &e))?;
        self.consumer.context().trouble.clear();
        self.assigned = at.clone();
        self.reached.clear();
        Ok(())
    }

    fn unassign(&mut self) -> Result<(), Fault> {
        self.assigned.clear();
        self.reached.clear();
        self.fetch.forget_all();
        self.consumer.unassign().map_err(|e| fault::of("giving partitions back", &e))
    }

    fn is_assignment_lost(&self) -> bool {
        self.consumer.assignment_lost()
    }

    fn rejoin(&mut self) -> Result<(), Fault> {
        // librdkafka subscribes again when the partitions are given back and the request to leave is sent. The request to
        // join follows it on the same connection.
        self.consumer.unsubscribe();
        self.subscribe()
    }

    fn leave(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.answer_changes();
        self.consumer.unsubscribe();
        while Instant::now() < deadline {
            self.consumer.poll(Duration::from_millis(20));
            if leaving::has_sent_request(self.consumer.client()) {
                let left = deadline.saturating_duration_since(Instant::now());
                return leaving::wait_for_coordinator(&self.consumer, &self.topic, left.min(CALL_TIMEOUT));
            }
        }
    }
}

impl RecordFetch for KafkaGroupConsumer {
    fn poll(&mut self, wait: Duration, most: usize, visit: &mut RecordVisitor<'_>) -> Result<usize, Fault> {
        // This call serves callbacks and errors; records arrive through the queue.
        let only_waits = most == 0;
        let called =
            self.consumer.poll(if only_waits { wait } else { Duration::ZERO }).map(|message| message.map(drop));
        stranded::rescue(self.consumer.client(), &self.kafka, &self.consumer.context().trouble);
        match called {
            None => {}
            Some(Err(error)) => self.heard(&error)?,
            Some(Ok(())) => {
                return Err(Fault::new(Remedy::Rebuild, "a record did not arrive through the queue of its partition"));
            }
        }
        if self.has_change() {
            return Ok(0);
        }
        self.consumer.context().check()?;
        self.check_coordinator()?;
        if only_waits {
            return Ok(0);
        }
        self.fetch.retry(&self.consumer, &self.kafka, &self.topic)?;
        let (taken, error) = {
            let batch = self.fetch.take(wait, most);
            batch.hand_over(|_, _, _| true, visit);
            batch.note_ends(&mut self.reached);
            batch.note_epochs(&mut self.epochs);
            (batch.len(), batch.error())
        };
        if taken > 0 && error.is_none() {
            self.consumer.context().trouble.clear();
        }
        if let Some(error) = error {
            self.heard(&error)?;
        }
        Ok(taken)
    }

    fn resume(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        let at = self.assigned.iter().filter(|(partition, _)| partitions.contains(partition));
        let list = self.list(&at.map(|(partition, offset)| (*partition, *offset)).collect())?;
        self.consumer.resume(&list).map_err(|e| fault::of("resuming", &e))?;
        // The fetching thread checks once a second unless it is woken. This call wakes it; resuming does not.
        let _ = self.consumer.seek_partitions(list, Duration::ZERO);
        Ok(())
    }

    fn seek(&mut self, to: &Positions) -> Result<(), Fault> {
        let to = self.rewind(to);
        if to.is_empty() {
            return Ok(());
        }
        let rebuild = |e: &KafkaError| Fault::new(Remedy::Rebuild, format_args!("rewinding: {e}"));
        let list = self.consumer.seek_partitions(self.list(&to)?, CALL_TIMEOUT).map_err(|e| rebuild(&e))?;
        list.elements().iter().try_for_each(|element| element.error().map_err(|e| rebuild(&e)))
    }

    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault> {
        let bounds = self
            .consumer
            .fetch_watermarks(&self.topic, partition, CALL_TIMEOUT)
            .map_err(|e| fault::of(&format!("ends of {}", self.topic), &e))?;
        self.consumer.context().set_end(partition, bounds.1);
        Ok(bounds)
    }

    fn starts(&self) -> Positions {
        self.consumer.context().starts()
    }

    fn ends(&self) -> Positions {
        self.consumer.context().ends()
    }

    fn highs(&self) -> Positions {
        self.consumer.context().highs()
    }

    fn reached(&self) -> Positions {
        self.reached.clone()
    }

    fn failures(&self) -> ReadFailures {
        self.fetch.failures()
    }

    fn skip(&mut self, partition: i32) -> Result<Option<Range<i64>>, Fault> {
        Ok(self.fetch.skip(partition))
    }
}

impl TopicAdministration for KafkaGroupConsumer {
    fn identity(&mut self) -> Result<TopicIdentity, Fault> {
        let partitions = self.partitions()?;
        let id = identity::topic_id(self.consumer.client().native_ptr(), &self.topic, CALL_TIMEOUT)
            .map_err(|identity::TimedOut| Fault::new(Remedy::Retry, "no answer about the topic's id"))?;
        Ok(TopicIdentity { id, partitions })
    }

    fn partitions(&mut self) -> Result<i32, Fault> {
        let partitions = topic::partitions(self.consumer.client(), &self.topic, CALL_TIMEOUT)
            .map_err(|e| fault::of("partitions of the topic", &e))?;
        Ok(i32::try_from(partitions.len()).unwrap_or(i32::MAX))
    }

    fn topic_id(&mut self) -> Option<String> {
        identity::topic_id(self.consumer.client().native_ptr(), &self.topic, TOPIC_ID).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    #[ignore = "needs a broker: tests/run"]
    fn a_member_that_never_finds_its_coordinator_is_rebuilt_once_others_find_it() {
        let servers = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("a box: run tests/run");
        let kafka =
            |servers: &str| KafkaSettings { bootstrap_servers: servers.to_owned(), properties: BTreeMap::new() };
        // No process listens at this address.
        let away = kafka("127.0.0.1:9");
        let mut reader = KafkaGroupConsumer::new(&away, "nothing", "lost", "one", Duration::from_secs(6)).unwrap();
        reader.kafka = kafka(&servers);
        // A broker that has just started must load its groups first.
        assert!(
            (0..10).any(|_| stranded::has_coordinator(&reader.kafka, "lost", "nothing")),
            "there is no coordinator"
        );
        let began = Instant::now();
        let fault = loop {
            reader.consumer.context().lose();
            match reader.poll(Duration::from_millis(10), 0, &mut |_, _| ()) {
                Err(fault) => break fault,
                Ok(_) => assert!(began.elapsed() < Duration::from_secs(90), "it goes on looking"),
            }
        };
        assert_eq!(fault.remedy, Remedy::Rebuild);
        assert!(began.elapsed() >= COORDINATOR_INTERVAL, "the first answer is not enough: {fault}");
    }
}
