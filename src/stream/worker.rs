//! The transactional loop. It consumes records, judges them, produces anomalies and dead letters, and commits these with the
//! offsets. On a failure it aborts, rolls the windows back and rewinds.
//!
//! A worker is one thread with one [`TransactionalClient`] and the windows of its partitions. Only `Worker::mend` decides
//! what follows from a fault.

mod dead_letter;
mod ends;
mod evictions;
mod checkpoint;
mod snapshot_writer;
mod look;
mod report;
mod replay;
mod restore;
mod retry;
mod same_time;
mod shortfall;
mod splits;
mod pending;
mod take;
mod watch;
mod restored;

use std::sync::Arc;
use std::time::Duration;

use crate::anomaly::Anomaly;
use crate::config::resolved::{OnReject, StartPosition};
use crate::detect::Detector;
use crate::error::Error;
use crate::event::{Decoder, Fields};
use crate::fail;
use crate::health::{Component, ComponentState, InputHealth};
use crate::meter::Meter;
use crate::series::snapshot::{is_window, series_of};
use crate::stop::Stop;
use crate::stream::client::{AssignmentChange, Fault, Remedy, TransactionalClient};
use crate::stream::progress::ProgressByPartition;
use evictions::EvictionRate;
pub use look::look;
use pending::PendingTransaction;
use restore::{PartitionRestore, offsets};
use shortfall::Shortfalls;
use snapshot_writer::SnapshotWriter;
use watch::InputWatch;

/// The settings and names that a worker uses.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// Input topic, for records and messages.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// State topic, for messages.
    pub state_topic: String,
    /// Store windows in the state topic; otherwise they are rebuilt from the input.
    pub keeps_state: bool,
    /// Minimum time between two sweeps.
    pub snapshot_interval: Duration,
    /// Minimum number of bytes of one part of a sweep.
    pub snapshot_bytes: usize,
    /// Where an event's fields are in a record.
    pub fields: Fields,
    /// What to do with rejected records.
    pub on_reject: OnReject,
    /// Where a group without committed offsets starts.
    pub start: StartPosition,
    /// Maximum number of records to replay for each partition.
    pub history: i64,
    /// Maximum time that a transaction stays open.
    pub commit_interval: Duration,
    /// Maximum number of events in one transaction.
    pub commit_events: usize,
    /// Time for the last commit after a stop was requested.
    pub drain: Duration,
    /// Leave the group on stop.
    pub leaves: bool,
}

/// Maximum number of records of one poll.
const BATCH: usize = 1_000;
/// A callback that receives the anomalies of each transaction after its commit.
pub type CommitObserver = Box<dyn FnMut(&[Anomaly]) + Send>;

/// How a worker's run ended.
#[derive(Debug)]
pub enum WorkerEnding {
    /// A stop was requested. Uncommitted records are judged again after the next start.
    Stopped,
    /// A new client is needed, with the reason.
    Rebuild(String),
    /// Another process has joined the group under this worker's `group.instance.id`.
    Replaced,
    /// An error that a restart does not solve.
    Failed(Error),
}

/// A worker. Dropping it closes its client.
pub struct Worker<'a, L> {
    log: L,
    decoder: Decoder,
    detector: Detector,
    plan: &'a WorkerPlan,
    part: Arc<Component>,
    input: Arc<InputHealth>,
    meter: Meter,
    observer: &'a mut CommitObserver,
    stop: &'a Stop,
    /// Progress including the pending transaction.
    positions: ProgressByPartition,
    /// Progress that is committed.
    committed: ProgressByPartition,
    staged: PendingTransaction,
    /// Restore of partitions that are not judged yet.
    restoring: Option<PartitionRestore>,
    keeper: SnapshotWriter,
    watch: InputWatch,
    /// When offsets were last advanced to the partitions' ends without any record.
    ends_moved: Duration,
    eviction_rate: EvictionRate,
    shortfalls: Shortfalls,
    /// When the open transaction began, on the client's clock.
    open: Option<Duration>,
    /// Maximum size of a dead letter's value in bytes. It is halved when the topic refuses a record as too large.
    dead_letter_limit: usize,
    /// The group has sent an assignment, possibly empty.
    is_member: bool,
    /// Number of aborts since the last commit, and the reason of the last abort.
    aborts: u32,
    refusal: String,
}

impl<'a, L: TransactionalClient> Worker<'a, L> {
    /// Creates a worker without partitions.
    pub fn new(
        log: L,
        detector: Detector,
        plan: &'a WorkerPlan,
        (part, input): (Arc<Component>, Arc<InputHealth>),
        meter: Meter,
        observer: &'a mut CommitObserver,
        stop: &'a Stop,
    ) -> Self {
        Worker {
            log,
            decoder: Decoder::new(&plan.fields),
            detector,
            plan,
            part,
            input,
            meter,
            observer,
            stop,
            positions: ProgressByPartition::new(),
            committed: ProgressByPartition::new(),
            staged: PendingTransaction::default(),
            restoring: None,
            keeper: SnapshotWriter::new(plan.snapshot_interval, plan.snapshot_bytes),
            watch: InputWatch::default(),
            ends_moved: Duration::ZERO,
            eviction_rate: EvictionRate::default(),
            shortfalls: Shortfalls::default(),
            open: None,
            dead_letter_limit: usize::MAX,
            is_member: false,
            aborts: 0,
            refusal: String::new(),
        }
    }

    /// Runs until a stop is requested, a new client is needed, or an error ends the worker.
    pub fn run(mut self) -> WorkerEnding {
        while let Err(fault) = self.log.init_transactions().and_then(|()| self.log.subscribe()) {
            if self.stop.is_requested() {
                return WorkerEnding::Stopped;
            }
            if let Some(ending) = self.mend(fault) {
                return ending;
            }
        }
        loop {
            let turn = if self.stop.is_requested() { self.finish().map(Some) } else { self.turn() };
            match turn {
                Ok(None) => {}
                Ok(Some(ending)) => return ending,
                Err(fault) => {
                    if let Some(ending) = self.mend(fault) {
                        return ending;
                    }
                }
            }
        }
    }

    /// Polls once, judges the records, and commits when a commit is due.
    fn turn(&mut self) -> Result<Option<WorkerEnding>, Fault> {
        self.part.beat();
        self.restore().map_err(Fault::or_rebuild)?;
        let taken = self.take()?;
        fail::point("judged");
        self.begin()?;
        if self.staged.is_bulky() {
            self.send()?;
        }
        if let Some(poison) = self.staged.poison.take() {
            self.commit()?;
            return Ok(Some(WorkerEnding::Failed(poison)));
        }
        while let Some(change) = self.log.next_change() {
            // A change that was answered only in part cannot be continued.
            self.regroup(change).map_err(Fault::or_rebuild)?;
        }
        if self.is_due(taken) {
            self.commit()?;
        }
        self.report();
        Ok(None)
    }

    /// Opens a transaction if there is something to commit.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.open.is_some() {
            return Ok(());
        }
        let has_records =
            self.staged.events() > 0 || self.keeper.wants(&self.detector, &self.committed, self.log.now());
        // The same poll may have delivered records of one partition and reached the end of another.
        if self.move_to_ends() || has_records {
            self.log.begin()?;
            self.open = Some(self.log.now());
        }
        Ok(())
    }

    /// Sends the output of the pending transaction. Usually this happens once, since each call wakes the client and costs a
    /// request.
    fn send(&mut self) -> Result<(), Fault> {
        self.staged.outbox.drain(..).try_for_each(|record| self.log.send(record))?;
        fail::point("sent");
        Ok(())
    }

    /// Returns whether a commit is due: by number of events, by time, or at once if an anomaly waits and the load is low.
    fn is_due(&self, taken: usize) -> bool {
        self.open.is_some_and(|since| {
            self.staged.events() >= self.plan.commit_events
                || self.log.now().saturating_sub(since) >= self.plan.commit_interval
                || (!self.staged.anomalies.is_empty() && taken < BATCH)
        })
    }

    /// Commits the open transaction with output, offsets and snapshots, and then the changes of the windows.
    fn commit(&mut self) -> Result<(), Fault> {
        if self.open.is_none() {
            return Ok(());
        }
        self.send()?;
        // Every retry must commit the same progress.
        let next = self.positions.clone();
        let mut written = self.keeper.write(&self.detector, &next, self.log.now());
        // Every active series gets a snapshot from time to time, which shows that its device sends.
        let windows = written.records.iter().filter(|record| record.value.as_deref().is_some_and(is_window));
        let keys = windows.filter_map(|record| series_of(record.key.as_deref()?));
        self.part.note_devices(keys.map(|key| key.split('\0').next().unwrap_or(key)));
        written.records.drain(..).try_for_each(|record| self.log.send(record))?;
        fail::point("snapshots");
        self.insist("committing", |log| log.commit(&next))?;
        fail::point("committed");
        self.open = None;
        self.committed = next;
        let now = self.log.now();
        written.count(&self.meter);
        self.keeper.commit(&mut self.detector, written, &self.staged.bytes, now);
        self.detector.commit();
        (self.aborts, self.dead_letter_limit) = (0, usize::MAX);
        self.meter.transactions.add("committed", 1);
        let mut done = std::mem::take(&mut self.staged);
        done.count(&self.meter);
        self.part.cover(done.coverage.iter().copied());
        self.part.note_activity(done.activity.iter().copied());
        self.input.note(done.activity.iter().map(|(_, activity)| *activity), &done.reasons);
        self.watch.note_commit(&self.committed);
        self.note_splits(std::mem::take(&mut done.splits));
        self.part.note_rejected(std::mem::take(&mut done.samples));
        self.part.note_devices(done.devices.iter().map(String::as_str));
        if !done.anomalies.is_empty() {
            (self.observer)(&done.anomalies);
        }
        self.staged.keep_times_of(done);
        Ok(())
    }

    /// Commits for the last time, and leaves the group if configured.
    fn finish(&mut self) -> Result<WorkerEnding, Fault> {
        self.commit()?;
        if self.plan.leaves {
            self.log.leave(self.plan.drain);
        }
        Ok(WorkerEnding::Stopped)
    }

    /// Answers an assignment change.
    fn regroup(&mut self, change: AssignmentChange) -> Result<(), Fault> {
        match change {
            AssignmentChange::Assigned(partitions) => self.join(&partitions),
            AssignmentChange::Revoked(_) => {
                let kept = if self.log.is_assignment_lost() { self.discard() } else { self.commit() };
                match kept {
                    Err(fault) if fault.remedy == Remedy::Abort => self.discard()?,
                    other => other?,
                }
                self.log.unassign()?;
                self.positions.keys().for_each(|partition| self.detector.forget(*partition));
                self.positions.clear();
                self.committed.clear();
                self.restoring = None;
                self.keeper.clear();
                self.shortfalls.clear();
                self.is_member = false;
                self.input.forget(&self.part.name);
                Ok(())
            }
        }
    }

    /// Aborts the open transaction and rolls the windows back. The client's position does not change.
    fn discard(&mut self) -> Result<(), Fault> {
        if self.open.is_some() {
            self.insist("aborting", |log| log.abort())?;
            self.open = None;
            self.meter.transactions.add("aborted", 1);
        }
        self.detector.rollback();
        self.keeper.ease();
        self.staged = PendingTransaction::default();
        self.positions = self.committed.clone();
        Ok(())
    }

    /// Handles a fault. Returns how the worker ends, or `None` if the loop continues.
    fn mend(&mut self, fault: Fault) -> Option<WorkerEnding> {
        match fault.remedy {
            Remedy::Stop => return Some(WorkerEnding::Failed(Error::data(fault))),
            Remedy::Yield | Remedy::Rebuild => {
                self.part.set(ComponentState::Degraded(fault.message.clone()));
                let is_fenced = fault.remedy == Remedy::Yield;
                let is_replaced = !self.stop.is_requested() && self.log.is_replaced(is_fenced, self.stop);
                return Some(if is_replaced { WorkerEnding::Replaced } else { self.give_up(fault) });
            }
            Remedy::Retry => {
                self.part.set(ComponentState::Degraded(fault.message));
                self.log.sleep(Duration::from_millis(100));
                return None;
            }
            Remedy::Abort => {}
        }
        self.aborts += 1;
        self.refusal = fault.message.clone();
        if fault.is_too_large && self.staged.largest_dead_letter > 0 {
            let largest = self.staged.largest_dead_letter;
            self.dead_letter_limit = self.dead_letter_limit.min(largest.max(2)) / 2;
            tracing::warn!(
                limit = self.dead_letter_limit,
                "a dead letter is too large for its topic; it will be truncated"
            );
        } else {
            tracing::warn!(worker = self.part.name, "transaction aborted, rewinding: {fault}");
        }
        let rewound = self.discard().and_then(|()| self.log.seek(&offsets(&self.positions)));
        match rewound {
            Ok(()) => {
                // A fault that recurs at once must not use a whole core.
                self.log.sleep(Duration::from_millis(20) * self.aborts.pow(2).min(50));
                None
            }
            Err(worse) => self.mend_worse(worse),
        }
    }

    /// Handles a failed abort or rewind, for which only a new client is left.
    fn mend_worse(&mut self, fault: Fault) -> Option<WorkerEnding> {
        let remedy = if fault.remedy == Remedy::Yield { Remedy::Yield } else { Remedy::Rebuild };
        self.mend(Fault { remedy, ..fault })
    }

    /// Ends the worker so that a new client is created, or ends it for good if a stop was requested.
    fn give_up(&self, fault: Fault) -> WorkerEnding {
        if self.stop.is_requested() {
            tracing::warn!(
                worker = self.part.name,
                "stopped with an uncommitted transaction, which will be judged again: {fault}"
            );
            return WorkerEnding::Stopped;
        }
        self.meter.transactions.add("rebuilt", 1);
        self.input.forget(&self.part.name);
        WorkerEnding::Rebuild(fault.message)
    }
}
