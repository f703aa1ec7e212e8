//! What a worker tells of itself: state, partitions, and what is worth a line in the log once.

use std::collections::BTreeMap;

use super::Worker;
use crate::health::{ComponentState, ConditionCode, ConditionSeverity, PartitionStatus};
use crate::series::EvictionCause;
use crate::stream::client::{GroupAdministration, RecordFetch};
use crate::stream::progress::Progress;

impl<L: RecordFetch + GroupAdministration> Worker<'_, L> {
    /// Tells health what is known now.
    pub(super) fn report(&mut self) {
        match self.log.trouble() {
            Some(why) => self.part.set(ComponentState::Degraded(why)),
            // Again and again: a topic that refuses what we send, not a passing fault.
            None if self.aborts > 2 => self.part.set(ComponentState::Degraded(self.refusal.clone())),
            // Says how far it is.
            None if self.restoring.is_some() => {}
            None if self.is_member => self.part.set(ComponentState::Running),
            None => self.part.set(ComponentState::Starting("waiting for partitions".into())),
        }
        let (ends, highs) = (self.log.ends(), self.log.highs());
        self.keeper.hear(&self.log.starts(), &self.committed);
        let status = |(&partition, mark): (&i32, &Progress)| {
            let status = PartitionStatus {
                committed: mark.offset,
                is_unconfirmed: self.restoring.as_ref().is_some_and(|restoring| restoring.is_unconfirmed(partition)),
                end: ends.get(&partition).copied(),
                high: highs.get(&partition).copied(),
                totals: mark.counts.tally(),
                arrived: self.staged.arrival(partition),
                event_time: self.staged.event_time(partition),
                series: self.detector.series_of(partition) as u64,
            };
            (partition, status)
        };
        let partitions = self.committed.iter().map(status).collect::<BTreeMap<_, _>>();
        self.watch(&partitions);
        self.part.set_partitions(partitions);
        self.shortfalls.watch(&self.plan.topic, &self.committed, &self.part);
        self.report_same_times();
        self.tell_once();
    }

    /// Two sources that write one series.
    fn report_same_times(&mut self) {
        let Worker { committed, staged, plan, part, .. } = self;
        match committed.keys().find_map(|partition| staged.same_time(&plan.topic, *partition)) {
            Some(message) => part.raise(ConditionCode::SameTime, ConditionSeverity::Notice, message),
            None => part.clear(ConditionCode::SameTime),
        }
    }

    /// What is counted on, and logged the first time.
    fn tell_once(&mut self) {
        let evictions = self.detector.take_evictions();
        for (cause, n) in [(EvictionCause::Full, evictions.full), (EvictionCause::Idle, evictions.idle)] {
            let is_first = n > 0 && self.meter.evictions.get(cause.as_str()) == 0;
            self.meter.evictions.add(cause.as_str(), n);
            if is_first && cause == EvictionCause::Full {
                tracing::warn!(
                    max_series = self.detector.settings().max_series,
                    "series were evicted because their partition has more than detector.max_series; they learn again when they \
                     come back"
                );
            } else if is_first {
                tracing::info!("series were evicted because they were silent for longer than detector.idle_after");
            }
        }
        let (settings, now) = (self.detector.settings(), self.log.now());
        self.eviction_rate.watch(evictions, &self.committed, settings, now, &self.part);
    }
}
