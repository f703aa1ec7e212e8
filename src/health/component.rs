//! The reports of one component: its state and beat, its conditions, and what it counted until the heartbeat takes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Monotonic};

use super::condition::{Condition, ConditionCode, ConditionSeverity, Conditions};
use super::devices::SeenDevices;
use super::partition::PartitionStatus;
use super::repeats::{RepeatedLines, Repeats};
use super::sample::RejectedSamples;
use super::tally::{Activity, Tally};
use crate::event::Timestamp;

/// A component that others may block is degraded after this time without a beat.
const BEAT_TIMEOUT: Duration = Duration::from_secs(20);
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
pub(super) enum Silence {
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
    /// Meaning of a missing beat.
    pub(super) silence: Silence,
    inner: Mutex<ComponentRecords>,
}

#[derive(Debug)]
pub(super) struct ComponentRecords {
    state: ComponentState,
    beat: Monotonic,
    partitions: BTreeMap<i32, PartitionStatus>,
    coverage: BTreeMap<(i64, i32), Tally>,
    activity: BTreeMap<(i64, i32), Activity>,
    rejected: RejectedSamples,
    devices: SeenDevices,
    pub(super) conditions: Conditions,
    /// The error that ended the component.
    failure: Option<String>,
    /// When progress was logged last.
    progress_logged: Option<Monotonic>,
    repeats: Repeats,
    lines: RepeatedLines,
}

impl Component {
    /// Creates a component, which is starting.
    pub(super) fn new(name: String, silence: Silence) -> Component {
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
        Component { name, silence, inner: Mutex::new(inner) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ComponentRecords> {
        // A panic in another thread must not hide the last known state.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that the loop has made progress.
    pub fn beat(&self) {
        self.lock().beat = Monotonic::now();
    }

    /// Returns the time since the last beat.
    pub(super) fn since_beat(&self) -> Duration {
        self.lock().beat.elapsed()
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
        if self.silence == Silence::Waits && silence > BEAT_TIMEOUT && inner.state != ComponentState::Stopped {
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
