//! Watches the number of series that were evicted within the last minute. If it is near the number of events, active
//! series are evicted: they learn repeatedly, and are hardly judged.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::detect::DetectionSettings;
use crate::health::{Component, ConditionCode, ConditionSeverity};
use crate::series::Evictions;
use crate::stream::progress::ProgressByPartition;

/// Period over which evictions are counted.
const COUNTING_PERIOD: Duration = Duration::from_secs(60);
/// Interval between two evaluations.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum number of evictions within a minute that is reported.
const MIN_EVICTIONS: u64 = 100;
/// Number of events per eviction above which evictions are not reported.
const MAX_EVENTS_PER_EVICTION: u64 = 10;

/// Evictions and events of a worker, per second.
#[derive(Default)]
pub(super) struct EvictionRate {
    /// End of each step, with its events and evictions.
    steps: VecDeque<(Duration, u64, Evictions)>,
    /// Evictions since the last step.
    evicted: Evictions,
    /// Number of events of each partition at the last step.
    passed: BTreeMap<i32, u64>,
}

impl EvictionRate {
    /// Adds evictions, and raises or clears the condition once a second.
    pub(crate) fn watch(
        &mut self,
        evicted: Evictions,
        positions: &ProgressByPartition,
        settings: &DetectionSettings,
        now: Duration,
        component: &Component,
    ) {
        self.evicted.add(evicted);
        if self.steps.back().is_some_and(|(last, ..)| now.saturating_sub(*last) < EVALUATION_INTERVAL) {
            return;
        }
        let passed = positions
            .iter()
            .map(|(partition, progress)| (*partition, progress.counts.sum()))
            .collect::<BTreeMap<_, _>>();
        let before = |partition| self.passed.get(partition).copied();
        let events = passed.iter().filter_map(|(partition, n)| Some(n.saturating_sub(before(partition)?))).sum();
        self.passed = passed;
        self.steps.push_back((now, events, std::mem::take(&mut self.evicted)));
        while self.steps.front().is_some_and(|(at, ..)| now.saturating_sub(*at) > COUNTING_PERIOD) {
            self.steps.pop_front();
        }
        match self.complaint(settings) {
            Some(why) => component.raise(ConditionCode::EvictionRate, ConditionSeverity::Degraded, why),
            None => component.clear(ConditionCode::EvictionRate),
        }
    }

    fn complaint(&self, settings: &DetectionSettings) -> Option<String> {
        let events = self.steps.iter().map(|(_, events, _)| events).sum::<u64>();
        let mut sum = Evictions::default();
        self.steps.iter().for_each(|(.., evicted)| sum.add(*evicted));
        let Evictions { full, idle, memory } = sum;
        let all = full + idle + memory;
        if all < MIN_EVICTIONS || all.saturating_mul(MAX_EVENTS_PER_EVICTION) < events {
            return None;
        }
        let found = format!("{all} series were evicted within a minute in which {events} records were read");
        Some(if memory > full.max(idle) {
            format!(
                "{found}: the process uses more memory than detector.max_memory. An evicted series that sends again is judged only \
                 once there is memory for new series. Set detector.max_memory and MemoryMax of the unit higher, or add instances"
            )
        } else if full >= idle {
            format!(
                "{found}: a partition has more series than detector.max_series ({}). An evicted series that sends again learns \
                 again, and is not judged meanwhile. Set detector.max_series higher (about 1 KB of memory for each series), or use \
                 fewer device ids",
                settings.max_series
            )
        } else {
            format!(
                "{found}: they were silent for longer than detector.idle_after ({} s). An evicted series that sends again learns \
                 again, and is not judged meanwhile. Set detector.idle_after to several times the longest interval of a device",
                settings.idle_after.unwrap_or_default()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use crate::stream::progress::{OutcomeCounts, Progress};

    /// Simulates a minute with these events and evictions per second. Returns the conditions then, and their number two
    /// minutes later.
    fn minute(events: u64, evicted: Evictions) -> (Vec<String>, usize) {
        let component = Health::default().component("w");
        let (mut rate, settings) = (EvictionRate::default(), DetectionSettings::default());
        let mut counts = OutcomeCounts::default();
        let mut step = |second: u64, events: u64, evicted| {
            counts.learning += events;
            let positions = ProgressByPartition::from([(0, Progress { counts, ..Progress::default() })]);
            rate.watch(evicted, &positions, &settings, Duration::from_secs(second), &component);
        };
        (0..60).for_each(|second| step(second, events, evicted));
        let then = component.conditions().into_iter().map(|condition| condition.message).collect();
        (60..180).for_each(|second| step(second, events, Evictions::default()));
        (then, component.conditions().len())
    }

    #[test]
    fn evictions_near_the_number_of_events_are_a_condition_with_the_limit_until_they_end() {
        let (full, later) = minute(100, Evictions { full: 50, ..Evictions::default() });
        assert!(full[0].contains("3000 series") && full[0].contains("detector.max_series (1000000)"), "{full:?}");
        assert_eq!(later, 0);
        let (idle, _) = minute(100, Evictions { idle: 10, ..Evictions::default() });
        assert!(idle[0].contains("detector.idle_after (2592000 s)"), "{idle:?}");
    }

    #[test]
    fn few_evictions_are_no_condition() {
        assert_eq!(minute(100, Evictions { idle: 9, ..Evictions::default() }).0, [""; 0]);
        assert_eq!(minute(3, Evictions { full: 1, ..Evictions::default() }).0, [""; 0]);
    }
}
