//! Topic `anomalies` into a [`Ledger`]: reads committed records, starts from the ledger's own offsets, and moves on only
//! in the step that stores the rows. While the ledger is away it stays in the group and waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::kafka::context::Member;
use super::kafka::{client, stranded};
use super::log::{Change, Positions};
use crate::anomaly::Anomaly;
use crate::config::resolved::Kafka;
use crate::error::{Error, Result};
use crate::event::Instant;
use crate::health::{Part, State};
use crate::ledger::{Entry, Ledger, Unwritten};
use crate::meter::Meter;
use crate::stop::Stop;

/// What the sink is told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Topic of anomalies.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// Member of the group.
    pub member: String,
    /// Most rows in one step.
    pub batch: usize,
    /// See the detector's.
    pub session: Duration,
}

const CALL: Duration = Duration::from_secs(5);
/// Between two attempts while the ledger or the cluster is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Consumer, ledger, and what was read but not stored.
pub struct Sink<'a> {
    plan: &'a Plan,
    consumer: BaseConsumer<Member>,
    kafka: &'a Kafka,
    ledger: Box<dyn Ledger>,
    part: Arc<Part>,
    meter: Meter,
    stop: &'a Stop,
    /// Next offset of each partition that is ours, as the ledger has it.
    positions: Positions,
    pending: VecDeque<Entry>,
    /// Partitions that were read to their end.
    caught_up: BTreeSet<i32>,
    is_member: bool,
    /// What `read` found, to be mended by `run`.
    broken: Option<Broken>,
}

/// A consumer's error that does not go away by itself.
enum Broken {
    /// An offset that the topic no longer has.
    Offset,
    /// The client, with the reason.
    Client(String),
}

/// How a sink's run ended.
#[derive(Debug)]
pub enum Ending {
    /// As requested.
    Stopped,
    /// The consumer must be made anew; the reason.
    Rebuild(String),
}

impl<'a> Sink<'a> {
    /// Not connected yet.
    ///
    /// # Errors
    /// 78 when librdkafka does not accept the configuration.
    pub fn new(
        kafka: &'a Kafka,
        plan: &'a Plan,
        ledger: Box<dyn Ledger>,
        part: Arc<Part>,
        meter: Meter,
        stop: &'a Stop,
    ) -> Result<Self> {
        let consumer: BaseConsumer<Member> = client::member(kafka, &plan.group, &plan.member, plan.session)
            .set("enable.partition.eof", "true")
            .create_with_context(Member::new(&plan.topic))
            .map_err(|e| Error::config(format_args!("kafka.properties: {e}")))?;
        consumer.context().asks();
        consumer.subscribe(&[&plan.topic]).map_err(|e| Error::config(format_args!("{}: {e}", plan.topic)))?;
        let (positions, pending) = (Positions::new(), VecDeque::new());
        let caught_up = BTreeSet::new();
        Ok(Sink {
            plan,
            consumer,
            kafka,
            ledger,
            part,
            meter,
            stop,
            positions,
            pending,
            caught_up,
            is_member: false,
            broken: None,
        })
    }

    /// Runs until a stop is requested; then stores what it has read, if it can at once.
    ///
    /// # Errors
    /// 69 when the ledger says that trying again will not help.
    pub fn run(mut self) -> Result<Ending> {
        while !self.stop.is_requested() {
            self.part.beat();
            stranded::rescue(self.consumer.client(), self.kafka, &self.consumer.context().trouble);
            self.read();
            while let Some(change) = self.consumer.context().change() {
                self.regroup(change)?;
            }
            self.store()?;
            if self.consumer.context().is_unanswered() {
                self.broken = Some(Broken::Client("the group does not answer".into()));
            }
            match self.broken.take() {
                Some(Broken::Client(why)) => {
                    self.consumer.context().close();
                    return Ok(Ending::Rebuild(why));
                }
                Some(Broken::Offset) => {
                    let ours = self.positions.keys().copied().collect::<Vec<_>>();
                    self.take_over(&ours)?;
                }
                None => {}
            }
            self.report();
        }
        let last = self.store();
        self.consumer.context().close();
        last.map(|()| Ending::Stopped)
    }

    fn report(&self) {
        let ends = self.consumer.context().ends();
        // The markers of transactions are beyond the last anomaly.
        let has_all = |partition: &i32| self.pending.is_empty() && self.caught_up.contains(partition);
        let lag = |(partition, next): (&i32, &i64)| match ends.get(partition) {
            Some(end) if !has_all(partition) => (end - next).max(0),
            _ => 0,
        };
        self.meter.sink_lag.set(self.positions.iter().map(lag).sum());
        match self.consumer.context().trouble.get() {
            Some(why) => self.part.set(State::Degraded(why)),
            None if !self.is_member => self.part.set(State::Starting("waiting for partitions".into())),
            None if self.pending.is_empty() => self.part.set(State::Running),
            None => {}
        }
    }

    /// Reads what is there, up to a batch; nothing while a batch waits.
    fn read(&mut self) {
        let mut wait = if self.pending.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
        while self.pending.len() < self.plan.batch {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let is_ours =
                        self.positions.get(&message.partition()).is_some_and(|next| message.offset() >= *next);
                    self.caught_up.remove(&message.partition());
                    if is_ours {
                        self.pending.push_back(entry(&message));
                    }
                }
                Some(Err(error)) => {
                    self.heard(&error);
                    break;
                }
                None => break,
            }
            wait = Duration::ZERO;
        }
    }

    fn heard(&mut self, error: &KafkaError) {
        if let KafkaError::PartitionEOF(partition) = error {
            self.caught_up.insert(*partition);
            return;
        }
        let trouble = &self.consumer.context().trouble;
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                trouble.set(format!("topic {} does not exist; `anomaly topics` creates it", self.plan.topic));
            }
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                trouble.set(format!("no right to read {} as group {}: {error}", self.plan.topic, self.plan.group));
            }
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.broken = Some(Broken::Offset),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                self.broken = Some(Broken::Client(error.to_string()));
            }
            _ => tracing::debug!("while reading {}: {error}", self.plan.topic),
        }
    }

    /// Stores what is pending. While the ledger is away: pauses, and tries again until it is back or a stop is requested.
    fn store(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            let moves = self.moves();
            match self.ledger.write(self.pending.make_contiguous(), &moves) {
                Ok(written) => {
                    self.meter.sink_rows.add("inserted", written.inserted);
                    self.meter.sink_rows.add("present", written.present);
                    self.meter.sink_rows.add("rejected", written.rejected);
                    self.positions.extend(moves.into_iter().map(|(partition, (_, next))| (partition, next)));
                    self.pending.clear();
                    return Ok(());
                }
                Err(Unwritten::Moved) => {
                    tracing::warn!("another sink has moved a partition on; reading the positions again");
                    let ours = self.positions.keys().copied().collect::<Vec<_>>();
                    return self.take_over(&ours);
                }
                Err(Unwritten::Away(why)) => {
                    if !self.wait_for_ledger(why)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Old and new offset of each partition with pending entries.
    fn moves(&self) -> BTreeMap<i32, (i64, i64)> {
        let mut moves = BTreeMap::new();
        for entry in &self.pending {
            let old = self.positions.get(&entry.partition).copied().unwrap_or(entry.offset);
            moves.entry(entry.partition).or_insert((old, old)).1 = entry.offset + 1;
        }
        moves
    }

    /// Waits a little, staying in the group. False: give this attempt up (stop, or the group changed).
    fn wait_for_ledger(&mut self, why: String) -> Result<bool> {
        self.part.set(State::Degraded(why));
        let ours = self.list(self.positions.keys().copied());
        // Paused, so that polling brings no records; nothing is lost if this fails, it only fetches more.
        let _ = self.consumer.pause(&ours);
        let stopped = self.stop.wait(PAUSE);
        let stray = self.keep_membership();
        let _ = self.consumer.resume(&ours);
        let is_ours = |e: &Entry| self.positions.get(&e.partition).is_some_and(|next| e.offset >= *next);
        if let Some(stray) = stray.filter(is_ours) {
            self.pending.push_back(stray);
        }
        self.part.beat();
        if stopped || self.broken.is_some() {
            return Ok(false);
        }
        if self.consumer.context().has_change() {
            while let Some(change) = self.consumer.context().change() {
                self.regroup(change)?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// Polls without waiting; an error is heard, a record that slipped in is returned.
    fn keep_membership(&mut self) -> Option<Entry> {
        let polled = self.consumer.poll(Duration::ZERO)?.map(|message| entry(&message));
        polled.map_err(|error| self.heard(&error)).ok()
    }

    fn regroup(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Assigned(partitions) => self.take_over(&partitions),
            Change::Revoked(_) => {
                // What was read but not stored is read again by the next owner.
                self.pending.clear();
                self.positions.clear();
                self.is_member = false;
                if let Err(e) = self.consumer.unassign() {
                    tracing::warn!("giving partitions back: {e}");
                }
                Ok(())
            }
        }
    }

    /// Takes the partitions at the ledger's offsets; waits for the ledger and the cluster as long as it must.
    fn take_over(&mut self, partitions: &[i32]) -> Result<()> {
        self.pending.clear();
        self.caught_up.clear();
        loop {
            match self.positions_of(partitions) {
                Ok(positions) => {
                    let mut list = TopicPartitionList::new();
                    for (partition, (next, first)) in &positions {
                        let from = Offset::Offset(*next.max(first));
                        let _ = list.add_partition_offset(&self.plan.topic, *partition, from);
                    }
                    if let Err(e) = self.consumer.assign(&list) {
                        tracing::warn!("taking partitions: {e}");
                    }
                    self.positions = positions.into_iter().map(|(partition, (next, _))| (partition, next)).collect();
                    self.is_member = true;
                    self.consumer.context().trouble.clear();
                    self.part.set(State::Running);
                    return Ok(());
                }
                Err(Unwritten::Moved) => {}
                Err(Unwritten::Away(why)) => {
                    self.part.set(State::Degraded(why));
                    self.part.beat();
                    if self.stop.wait(PAUSE) || self.consumer.context().has_change() {
                        return Ok(());
                    }
                    // Nothing is assigned yet (or is assigned anew below): a record is of the former assignment.
                    drop(self.keep_membership());
                    if matches!(self.broken, Some(Broken::Client(_))) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The ledger's offset of each partition, checked against the first offset that the topic still has, which is beside it.
    fn positions_of(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>, Unwritten> {
        let known = self.ledger.positions(partitions)?;
        let mut positions = BTreeMap::new();
        for &partition in partitions {
            let (first, end) = self
                .consumer
                .fetch_watermarks(&self.plan.topic, partition, CALL)
                .map_err(|e| Unwritten::Away(format!("ends of {}: {e}", self.plan.topic)))?;
            let topic = &self.plan.topic;
            let next = match known.get(&partition).copied().flatten() {
                None => {
                    self.ledger.begin(partition, first)?;
                    first
                }
                Some(next) if next > end => {
                    return Err(Unwritten::Away(format!(
                        "{topic} [{partition}] ends at {end}, before the offset {next} in sink_offsets: the topic was recreated. \
                         Delete the partition's row from sink_offsets"
                    )));
                }
                // The ledger's row keeps the old offset until the next write, whose move starts there.
                Some(next) if next < first => {
                    tracing::error!(
                        topic,
                        partition,
                        lost = first - next,
                        "anomalies were deleted by the topic's retention before they were stored"
                    );
                    next
                }
                Some(next) => next,
            };
            positions.insert(partition, (next, first));
            self.consumer.context().set_end(partition, end);
        }
        Ok(positions)
    }

    fn list(&self, partitions: impl Iterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        partitions.for_each(|partition| {
            list.add_partition(&self.plan.topic, partition);
        });
        list
    }
}

fn entry(message: &BorrowedMessage<'_>) -> Entry {
    let value = message.payload().unwrap_or_default().to_vec();
    Entry {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        detected_at: message.timestamp().to_millis().and_then(Instant::from_millis).unwrap_or_else(Instant::now),
        anomaly: serde_json::from_slice::<Anomaly>(&value).map_err(|e| e.to_string()),
        value,
    }
}
