//! Reports partitions of the input that the group assigns to no worker, and makes the group assign them.

use std::time::Duration;

use super::Worker;
use crate::health::ComponentState;
use crate::stream::client::{Fault, GroupAdministration, Positions, Remedy, TransactionalClient};
use crate::stream::unassigned::{LACKING, LEAVE, MessageNames, VainRebalances, describe_lacking};

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

    /// Checks that the topic has all assigned partitions. If it was recreated with fewer, the group does not assign them
    /// anew to a static member that restarts. Then this worker leaves the group, and its next client joins it.
    pub(super) fn check_assignment(&mut self, partitions: &[i32]) -> Result<(), Fault> {
        let (settings, began) = (self.session.settings, self.session.client.now());
        let (topic, group) = (&settings.topics.raw_events, &settings.detector.group);
        let message = loop {
            let count = self.session.insist("reading the topic's partitions", |client| client.partitions())?;
            let Some(message) = describe_lacking(partitions, count, topic, group) else { return Ok(()) };
            let is_sure = self.session.client.now().saturating_sub(began) >= LACKING;
            if is_sure || self.session.stop.is_requested() {
                break message;
            }
            self.session.component.set(ComponentState::Degraded(message));
            self.session.client.sleep(Duration::from_millis(100));
        };
        self.session.client.assign(&Positions::new())?;
        if !self.session.stop.is_requested() && self.watch.unassigned.may_force() {
            self.watch.unassigned.note_forced(self.session.client.now());
            self.session.meter.forced_rebalances.add("detector", 1);
            tracing::warn!(
                group,
                topic,
                "the topic lacks assigned partitions; this worker leaves the group and joins it again"
            );
            self.session.client.leave(LEAVE);
        }
        Err(Fault::new(Remedy::Rebuild, message))
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
