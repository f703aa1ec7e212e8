//! The state that the components of a process report: state, beat, partitions and conditions. The status line,
//! `/readyz`, the metrics and the heartbeat in the database read it. This room only stores the reports.

mod arrivals;
mod condition;
mod deleted;
mod devices;
mod input;
mod partition;
mod repeats;
mod sample;
mod start;
mod tally;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Monotonic};

use crate::event::Timestamp;
pub use arrivals::RejectReasons;
use condition::Conditions;
pub(crate) use condition::listed;
pub use condition::{Condition, ConditionCode, ConditionSeverity};
use devices::SeenDevices;
pub use input::InputHealth;
pub use partition::PartitionStatus;
use repeats::{RepeatedLines, Repeats};
pub use sample::{Cut, EXCERPT, RejectedSample, RejectedSamples};
pub use tally::{Activity, EARLY, LATE, Tally};

/// A component that others may block is degraded after this time without a beat.
const UNANSWERED: Duration = Duration::from_secs(20);
/// Minimum time between two log lines about progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// State of a component, as it last reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentState {
    /// It does not serve yet.
    Starting(String),
    /// It serves, unless a condition says otherwise.
    Running,
    /// It does not serve, for this reason, and continues to try.
    Degraded(String),
    /// It has ended as requested.
    Stopped,
}

impl ComponentState {
    /// Formats the state as one line.
    pub fn describe(&self) -> &str {
        match self {
            ComponentState::Running => "running",
            ComponentState::Stopped => "stopped",
            ComponentState::Starting(what) | ComponentState::Degraded(what) => what,
        }
    }
}

/// Meaning of a missing beat of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// The process hangs, so the watchdog ends it.
    Hangs,
    /// Another service does not answer: the component is degraded.
    Waits,
    /// It has no meaning: the component has no loop.
    Usual,
}

/// A component of a process, usually a working loop.
#[derive(Debug)]
pub struct Component {
    /// Name, unique in the process: `worker-0`, `sink`, …
    pub name: String,
    silence: Silence,
    inner: Mutex<ComponentRecords>,
}

#[derive(Debug)]
struct ComponentRecords {
    state: ComponentState,
    beat: Monotonic,
    partitions: BTreeMap<i32, PartitionStatus>,
    coverage: BTreeMap<(i64, i32), Tally>,
    activity: BTreeMap<(i64, i32), Activity>,
    rejected: RejectedSamples,
    devices: SeenDevices,
    conditions: Conditions,
    /// The error that ended the component.
    failure: Option<String>,
    /// When progress was logged last.
    progress_logged: Option<Monotonic>,
    repeats: Repeats,
    lines: RepeatedLines,
}

impl Component {
    fn lock(&self) -> MutexGuard<'_, ComponentRecords> {
        // A panic in another thread must not hide the last known state.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that the loop has made progress.
    pub fn beat(&self) {
        self.lock().beat = Monotonic::now();
    }

    /// Sets the state, and logs a change once.
    pub fn set(&self, state: ComponentState) {
        let mut inner = self.lock();
        inner.beat = Monotonic::now();
        if inner.state == state {
            return;
        }
        let was_degraded = matches!(inner.state, ComponentState::Degraded(_));
        match &state {
            state if !inner.repeats.is_news(state) => {}
            ComponentState::Degraded(why) => tracing::warn!(component = self.name, "degraded: {why}"),
            ComponentState::Running if was_degraded => tracing::info!(component = self.name, "recovered"),
            other => tracing::info!(component = self.name, "{}", other.describe()),
        }
        inner.state = state;
    }

    /// Reports the end of the loop, with the reason if it failed. Only the last report contains the reason; the code
    /// that handles the error logs it.
    pub fn end(&self, failure: Option<String>) {
        self.lock().failure = failure;
        self.set(ComponentState::Stopped);
    }

    /// Reports progress while starting; logs it only at intervals.
    pub fn progress(&self, what: String) {
        let mut inner = self.lock();
        inner.beat = Monotonic::now();
        if inner.progress_logged.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            tracing::info!(component = self.name, "{what}");
            inner.progress_logged = Some(Monotonic::now());
        }
        inner.state = ComponentState::Starting(what);
    }

    /// Returns the current state, in which conditions and missing beats count.
    pub fn state(&self) -> ComponentState {
        let inner = self.lock();
        let silence = inner.beat.elapsed();
        if self.silence == Silence::Waits && silence > UNANSWERED && inner.state != ComponentState::Stopped {
            return ComponentState::Degraded(format!("no answer for {} s", silence.as_secs()));
        }
        if inner.state == ComponentState::Running {
            let degrading =
                inner.conditions.list().into_iter().filter(|held| held.severity == ConditionSeverity::Degraded);
            let messages = degrading.map(|held| held.message).collect::<Vec<_>>();
            if !messages.is_empty() {
                return ComponentState::Degraded(messages.join("; "));
            }
        }
        inner.state.clone()
    }

    /// Returns whether to log a line of this name, which each attempt of the loop would log: at most once a minute.
    pub fn is_due(&self, line: &str) -> bool {
        self.lock().lines.is_due(line)
    }

    /// Raises a condition, or changes its message. It is active until it is cleared.
    pub fn raise(&self, code: ConditionCode, severity: ConditionSeverity, message: impl Into<String>) {
        let message = message.into();
        self.lock().conditions.raise(&self.name, code, severity, message);
    }

    /// Clears a condition, if it is active.
    pub fn clear(&self, code: ConditionCode) {
        self.lock().conditions.clear(&self.name, code);
    }

    /// Raises or clears a condition.
    pub fn set_condition(&self, code: ConditionCode, held: Option<(ConditionSeverity, String)>) {
        match held {
            Some((severity, message)) => self.raise(code, severity, message),
            None => self.clear(code),
        }
    }

    /// Returns the active conditions, degrading ones first. A component that does not serve is one of them.
    pub fn conditions(&self) -> Vec<Condition> {
        let state = self.state();
        let inner = self.lock();
        let mut all = inner.conditions.list();
        let reason = match state {
            ComponentState::Degraded(message) if inner.state != ComponentState::Running || all.is_empty() => {
                Some(message)
            }
            ComponentState::Stopped => inner.failure.clone(),
            _ => None,
        };
        if let Some(message) = reason {
            all.insert(
                0,
                Condition {
                    code: ConditionCode::NotServing,
                    severity: ConditionSeverity::Degraded,
                    message,
                    since: Timestamp::now(),
                },
            );
        }
        all
    }

    /// Replaces the status of all partitions.
    pub fn set_partitions(&self, partitions: BTreeMap<i32, PartitionStatus>) {
        self.lock().partitions = partitions;
    }

    /// Returns the status of the partitions.
    pub fn partitions(&self) -> BTreeMap<i32, PartitionStatus> {
        self.lock().partitions.clone()
    }

    /// Adds outcomes for a minute of event time (since the epoch) and a partition.
    pub fn cover(&self, counts: impl IntoIterator<Item = ((i64, i32), Tally)>) {
        let mut inner = self.lock();
        for (place, tally) in counts {
            *inner.coverage.entry(place).or_default() += tally;
        }
    }

    /// Adds arrivals for a minute of this machine's clock (since the epoch) and a partition.
    pub fn note_activity(&self, counts: impl IntoIterator<Item = ((i64, i32), Activity)>) {
        let mut inner = self.lock();
        for (place, activity) in counts {
            *inner.activity.entry(place).or_default() += activity;
        }
    }

    /// Takes the arrivals since the last call.
    pub fn take_activity(&self) -> BTreeMap<(i64, i32), Activity> {
        std::mem::take(&mut self.lock().activity)
    }

    /// Stores samples of rejected records until they are taken.
    pub fn note_rejected(&self, samples: RejectedSamples) {
        self.lock().rejected.extend(samples);
    }

    /// Notes devices of this worker.
    pub fn note_devices<'d>(&self, names: impl IntoIterator<Item = &'d str>) {
        let now = Timestamp::now().millis();
        let mut inner = self.lock();
        names.into_iter().for_each(|name| inner.devices.note(name, now));
    }

    /// Takes some of the noted devices.
    pub fn take_devices(&self) -> Vec<String> {
        self.lock().devices.take()
    }

    /// Notes that devices could not be stored, so that they are noted again.
    pub fn forget_devices(&self) {
        self.lock().devices.forget();
    }

    /// Adds samples that could not be stored; newer ones have priority.
    pub fn give_back_rejected(&self, samples: RejectedSamples) {
        let mut inner = self.lock();
        let newer = std::mem::replace(&mut inner.rejected, samples);
        inner.rejected.extend(newer);
    }

    /// Takes the samples since the last call.
    pub fn take_rejected(&self) -> RejectedSamples {
        std::mem::take(&mut self.lock().rejected)
    }

    /// Takes the outcomes since the last call.
    pub fn take_coverage(&self) -> BTreeMap<(i64, i32), Tally> {
        std::mem::take(&mut self.lock().coverage)
    }
}

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
        let inner = ComponentRecords {
            state: ComponentState::Starting("starting".into()),
            beat: Monotonic::now(),
            partitions: BTreeMap::new(),
            coverage: BTreeMap::new(),
            activity: BTreeMap::new(),
            rejected: RejectedSamples::default(),
            devices: SeenDevices::default(),
            conditions: Conditions::default(),
            failure: None,
            progress_logged: None,
            repeats: Repeats::default(),
            lines: RepeatedLines::default(),
        };
        let component = Arc::new(Component { name, silence, inner: Mutex::new(inner) });
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
            .map(|component| component.lock().beat.elapsed())
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
