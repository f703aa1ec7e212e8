//! Copies topic `anomalies` into a [`Ledger`]. It reads committed records, starts at the ledger's offsets, and advances
//! only in the step that stores the rows. While the ledger is unavailable it stays in the group and waits.

mod assignment;
mod batch_size;
mod damage;
mod delay;
mod elsewhere;
mod ledger_check;
mod positions;
mod storing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::client::{AssignmentChange, ConsumedRecord, Fault, GroupConsumer, OwnerObserver, Positions, Remedy};
use crate::anomaly::Anomaly;
use crate::config::resolved::Settings;
use crate::event::Timestamp;
use crate::health::{Component, ComponentState, ConditionCode, ConditionSeverity};
use crate::ledger::{Ledger, LedgerError, SinkRecord};
use crate::meter::Meter;
use crate::stop::Stop;
use crate::stream::identity::{IdentityWatch, TopicSameness};
use crate::stream::open_transactions::{MIN_OPEN_TIME, OpenTransactions};
use crate::stream::standstill::Stall;
use crate::stream::unassigned::{UnassignedPartitions, VainRebalances};
use batch_size::BatchSize;
use delay::SinkDelay;
use elsewhere::Elsewhere;
use positions::{SinkStart, TakeoverFault, positions};

/// Wait for the first record if no records are pending.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Maximum wait between two attempts while the ledger or the cluster is unavailable.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The sink: a reader, the ledger, and records that were read but not stored.
pub(crate) struct Sink<'a, R> {
    settings: &'a Settings,
    reader: R,
    ledger: Box<dyn Ledger + 'a>,
    component: Arc<Component>,
    meter: Meter,
    stop: &'a Stop,
    /// Assigned partitions that are not yet read from the ledger's offsets.
    given: Option<Vec<i32>>,
    /// Next offset of each assigned partition, as in the ledger.
    positions: Positions,
    pending: Vec<SinkRecord>,
    batch_size: BatchSize,
    /// Whether the last write failed because the ledger is unavailable, or too slow for a single record.
    is_away: bool,
    is_member: bool,
    /// Time at which to read the ledger again, by the reader's clock.
    next_check: Duration,
    /// Offsets of the ledger before they moved back.
    lost: Positions,
    transactions: OpenTransactions,
    stall: Stall,
    delay: SinkDelay,
    elsewhere: Elsewhere<'a>,
    identity: IdentityWatch,
    unassigned: UnassignedPartitions,
    /// Time since which the topic lacks assigned partitions.
    lacking: Option<Duration>,
}

/// Reason why a sink ended.
#[derive(Debug)]
pub(crate) enum SinkEnding {
    /// A stop was requested.
    Stopped,
    /// The reader must be rebuilt, for this reason.
    Rebuild(String),
}

impl<'a, R: GroupConsumer> Sink<'a, R> {
    /// Creates a sink that has no partitions yet.
    pub(crate) fn new(
        reader: R,
        settings: &'a Settings,
        ledger: Box<dyn Ledger + 'a>,
        component: Arc<Component>,
        meter: Meter,
        stop: &'a Stop,
    ) -> Self {
        Sink {
            settings,
            reader,
            ledger,
            component,
            meter,
            stop,
            given: None,
            positions: Positions::new(),
            pending: Vec::new(),
            batch_size: BatchSize::new(settings.sink.batch),
            is_away: false,
            is_member: false,
            next_check: Duration::ZERO,
            lost: Positions::new(),
            transactions: OpenTransactions::default(),
            stall: Stall::default(),
            delay: SinkDelay::default(),
            elsewhere: Elsewhere::default(),
            identity: IdentityWatch::default(),
            unassigned: UnassignedPartitions::default(),
            lacking: None,
        }
    }

    /// Makes the sink also watch the partitions of the other members of the group, and those of none. It counts forced
    /// rebalances together with its earlier clients.
    pub(crate) fn observing(mut self, observer: impl OwnerObserver + 'a, rebalances: VainRebalances) -> Self {
        self.elsewhere.observe(Box::new(observer));
        self.unassigned.counting(rebalances);
        self
    }

    /// Runs until a stop is requested; then stores the pending records, if that is possible at once.
    pub(crate) fn run(mut self) -> SinkEnding {
        let mut turn = self.reader.subscribe();
        while !self.stop.is_requested() {
            if let Err(fault) = turn {
                return SinkEnding::Rebuild(fault.message);
            }
            turn = self.turn();
        }
        // The next sink reads unstored records again.
        let _ = self.store();
        SinkEnding::Stopped
    }

    /// Runs one turn: reads, accepts partitions, stores.
    fn turn(&mut self) -> Result<(), Fault> {
        self.component.beat();
        self.read()?;
        while let Some(change) = self.reader.next_change() {
            self.regroup(change)?;
        }
        self.take_over()?;
        if self.is_same_topic()? {
            self.store()?;
        }
        self.skip_damage()?;
        if self.pending.is_empty() && (self.is_away || self.reader.now() >= self.next_check) {
            self.check_ledger()?;
        }
        self.report();
        self.force_rebalance()
    }

    /// Reads available records, up to a batch; nothing while the ledger or the cluster is unavailable.
    fn read(&mut self) -> Result<(), Fault> {
        if self.is_away || self.given.is_some() {
            return self.reader.poll(RETRY_PAUSE, 0, &mut |_, _| ()).map(|_| ());
        }
        let mut wait = if self.pending.is_empty() { IDLE_WAIT } else { Duration::ZERO };
        while self.pending.len() < self.settings.sink.batch {
            let (positions, pending) = (&self.positions, &mut self.pending);
            let taken =
                self.reader.poll(wait, self.settings.sink.batch - pending.len(), &mut |partition, consumed| {
                    // Records of an earlier assignment are skipped.
                    let Some(next) = positions.get(&partition) else { return };
                    let are_ours = consumed.records().iter().filter(|record| record.offset >= *next);
                    pending.extend(are_ours.map(|record| entry(partition, record)));
                })?;
            if taken == 0 {
                break;
            }
            wait = Duration::ZERO;
        }
        if self.pending.len() >= self.settings.sink.batch {
            self.stall.note_busy();
        }
        Ok(())
    }

    fn regroup(&mut self, change: AssignmentChange) -> Result<(), Fault> {
        self.forget();
        match change {
            AssignmentChange::Assigned(partitions) => {
                self.unassigned.note_assigned(self.reader.now());
                self.given = Some(partitions);
            }
            AssignmentChange::Revoked(_) => {
                (self.given, self.is_member) = (None, false);
                self.reader.unassign()?;
            }
        }
        Ok(())
    }

    /// Discards the pending records. The next owner of the partition reads them again.
    fn forget(&mut self) {
        self.pending.clear();
        self.positions.clear();
        self.is_away = false;
    }

    /// Accepts assigned partitions at the ledger's offsets. It waits while the ledger or the cluster is unavailable.
    fn take_over(&mut self) -> Result<(), Fault> {
        let Some(partitions) = &self.given else { return Ok(()) };
        match positions(&mut self.reader, self.ledger.as_mut(), &self.settings.topics.anomalies, partitions) {
            Ok(SinkStart { topic_id, .. }) if self.identity.differs_from(topic_id.as_deref()) => {
                let topic = &self.settings.topics.anomalies;
                let why = "was recreated, and a client keeps the leaders of the earlier topic";
                Err(Fault::new(Remedy::Rebuild, format_args!("{topic} {why}")))
            }
            Ok(SinkStart { positions, from, topic_id }) => {
                self.identity.note(topic_id, self.reader.now());
                self.reader.assign(&from)?;
                self.reader.resume(partitions)?;
                for (&partition, &next) in &positions {
                    let lost =
                        self.component.note_deleted(partition, next..from.get(&partition).copied().unwrap_or(next));
                    self.meter.lost_records.add("unstored", lost);
                }
                self.positions = positions;
                (self.given, self.is_member) = (None, true);
                self.component.set(ComponentState::Running);
                Ok(())
            }
            Err(TakeoverFault::Temporary(why)) => {
                self.component.set(ComponentState::Degraded(why));
                self.check_assignment()
            }
            Err(TakeoverFault::Broken(fault)) => Err(fault),
        }
    }

    /// Returns whether records may be stored: the topic is still the one that the ledger's offsets belong to.
    fn is_same_topic(&mut self) -> Result<bool, Fault> {
        if self.given.is_some() || self.positions.is_empty() {
            return Ok(true);
        }
        let (reader, identity) = (&mut self.reader, &mut self.identity);
        let before_a_write = if self.pending.is_empty() { TopicSameness::Same } else { identity.confirm(reader) };
        let sameness = if before_a_write == TopicSameness::Same { identity.watch(reader) } else { before_a_write };
        match sameness {
            TopicSameness::Same => Ok(true),
            TopicSameness::Unknown => {
                let topic = &self.settings.topics.anomalies;
                let why = "nothing is stored until Kafka shows that the topic was not recreated during the outage";
                self.component.set(ComponentState::Degraded(format!("no answer about the id of {topic}: {why}")));
                self.is_away = true;
                Ok(false)
            }
            // The takeover asks again, and reports it.
            TopicSameness::Recreated(_) => {
                let partitions = self.positions.keys().copied().collect();
                self.forget();
                self.given = Some(partitions);
                self.take_over()?;
                Ok(true)
            }
        }
    }

    /// Reports why the ledger could not be read or written.
    fn note_failure(&mut self, why: LedgerError) -> Result<(), Fault> {
        if why == LedgerError::Moved {
            return Err(ledger_check::moved());
        }
        self.component.set(ComponentState::Degraded(why.to_string()));
        self.is_away = true;
        Ok(())
    }

    fn report(&mut self) {
        if self.given.is_none() {
            self.lost.retain(|partition, next| self.positions.get(partition).is_some_and(|position| position < next));
            if self.lost.is_empty() {
                self.component.clear(ConditionCode::LedgerMoved);
            }
        }
        let (ends, highs, reached) = (self.reader.ends(), self.reader.highs(), self.reader.reached());
        let is_beyond = |partition: &i32, end: &i64| reached.get(partition).is_none_or(|read| read < end);
        let lag = |(partition, next): (&i32, &i64)| match ends.get(partition).filter(|end| is_beyond(partition, end)) {
            Some(end) => (end - next).max(0),
            // The partition was read to its end, so only pending records are missing.
            None => self.pending.iter().filter(|entry| entry.partition == *partition).count() as i64,
        };
        let lag = self.positions.iter().map(lag).sum::<i64>();
        // The end that was reached is newer than the one that the client knows without a request.
        let stable = |partition: &i32| ends.get(partition).max(reached.get(partition)).copied();
        let ends_of = |partition: &i32| Some((*partition, (stable(partition)?, *highs.get(partition)?)));
        let ends_of = self.positions.keys().filter_map(ends_of).collect::<BTreeMap<_, _>>();
        let held_back = ends_of.values().map(|(end, high)| (high - end).max(0)).sum::<i64>();
        self.meter.sink_lag.set(lag + held_back);
        self.report_waiting(lag, &ends, ends_of);
        self.watch_assignment();
        let trouble = self.reader.trouble();
        if trouble.is_some() {
            self.identity.doubt();
        }
        match trouble {
            // The outage was already reported.
            _ if self.is_away || self.given.is_some() => {}
            Some(why) => self.component.set(ComponentState::Degraded(why)),
            None if !self.is_member => self.component.set(ComponentState::Starting("waiting for partitions".into())),
            None => self.component.set(ComponentState::Running),
        }
    }

    /// Raises or clears the conditions about anomalies that wait, or that were deleted.
    fn report_waiting(&mut self, lag: i64, ends: &Positions, ends_of: BTreeMap<i32, (i64, i64)>) {
        let (topic, now) = (&self.settings.topics.anomalies, self.reader.now());
        self.component.report_deleted(topic, "stored");
        // A detector's own transactions in this topic last as long as its commits.
        let hold = MIN_OPEN_TIME + self.settings.detector.commit_interval;
        let open = self.transactions.watch(topic, now, hold, ends_of.into_iter()).map(|places| {
            let advice = "they are stored when it ends; `kafka-transactions.sh find-hanging` names its producer";
            (ConditionSeverity::Degraded, format!("{places}; {advice}"))
        });
        self.component.set_condition(ConditionCode::OpenTransaction, open);
        // An unavailable database has a report of its own.
        let is_served = !self.is_away && self.given.is_none();
        if !is_served {
            self.delay = SinkDelay::default();
        }
        if !is_served || self.reader.trouble().is_some() {
            self.stall.reset();
        }
        self.report_damage(ends, &self.reader.reached());
        let slow = is_served.then(|| self.delay.watch(now, &self.positions, ends, lag)).flatten();
        self.component.set_condition(ConditionCode::FallingBehind, slow);
    }
}

fn entry(partition: i32, record: &ConsumedRecord<'_>) -> SinkRecord {
    let value = record.value.unwrap_or_default().to_vec();
    SinkRecord {
        partition,
        offset: record.offset,
        key: record.key.map(<[u8]>::to_vec),
        detected_at: record.timestamp.and_then(Timestamp::from_millis).unwrap_or_else(Timestamp::now),
        anomaly: Anomaly::from_json(&value).map_err(|e| e.to_string()),
        value,
    }
}
