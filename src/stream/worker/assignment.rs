//! Reports partitions of the input that the group assigns to no worker, and makes the group assign them.

use std::time::Duration;

use super::Worker;
use crate::stream::client::{Fault, GroupAdministration, TransactionalClient};
use crate::stream::unassigned::{MessageNames, VainRebalances};

impl<C: GroupAdministration> Worker<'_, C> {
    /// Raises or clears the condition about partitions without a worker.
    pub(super) fn watch_assignment(&mut self, now: Duration) {
        let Some(reading) = self.session.client.assignment() else { return };
        let settings = self.session.settings;
        let (topic, group) = (&settings.topics.raw_events, &settings.detector.group);
        self.watch.unassigned.note(now, reading);
        let names = MessageNames { topic, group, done: "judged" };
        self.watch.unassigned.report(now, names, &self.session.component);
    }
}

impl<C: TransactionalClient> Worker<'_, C> {
    /// Makes this worker count forced rebalances together with its earlier clients.
    pub(crate) fn counting(mut self, rebalances: VainRebalances) -> Self {
        self.watch.unassigned.counting(rebalances);
        self
    }

    /// Leaves the group and joins it again, if partitions belong to no member, and if this worker is to force the
    /// rebalance.
    pub(super) fn force_rebalance(&mut self) -> Result<(), Fault> {
        let is_ready = self.is_member && self.restoring.is_none();
        if !is_ready || !self.watch.unassigned.is_rebalance_due(self.session.client.now()) {
            return Ok(());
        }
        // The client sends no heartbeats from here until the partitions are given back.
        self.commit()?;
        self.watch.unassigned.note_forced(self.session.client.now());
        self.session.meter.forced_rebalances.add("detector", 1);
        tracing::warn!(
            group = self.session.settings.detector.group,
            topic = self.session.settings.topics.raw_events,
            "partitions are assigned to no member; this worker leaves the group and joins it again"
        );
        self.session.client.rejoin().map_err(Fault::or_rebuild)
    }
}
