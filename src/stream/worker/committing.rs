//! Committing: one transaction with the output of the judged records, their offsets, and the snapshots that are due.

use std::time::Duration;

use super::groups::RecordGroups;
use super::judging::RecordJudging;
use super::pending::PendingTransaction;
use super::session::WorkerSession;
use super::snapshot_writer::SnapshotWriter;
use crate::fail;
use crate::series::snapshot::{is_window, series_of};
use crate::stream::client::{Fault, TransactionalProducer};
use crate::stream::progress::ProgressByPartition;

/// The committed progress, and the open transaction.
#[derive(Default)]
pub(super) struct Committing {
    /// Progress of the last commit.
    pub committed: ProgressByPartition,
    /// Start of the open transaction, on the client's clock.
    pub open: Option<Duration>,
    pub groups: RecordGroups,
}

impl Committing {
    /// Begins a transaction, and notes its start.
    pub(crate) fn begin<C: TransactionalProducer>(&mut self, session: &mut WorkerSession<'_, C>) -> Result<(), Fault> {
        session.client.begin()?;
        self.open = Some(session.client.now());
        Ok(())
    }

    /// Sends the output of the pending transaction. Usually this happens once, because each call wakes the client and
    /// costs a request.
    pub(crate) fn send<C: TransactionalProducer>(
        &mut self,
        session: &mut WorkerSession<'_, C>,
        pending: &mut PendingTransaction,
    ) -> Result<(), Fault> {
        self.groups.send(&mut session.client, pending.outbox.drain(..))?;
        fail::point("sent");
        Ok(())
    }

    /// Commits the open transaction with output, offsets and snapshots, and then the changes of the series. Returns the
    /// committed transaction; `None` if none is open.
    pub(crate) fn commit<C: TransactionalProducer>(
        &mut self,
        session: &mut WorkerSession<'_, C>,
        judging: &mut RecordJudging,
        snapshots: &mut SnapshotWriter,
    ) -> Result<Option<PendingTransaction>, Fault> {
        if self.open.is_none() {
            return Ok(None);
        }
        self.send(session, &mut judging.pending)?;
        // Every retry must commit the same progress.
        let next = judging.positions.clone();
        judging.weigh(&next);
        let mut written = snapshots.write(&judging.detector, &next, judging.refuses_series, session.client.now());
        // Every active series gets a snapshot from time to time, which proves that its device sends.
        let windows = written.records.iter().filter(|record| record.value.as_deref().is_some_and(is_window));
        let keys = windows.filter_map(|record| series_of(record.key.as_deref()?));
        session.component.note_devices(keys.map(|key| key.split('\0').next().unwrap_or(key)));
        self.groups.send(&mut session.client, written.records.drain(..))?;
        fail::point("snapshots");
        session.insist("committing", |client| client.commit(&next))?;
        fail::point("committed");
        self.open = None;
        self.committed = next;
        let now = session.client.now();
        written.count(&session.meter);
        snapshots.commit(&mut judging.detector, written, &judging.pending.bytes, now);
        if !session.settings.detector.keeps_state() {
            // Without a state topic nothing is recorded: a restart decides again.
            judging.detector.set_closed(judging.refuses_series);
        }
        session.meter.transactions.add("committed", 1);
        if self.groups.note_commit(now) {
            judging.detector.limit_context(usize::MAX);
        }
        Ok(Some(judging.confirm()))
    }

    /// Aborts the open transaction, if there is one.
    pub(crate) fn abort<C: TransactionalProducer>(&mut self, session: &mut WorkerSession<'_, C>) -> Result<(), Fault> {
        if self.open.is_some() {
            session.insist("aborting", |client| client.abort())?;
            self.open = None;
            session.meter.transactions.add("aborted", 1);
        }
        Ok(())
    }
}
