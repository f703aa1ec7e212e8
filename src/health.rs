//! The state that the components of a process report: state, beat, partitions and conditions. The status line,
//! `/readyz`, the metrics and the heartbeat in the database read it. This room only stores the reports.

mod arrivals;
mod component;
mod condition;
mod deleted;
mod devices;
mod input;
mod partition;
mod repeats;
mod sample;
mod start;
mod tally;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use arrivals::RejectReasons;
use component::Silence;
pub use component::{Component, ComponentState};
pub(crate) use condition::listed;
pub use condition::{Condition, ConditionCode, ConditionSeverity};
pub use input::InputHealth;
pub use partition::PartitionStatus;
pub use sample::{Cut, EXCERPT, RejectedSample, RejectedSamples};
pub use tally::{Activity, EARLY_SECONDS, LATE_SECONDS, Tally};

/// All components of one process.
#[derive(Debug, Default)]
pub struct Health {
    components: Mutex<Vec<Arc<Component>>>,
}

impl Health {
    /// Adds a component, which is starting.
    pub fn component(&self, name: impl Into<String>) -> Arc<Component> {
        self.add(name.into(), Silence::Hangs)
    }

    /// Adds a component that others may block. A missing beat makes it degraded, but does not stop the watchdog.
    pub fn unwatched_component(&self, name: impl Into<String>) -> Arc<Component> {
        self.add(name.into(), Silence::Waits)
    }

    /// Adds a component without a loop, which only has conditions.
    pub fn untimed_component(&self, name: impl Into<String>) -> Arc<Component> {
        self.add(name.into(), Silence::Usual)
    }

    fn add(&self, name: String, silence: Silence) -> Arc<Component> {
        let component = Arc::new(Component::new(name, silence));
        self.lock().push(component.clone());
        component
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Component>>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all components of the process.
    pub fn components(&self) -> Vec<Arc<Component>> {
        self.lock().clone()
    }

    /// Returns whether every component has ended.
    pub fn is_over(&self) -> bool {
        let components = self.components();
        components
            .iter()
            .filter(|component| component.silence != Silence::Usual)
            .all(|component| component.state() == ComponentState::Stopped)
    }

    /// Returns whether all components serve.
    pub fn is_ready(&self) -> bool {
        let components = self.components();
        !components.is_empty() && components.iter().all(|component| component.state() == ComponentState::Running)
    }

    /// Returns the longest time since the last beat of a component.
    pub fn silence(&self) -> Duration {
        self.components()
            .iter()
            .filter(|component| component.silence == Silence::Hangs)
            .map(|component| component.since_beat())
            .max()
            .unwrap_or_default()
    }

    /// Returns whether a component does not serve and is not starting.
    pub fn is_degraded(&self) -> bool {
        self.components().iter().any(|component| matches!(component.state(), ComponentState::Degraded(_)))
    }

    /// Formats one line: the components that do not serve, otherwise the partitions and the lag.
    pub fn summary(&self) -> String {
        let components = self.components();
        if components.is_empty() {
            return "starting".into();
        }
        let mut troubles = Vec::new();
        for component in &components {
            match component.state() {
                ComponentState::Running | ComponentState::Stopped => {}
                ComponentState::Starting(what) => troubles.push((1, format!("{}: {what}", component.name))),
                ComponentState::Degraded(why) => troubles.push((0, format!("degraded: {}: {why}", component.name))),
            }
        }
        if !troubles.is_empty() {
            // Degraded ones first.
            troubles.sort_by_key(|(order, _)| *order);
            return troubles.into_iter().map(|(_, trouble)| trouble).collect::<Vec<_>>().join("; ");
        }
        let partitions =
            components.iter().flat_map(|component| component.partitions().into_values()).collect::<Vec<_>>();
        let notices = components
            .iter()
            .flat_map(|component| component.conditions())
            .map(|held| format!("; notice: {}", held.message));
        let notices = notices.collect::<String>();
        if partitions.is_empty() {
            return format!("running{notices}");
        }
        let lag = partitions.iter().filter_map(PartitionStatus::lag).sum::<i64>();
        let series = partitions.iter().map(|p| p.series).sum::<u64>();
        let unknown = partitions.iter().filter(|p| p.lag().is_none()).count();
        let unknown = if unknown > 0 { format!(" (not known of {unknown})") } else { String::new() };
        format!("running: {} partitions, lag {lag}{unknown}, {series} series{notices}", partitions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_degraded_loop_makes_the_process_unready_and_the_summary_has_the_reason() {
        let health = Health::default();
        assert_eq!((health.is_ready(), health.summary().as_str()), (false, "starting"));
        let (worker, sink) = (health.component("worker-0"), health.component("sink"));
        worker.set(ComponentState::Running);
        assert!(!health.is_ready());
        sink.set(ComponentState::Degraded("PostgreSQL is unreachable".into()));
        assert_eq!(health.summary(), "degraded: sink: PostgreSQL is unreachable");
        sink.set(ComponentState::Running);
        assert!(health.is_ready());
    }

    #[test]
    fn a_degrading_condition_makes_a_running_loop_unready_until_it_is_cleared_and_a_notice_is_only_shown() {
        let health = Health::default();
        let component = health.component("worker-0");
        component.set(ComponentState::Running);
        component.raise(ConditionCode::SplitSeries, ConditionSeverity::Notice, "one");
        assert!(health.is_ready());
        assert_eq!(health.summary(), "running; notice: one");
        component.raise(ConditionCode::OpenTransaction, ConditionSeverity::Degraded, "two");
        assert!(!health.is_ready());
        assert_eq!(health.summary(), "degraded: worker-0: two");
        let codes = component.conditions().iter().map(|held| held.code).collect::<Vec<_>>();
        assert_eq!(codes, [ConditionCode::OpenTransaction, ConditionCode::SplitSeries]);
        component.clear(ConditionCode::OpenTransaction);
        assert!(health.is_ready());
    }

    #[test]
    fn a_process_has_ended_when_its_loops_have_although_the_input_has_no_loop() {
        let health = Health::default();
        let (worker, _input) = (health.component("worker-0"), InputHealth::new(&health));
        assert!(!health.is_over());
        worker.set(ComponentState::Stopped);
        assert!(health.is_over());
    }

    #[test]
    fn a_loop_that_does_not_serve_is_a_condition() {
        let component = Health::default().component("sink");
        component.set(ComponentState::Degraded("PostgreSQL is unreachable".into()));
        assert_eq!(
            component.conditions().iter().map(|held| held.code).collect::<Vec<_>>(),
            [ConditionCode::NotServing]
        );
    }

    #[test]
    fn a_loop_that_failed_reports_the_failure_and_one_that_was_stopped_does_not() {
        let component = Health::default().component("worker-0");
        component.end(Some("raw_events was recreated".into()));
        let held = component.conditions().into_iter().map(|held| (held.code, held.message)).collect::<Vec<_>>();
        assert_eq!(held, [(ConditionCode::NotServing, "raw_events was recreated".to_owned())]);
        component.end(None);
        assert_eq!(component.conditions(), []);
    }

    #[test]
    fn taken_coverage_can_be_given_back_without_loss() {
        let component = Health::default().component("w");
        let one = Tally { judged: 1, ..Tally::default() };
        component.cover([((7, 0), one)]);
        let taken = component.take_coverage();
        component.cover([((7, 0), one)]);
        component.cover(taken);
        assert_eq!(component.take_coverage()[&(7, 0)].judged, 2);
    }
}
