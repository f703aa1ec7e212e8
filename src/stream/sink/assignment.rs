//! Reports partitions of topic `anomalies` that the group assigns to no sink, and makes the group assign them.

use super::Sink;
use crate::health::ComponentState;
use crate::stream::client::{Fault, GroupConsumer, Positions, Remedy};
use crate::stream::unassigned::{LACKING, LEAVE, MessageNames, describe_lacking};

impl<R: GroupConsumer> Sink<'_, R> {
    /// Raises or clears the condition about partitions without a sink.
    pub(super) fn watch_assignment(&mut self) {
        let now = self.reader.now();
        if !self.unassigned.is_evaluation_due(now) {
            return;
        }
        let Some(reading) = self.elsewhere.assignment() else { return };
        let (topic, group) = (&self.settings.topics.anomalies, &self.settings.sink.group);
        self.unassigned.note(now, reading);
        self.unassigned.report(now, MessageNames { topic, group, done: "stored" }, &self.component);
    }

    /// Reports that the topic lacks partitions that were assigned. If this lasts, the sink leaves the group, and its next
    /// client joins it. An error says nothing about the partitions.
    pub(super) fn check_assignment(&mut self) -> Result<(), Fault> {
        let (Some(partitions), Ok(count)) = (&self.given, self.reader.partitions()) else { return Ok(()) };
        let (topic, group) = (&self.settings.topics.anomalies, &self.settings.sink.group);
        let Some(message) = describe_lacking(partitions, count, topic, group) else {
            self.lacking = None;
            return Ok(());
        };
        self.component.set(ComponentState::Degraded(message.clone()));
        let now = self.reader.now();
        if now.saturating_sub(*self.lacking.get_or_insert(now)) < LACKING {
            return Ok(());
        }
        self.reader.assign(&Positions::new())?;
        if self.unassigned.may_force() {
            self.unassigned.note_forced(now);
            self.meter.forced_rebalances.add("sink", 1);
            tracing::warn!(
                group,
                topic,
                "the topic lacks assigned partitions; this sink leaves the group and joins it again"
            );
            self.reader.leave(LEAVE);
        }
        Err(Fault::new(Remedy::Rebuild, message))
    }

    /// Leaves the group and joins it again, if partitions belong to no member, and if this sink is to force the
    /// rebalance. While the ledger is unavailable a rebalance would not help.
    pub(super) fn force_rebalance(&mut self) -> Result<(), Fault> {
        let is_ready = self.is_member && self.given.is_none() && !self.is_away && self.pending.is_empty();
        if !is_ready || !self.unassigned.is_rebalance_due(self.reader.now()) {
            return Ok(());
        }
        self.unassigned.note_forced(self.reader.now());
        self.meter.forced_rebalances.add("sink", 1);
        tracing::warn!(
            group = self.settings.sink.group,
            topic = self.settings.topics.anomalies,
            "partitions are assigned to no member; this sink leaves the group and joins it again"
        );
        self.reader.rejoin().map_err(Fault::or_rebuild)
    }
}
