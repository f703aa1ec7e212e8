//! Reports of a worker: state, partitions, and events that are logged once.

use std::collections::BTreeMap;

use super::Worker;
use super::pending::PendingTransaction;
use crate::health::{ComponentState, ConditionCode, ConditionSeverity, PartitionStatus};
use crate::series::{EvictionCause, Evictions};
use crate::stream::client::{GroupAdministration, HistoryReader, RecordFetch};
use crate::stream::progress::Progress;

impl<C> Worker<'_, C> {
    /// Returns whether transactions were aborted repeatedly: then a topic refuses our records, and the fault is not
    /// temporary.
    pub(super) fn is_refused(&self) -> bool {
        self.aborts > 2
    }

    /// Reports the reason of repeated aborts. Each of them ends a turn of the loop before its report.
    pub(super) fn report_refusal(&self) {
        if self.is_refused() {
            self.session.component.set(ComponentState::Degraded(self.refusal.clone()));
        }
    }
}

impl<C: RecordFetch + GroupAdministration + HistoryReader> Worker<'_, C> {
    /// Updates the health report.
    pub(super) fn report(&mut self) {
        match self.session.client.trouble() {
            Some(why) => self.session.component.set(ComponentState::Degraded(why)),
            None if self.is_refused() => self.report_refusal(),
            // The restore reports its own progress.
            None if self.restoring.is_some() => {}
            None if self.is_member => self.session.component.set(ComponentState::Running),
            None => self.session.component.set(ComponentState::Starting("waiting for partitions".into())),
        }
        let (ends, highs) = (self.session.client.ends(), self.session.client.highs());
        self.snapshots.note_starts(&self.session.client.starts(), &self.committing.committed);
        let status = |(&partition, progress): (&i32, &Progress)| {
            let status = PartitionStatus {
                committed: progress.offset,
                is_unconfirmed: self.restoring.as_ref().is_some_and(|restoring| restoring.is_unconfirmed(partition)),
                end: ends.get(&partition).copied(),
                high: highs.get(&partition).copied(),
                totals: progress.counts.tally(),
                arrived: self.judging.pending.arrival(partition),
                event_time: self.judging.pending.event_time(partition),
                series: self.judging.detector.series_of(partition) as u64,
            };
            (partition, status)
        };
        let partitions = self.committing.committed.iter().map(status).collect::<BTreeMap<_, _>>();
        self.watch(&partitions);
        self.session.component.set_partitions(partitions);
        self.shortfalls.watch(
            &self.session.settings.topics.raw_events,
            &self.committing.committed,
            &self.session.component,
        );
        let settings = self.session.settings;
        self.session.component.report_deleted(&settings.topics.raw_events, "judged");
        self.session.component.report_starts_at_end(&settings.topics.raw_events, &settings.detector.group);
        self.session.component.report_damaged();
        self.report_same_times();
        self.report_left_out();
        self.report_memory();
        self.count_evictions();
    }

    /// Reports a committed transaction to the health report, the metrics and the observer.
    pub(super) fn note_committed(&mut self, mut done: PendingTransaction) {
        let component = &self.session.component;
        done.count(&self.session.meter);
        component.cover(done.coverage.iter().copied());
        component.note_activity(done.activity.iter().copied());
        self.input.note(done.activity.iter().map(|(_, activity)| *activity), &done.reasons);
        self.note_splits(std::mem::take(&mut done.splits));
        let component = &self.session.component;
        component.note_rejected(std::mem::take(&mut done.samples));
        for (partition, offsets) in std::mem::take(&mut done.skipped.ranges) {
            let new = component.note_damaged(&self.session.settings.topics.raw_events, partition, offsets);
            self.session.meter.lost_records.add("skipped", new);
        }
        component.note_devices(done.devices.iter().map(String::as_str));
        if !done.anomalies.is_empty() {
            (self.observer)(&done.anomalies);
        }
        self.judging.pending.keep_times_of(done);
    }

    /// Raises or clears the condition that two sources write one series.
    fn report_same_times(&mut self) {
        let Worker { session, judging, committing, .. } = self;
        let topic = &session.settings.topics.raw_events;
        match committing.committed.keys().find_map(|partition| judging.pending.same_time(topic, *partition)) {
            Some(message) => session.component.raise(ConditionCode::SameTime, ConditionSeverity::Notice, message),
            None => session.component.clear(ConditionCode::SameTime),
        }
    }

    /// Counts evictions, and logs the first one of each cause.
    fn count_evictions(&mut self) {
        let evictions = self.judging.detector.take_evictions();
        let Evictions { full, idle, memory } = evictions;
        for (cause, n) in [(EvictionCause::Full, full), (EvictionCause::Idle, idle), (EvictionCause::Memory, memory)] {
            let is_first = n > 0 && self.session.meter.evictions.get(cause.as_str()) == 0;
            self.session.meter.evictions.add(cause.as_str(), n);
            if is_first && cause == EvictionCause::Full {
                tracing::warn!(
                    max_series = self.judging.detector.settings().max_series,
                    "series were evicted because their partition has more than detector.max_series; they learn again when they \
                     come back"
                );
            } else if is_first && cause == EvictionCause::Memory {
                tracing::warn!(
                    "series were evicted because the process uses more memory than detector.max_memory; they learn again when \
                     they come back"
                );
            } else if is_first {
                tracing::info!("series were evicted because they were silent for longer than detector.idle_after");
            }
        }
        let (settings, now) = (self.judging.detector.settings(), self.session.client.now());
        self.eviction_rate.watch(evictions, &self.committing.committed, settings, now, &self.session.component);
    }
}
