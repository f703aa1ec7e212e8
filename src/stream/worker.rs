//! The transactional loop. It consumes records, judges them, and produces anomalies and dead letters. It commits these
//! together with the offsets. On a failure it aborts, rolls the series back and rewinds.
//!
//! A worker is one thread with one [`TransactionalClient`] and the series of its partitions. Its parts can be read
//! alone: `session` has the client and the limits of retries, `judging` the series and the pending transaction.
//! `snapshot_writer` decides which snapshots are due, and `committing` puts everything into one transaction. `takeover`
//! restores assigned partitions with `restore`. Only `Worker::mend` in `remedy` decides what follows from a fault.

mod advice;
mod assignment;
mod beginning;
mod checkpoint;
mod committing;
mod dead_letter;
mod evictions;
mod groups;
mod judging;
mod live;
mod memory;
mod offsets;
mod oversize;
mod partition_sweep;
mod pending;
mod remedy;
mod replay;
mod report;
mod restore;
mod restored;
mod same_time;
mod session;
mod shortfall;
mod skipping;
mod snapshot_writer;
mod splits;
mod stored_state;
mod takeover;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use crate::anomaly::Anomaly;
use crate::config::resolved::Settings;
use crate::detect::Detector;
use crate::error::Error;
use crate::fail;
use crate::health::{Component, InputHealth};
use crate::meter::Meter;
use crate::series::BudgetShare;
use crate::stop::Stop;
use crate::stream::client::{AssignmentChange, Fault, Remedy, TransactionalClient};
use crate::stream::identity::IdentityWatch;
use committing::Committing;
use evictions::EvictionRate;
use judging::RecordJudging;
pub(crate) use offsets::{OffsetChange, OffsetReport, OffsetTarget, accept_offsets, list_offsets, set_offsets};
use restore::PartitionRestore;
use session::WorkerSession;
use shortfall::Shortfalls;
use snapshot_writer::SnapshotWriter;
pub(crate) use stored_state::check_stored_state;
use watch::InputWatch;

/// Minimum bytes of a sweep per transaction, so that a small sweep takes few transactions.
const MIN_SWEEP_BYTES: usize = 64 << 10;
/// Maximum number of records of one poll.
const BATCH_RECORDS: usize = 1_000;
/// Longest wait of a poll while no transaction is open.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// A callback that receives the anomalies of each transaction after its commit.
pub(crate) type CommitObserver = Box<dyn FnMut(&[Anomaly]) + Send>;

/// Reason why a worker's run ended.
#[derive(Debug)]
pub(crate) enum WorkerEnding {
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
pub(crate) struct Worker<'a, C> {
    session: WorkerSession<'a, C>,
    judging: RecordJudging,
    snapshots: SnapshotWriter,
    committing: Committing,
    /// Restore of the partitions that are not judged yet.
    restoring: Option<PartitionRestore>,
    input: Arc<InputHealth>,
    observer: &'a mut CommitObserver,
    watch: InputWatch,
    identity: IdentityWatch,
    eviction_rate: EvictionRate,
    shortfalls: Shortfalls,
    /// Whether the group has sent an assignment, which may be empty.
    is_member: bool,
    /// Number of aborts since the last commit, and the reason of the last abort.
    aborts: u32,
    refusal: String,
}

impl<'a, C: TransactionalClient> Worker<'a, C> {
    /// Replaces the minimum bytes of a sweep per transaction.
    #[cfg(test)]
    pub(crate) fn with_snapshot_bytes(mut self, bytes: usize) -> Self {
        self.snapshots = SnapshotWriter::new(self.session.settings.detector.snapshot_interval, bytes);
        self
    }

    /// Makes the worker keep its series within the budget of the process.
    pub(crate) fn within(mut self, budget: BudgetShare) -> Self {
        self.judging.budget = budget;
        self
    }

    /// Replaces the time after which records that were too large are tried again.
    #[cfg(test)]
    pub(crate) fn with_retry(mut self, retry: Duration) -> Self {
        self.committing.groups.retry = retry;
        self
    }

    /// Creates a worker without partitions.
    pub(crate) fn new(
        client: C,
        detector: Detector,
        settings: &'a Settings,
        (component, input): (Arc<Component>, Arc<InputHealth>),
        meter: Meter,
        observer: &'a mut CommitObserver,
        stop: &'a Stop,
    ) -> Self {
        Worker {
            session: WorkerSession { client, settings, component, meter, stop },
            judging: RecordJudging::new(detector, settings),
            snapshots: SnapshotWriter::new(settings.detector.snapshot_interval, MIN_SWEEP_BYTES),
            committing: Committing::default(),
            restoring: None,
            input,
            observer,
            watch: InputWatch::default(),
            identity: IdentityWatch::default(),
            eviction_rate: EvictionRate::default(),
            shortfalls: Shortfalls::default(),
            is_member: false,
            aborts: 0,
            refusal: String::new(),
        }
    }

    /// Runs until a stop is requested, a new client is needed, or an error ends the worker.
    pub(crate) fn run(mut self) -> WorkerEnding {
        let stop = self.session.stop;
        while let Err(fault) = self.session.client.init_transactions().and_then(|()| self.session.client.subscribe()) {
            if stop.is_requested() {
                return WorkerEnding::Stopped;
            }
            if let Some(ending) = self.mend(fault) {
                return ending;
            }
        }
        loop {
            let turn = if stop.is_requested() { self.finish().map(Some) } else { self.turn() };
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
        self.session.component.beat();
        self.restore().map_err(Fault::or_rebuild)?;
        self.watch_identity()?;
        let taken = self.take()?;
        if taken >= BATCH_RECORDS {
            self.watch.note_busy();
        }
        let has_skipped = self.skip_damage()?;
        fail::point("judged");
        self.begin()?;
        if self.judging.pending.is_bulky() {
            self.committing.send(&mut self.session, &mut self.judging.pending)?;
        }
        if let Some(poison) = self.judging.pending.poison.take() {
            self.commit()?;
            return Ok(Some(WorkerEnding::Failed(poison)));
        }
        while let Some(change) = self.session.client.next_change() {
            // A partly answered change cannot be continued.
            self.regroup(change).map_err(Fault::or_rebuild)?;
        }
        if has_skipped || self.is_due(taken) {
            self.commit()?;
        }
        self.report();
        self.force_rebalance()?;
        Ok(None)
    }

    /// Polls, and judges the records. Returns their number.
    fn take(&mut self) -> Result<usize, Fault> {
        let WorkerSession { client, settings, .. } = &mut self.session;
        let restoring = self.restoring.as_ref();
        let wait = match self.committing.open {
            // The poll must not delay the reading of the history.
            _ if restoring.is_some() => Duration::ZERO,
            Some(since) => settings.detector.commit_interval.saturating_sub(client.now().saturating_sub(since)),
            None => IDLE_WAIT,
        };
        self.judging
            .take(client, settings, wait, |partition| restoring.is_some_and(|restoring| restoring.has(partition)))
    }

    /// Opens a transaction if there is something to commit.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.committing.open.is_some() {
            return Ok(());
        }
        let Worker { session, judging, snapshots, committing, .. } = self;
        let has_records = judging.pending.events() > 0
            || snapshots.wants(&judging.detector, &committing.committed, session.client.now());
        // The same poll may have delivered records of one partition and reached the end of another.
        if judging.move_to_ends(&session.client) || has_records {
            committing.begin(session)?;
        }
        Ok(())
    }

    /// Returns whether a commit is due: by number of events, by time, or at once if an anomaly is pending and the load
    /// is low.
    fn is_due(&self, taken: usize) -> bool {
        let (settings, pending) = (self.session.settings, &self.judging.pending);
        self.committing.open.is_some_and(|since| {
            pending.events() >= settings.detector.commit_events
                || self.session.client.now().saturating_sub(since) >= settings.detector.commit_interval
                || (!pending.anomalies.is_empty() && taken < BATCH_RECORDS)
        })
    }

    /// Commits the open transaction, and reports its content.
    fn commit(&mut self) -> Result<(), Fault> {
        if self.committing.open.is_some() {
            self.confirm_identity()?;
        }
        let Worker { session, judging, snapshots, committing, .. } = self;
        if let Some(done) = committing.commit(session, judging, snapshots)? {
            self.aborts = 0;
            self.note_committed(done);
        }
        Ok(())
    }

    /// Commits for the last time, and leaves the group if configured.
    fn finish(&mut self) -> Result<WorkerEnding, Fault> {
        self.commit()?;
        if self.session.settings.detector.stop_leaves {
            self.session.client.leave(self.session.settings.service.drain_timeout);
        }
        Ok(WorkerEnding::Stopped)
    }

    /// Answers an assignment change of the group.
    fn regroup(&mut self, change: AssignmentChange) -> Result<(), Fault> {
        match change {
            AssignmentChange::Assigned(partitions) => {
                self.watch.unassigned.note_assigned(self.session.client.now());
                self.take_over(&partitions)
            }
            AssignmentChange::Revoked(_) => self.give_back(),
        }
    }

    /// Returns all partitions to the group, after a last commit if that is possible.
    fn give_back(&mut self) -> Result<(), Fault> {
        let kept = if self.session.client.is_assignment_lost() { self.discard() } else { self.commit() };
        match kept {
            Err(fault) if fault.remedy == Remedy::Abort => self.discard()?,
            other => other?,
        }
        self.session.client.unassign()?;
        self.judging.forget();
        self.committing.committed.clear();
        self.restoring = None;
        self.snapshots.clear();
        self.shortfalls.clear();
        self.is_member = false;
        self.input.forget(&self.session.component.name);
        Ok(())
    }

    /// Aborts the open transaction and rolls the series back. The client's position does not change.
    fn discard(&mut self) -> Result<(), Fault> {
        self.committing.abort(&mut self.session)?;
        self.judging.rollback(&self.committing.committed);
        self.snapshots.ease();
        Ok(())
    }
}
