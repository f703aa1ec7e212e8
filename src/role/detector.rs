//! The detector: starts the workers, the sink into PostgreSQL, and the heartbeat.

mod clients;
mod instance;
mod memory;
mod upkeep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::anomaly::Anomaly;
use crate::config::Settings;
use crate::detect::{Detector, hex};
use crate::error::{Error, Result};
use crate::foreign;
use crate::health::{Component, ComponentState, ConditionCode, ConditionSeverity, InputHealth, listed};
use crate::series::{BudgetShare, SeriesBudget};
use crate::service::limit::LogRateLimit;
use crate::store::heartbeat::{Heartbeat, HeartbeatError};
use crate::store::ledger::PostgresLedger;
use crate::stream::client::{Fault, Remedy};
use crate::stream::kafka::{KafkaGroupConsumer, KafkaOwnerObserver, KafkaTransactionalClient, MemberNames};
use crate::stream::sink::{self, Sink};
use crate::stream::unassigned::VainRebalances;
use crate::stream::worker::{CommitObserver, Worker, WorkerEnding};
pub use clients::{check_state, names_for_check};
pub(crate) use clients::{client_for_check, client_for_offsets, client_for_sink_offsets};
use instance::{instance, names};
use upkeep::Upkeep;

/// Interval between two heartbeats of the detector.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pause before everything is rebuilt after a fault.
const REBUILD_PAUSE: Duration = Duration::from_millis(500);

/// Callback for every committed anomaly.
pub type Announce = Arc<dyn Fn(&Anomaly) + Send + Sync>;

/// Logs each anomaly as one line with fields, up to the configured rate.
pub fn announce_in_log(settings: &Settings) -> Announce {
    let limit = LogRateLimit::new(settings.log.anomalies_per_second);
    Arc::new(move |a| {
        let Some(left_out) = limit.pass(Instant::now()) else { return };
        if left_out > 0 {
            tracing::warn!(left_out, "anomalies were not logged; log.anomalies_per_second limits them");
        }
        let timestamp = a.timestamp.map(|at| at.to_string()).unwrap_or_default();
        tracing::info!(
            device_id = a.device_id,
            metric_name = a.metric_name.as_deref().unwrap_or_default(),
            metric_value = a.metric_value,
            event_time = timestamp,
            mean = a.mean,
            std_dev = a.std_dev,
            z_score = a.z_score,
            severity = a.severity.as_str(),
            kind = a.kind,
            source_topic = a.source.topic,
            source_generation = a.source.generation,
            source_partition = a.source.partition,
            source_offset = a.source.offset,
            source_index = a.source.index,
            "{}",
            describe(a)
        );
    })
}

/// Describes an anomaly in one line.
pub fn describe(a: &Anomaly) -> String {
    let metric = foreign::name(a.metric_name.as_deref().unwrap_or("value"));
    let distance = match a.z_score {
        Some(z) => format!(" ({z:+.1} sigma)"),
        None if a.std_dev == Some(0.0) => " (constant until now)".to_owned(),
        None => String::new(),
    };
    format!(
        "{} {} {metric} {} is outside {:.4} .. {:.4}{distance}",
        a.severity.as_str(),
        foreign::name(&a.device_id),
        a.metric_value,
        a.lower,
        a.upper
    )
}

/// Starts the threads of workers, sink and heartbeat in the supervisor.
///
/// # Errors
/// 78 if librdkafka refuses the settings.
pub fn start(supervisor: &mut Supervisor, settings: &Settings, announce: Announce) -> Result<()> {
    let detector = &settings.detector;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = if detector.workers == 0 { cores } else { detector.workers };
    let instance = instance(settings)?;
    let input = InputHealth::new(&supervisor.health);
    let budget = memory::budget(detector.max_memory, workers);
    for index in 0..workers {
        let mut worker_thread = WorkerThread::new(supervisor, settings, &instance, index, input.clone());
        worker_thread.budget.clone_from(&budget);
        let announce = announce.clone();
        supervisor.spawn(&format!("worker-{index}"), move || {
            let ended = worker_thread.work(&announce);
            worker_thread.component.end(failure(&ended));
            ended
        })?;
    }
    if settings.sink.enabled {
        start_sink(supervisor, settings, &instance)?;
    } else {
        report_disabled_sink(supervisor, settings);
    }
    start_heartbeat(supervisor, settings, &instance)
}

/// Everything that a worker needs to start and restart.
struct WorkerThread {
    settings: Settings,
    names: MemberNames,
    component: Arc<Component>,
    input: Arc<InputHealth>,
    meter: crate::meter::Meter,
    rebalances: VainRebalances,
    stop: Arc<crate::stop::Stop>,
    /// Memory for the series of all workers.
    budget: Option<Arc<SeriesBudget>>,
}

impl WorkerThread {
    fn new(
        supervisor: &Supervisor,
        settings: &Settings,
        instance: &str,
        index: usize,
        input: Arc<InputHealth>,
    ) -> Self {
        WorkerThread {
            settings: settings.clone(),
            names: names(settings, instance, index),
            component: supervisor.health.component(format!("worker-{index}")),
            input,
            meter: supervisor.meter.clone(),
            rebalances: VainRebalances::default(),
            stop: supervisor.stop.clone(),
            budget: None,
        }
    }

    /// Works until the stop; rebuilds everything after faults that require it.
    fn work(&self, announce: &Announce) -> Result<()> {
        let announce = announce.clone();
        let mut observer: CommitObserver = Box::new(move |batch| batch.iter().for_each(|anomaly| announce(anomaly)));
        let detector = &self.settings.detector;
        loop {
            let (kafka, names) = (&self.settings.kafka, self.names.clone());
            let log = KafkaTransactionalClient::new(kafka, names, detector.delivery, detector.session_timeout);
            let Some(log) = created(log, &self.component)? else {
                if self.stop.wait(REBUILD_PAUSE) {
                    return Ok(());
                }
                continue;
            };
            let windows = Detector::new(self.settings.detection())
                .ok_or_else(|| Error::config(format_args!("detector.method `{}` is unknown", detector.method)))?;
            let (components, meter) = ((self.component.clone(), self.input.clone()), self.meter.clone());
            let worker = Worker::new(log, windows, &self.settings, components, meter, &mut observer, &self.stop);
            let worker = worker.within(BudgetShare::new(self.budget.clone()));
            match worker.counting(self.rebalances.clone()).run() {
                WorkerEnding::Stopped => return Ok(()),
                WorkerEnding::Failed(error) => return Err(error),
                WorkerEnding::Replaced => {
                    let MemberNames { group, member, .. } = &self.names;
                    return Err(Error::config(format_args!(
                        "another detector has joined group {group} as {member}, with the same detector.instance; this one \
                         stops. Set a different detector.instance for each detector"
                    )));
                }
                WorkerEnding::Rebuild(why) => {
                    self.component.set_partitions(std::collections::BTreeMap::new());
                    self.component.set(ComponentState::Degraded(format!("restarting: {why}")));
                    if self.stop.wait(REBUILD_PAUSE) {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Returns a new client; `None` with a report if the system has too few resources for it now.
fn created<C>(client: Result<C, Fault>, component: &Component) -> Result<Option<C>> {
    match client {
        Ok(client) => Ok(Some(client)),
        Err(fault) if fault.remedy == Remedy::Retry => {
            component.set(ComponentState::Degraded(fault.message));
            Ok(None)
        }
        Err(fault) if fault.remedy == Remedy::Stop => Err(Error::config(fault)),
        Err(fault) => Err(Error::internal(fault)),
    }
}

/// Returns the error that ended a loop, for its last report.
fn failure(ended: &Result<()>) -> Option<String> {
    ended.as_ref().err().map(|error| foreign::line(&error.message).to_string())
}

/// Reports that no sink runs. It is a choice, but the pages must not look as if they had all anomalies.
fn report_disabled_sink(supervisor: &Supervisor, settings: &Settings) {
    let component = supervisor.health.untimed_component("sink");
    component.set(ComponentState::Running);
    component.raise(
        ConditionCode::SinkDisabled,
        ConditionSeverity::Notice,
        format!(
            "sink.enabled is false: this detector stores no anomaly of {} in the database",
            settings.topics.anomalies
        ),
    );
}

fn start_sink(supervisor: &mut Supervisor, settings: &Settings, instance: &str) -> Result<()> {
    let (settings, member) = (settings.clone(), format!("{instance}-sink"));
    // PostgreSQL may block it for any time, which must not end the detector.
    let (component, meter, stop) =
        (supervisor.health.unwatched_component("sink"), supervisor.meter.clone(), supervisor.stop.clone());
    let copy = move |component: &Arc<Component>| {
        let (topic, group) = (&settings.topics.anomalies, &settings.sink.group);
        let (session, rebalances) = (settings.detector.session_timeout, VainRebalances::default());
        loop {
            let reader = KafkaGroupConsumer::new(&settings.kafka, topic, group, &member, session);
            let Some(reader) = created(reader, component)? else {
                if stop.wait(REBUILD_PAUSE) {
                    return Ok(());
                }
                continue;
            };
            let ledger = PostgresLedger::new(&settings.postgres, group, topic);
            let sink = Sink::new(reader, &settings, Box::new(ledger), component.clone(), meter.clone(), &stop);
            let observer = KafkaOwnerObserver::new(&settings.kafka, topic, group, &member);
            match sink.observing(observer, rebalances.clone()).run() {
                sink::SinkEnding::Stopped => return Ok(()),
                sink::SinkEnding::Rebuild(why) => component.set(ComponentState::Degraded(format!("restarting: {why}"))),
            }
            if stop.wait(REBUILD_PAUSE) {
                return Ok(());
            }
        }
    };
    supervisor.spawn("sink", move || {
        let ended = copy(&component);
        component.end(failure(&ended));
        ended
    })
}

fn start_heartbeat(supervisor: &mut Supervisor, settings: &Settings, instance: &str) -> Result<()> {
    let hash = hex(&settings.detection().fingerprint());
    let (group, topic) = (&settings.detector.group, &settings.topics.raw_events);
    let policy = serde_json::Value::Object(settings.policy().values());
    let mut heartbeat = Heartbeat::new(&settings.postgres, group, topic, instance, (&hash, policy));
    let topic = topic.clone();
    let (health, stop, drain) = (supervisor.health.clone(), supervisor.stop.clone(), settings.service.drain_timeout);
    // PostgreSQL may block it for any time, like the sink.
    let component = supervisor.health.unwatched_component("heartbeat");
    let mut upkeep = Upkeep::new(&settings.postgres, component.clone());
    supervisor.spawn("heartbeat", move || {
        component.set(ComponentState::Running);
        loop {
            let is_last = stop.wait(HEARTBEAT);
            if is_last {
                // The last heartbeat must contain the last commits.
                component.set(ComponentState::Stopped);
                while !health.is_over() && stop.elapsed().is_some_and(|elapsed| elapsed < drain) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            let others =
                health.components().into_iter().filter(|other| !Arc::ptr_eq(other, &component)).collect::<Vec<_>>();
            let mut written = heartbeat.write(&others);
            if !matches!(written, Err(HeartbeatError::NoConnection(_))) {
                // This one comes last: a heartbeat that arrives cannot say that none can be written.
                if !is_last {
                    component.set(heartbeat_state(&written));
                }
                written = written.and(heartbeat.write(std::slice::from_ref(&component)));
            }
            if is_last {
                return Ok(());
            }
            if !matches!(written, Err(HeartbeatError::NoConnection(_))) {
                match heartbeat.other_groups() {
                    Ok(groups) => report_other_groups(&component, &groups, &topic),
                    Err(error) => tracing::debug!(%error, "cannot look for detectors of other groups"),
                }
                upkeep.run();
            }
            component.set(heartbeat_state(&written));
        }
    })
}

fn heartbeat_state(written: &Result<(), HeartbeatError>) -> ComponentState {
    written.as_ref().map_or_else(|e| ComponentState::Degraded(e.to_string()), |()| ComponentState::Running)
}

/// Reports detectors of other groups that write about the same topic into the same tables. The tables then add up the
/// counts of all groups.
fn report_other_groups(component: &Component, groups: &[String], topic: &str) {
    let message = (!groups.is_empty()).then(|| {
        let names = groups.iter().map(|name| foreign::name(name).to_string()).collect::<Vec<_>>();
        let message = format!(
            "detectors of other groups ({}) report on {topic} into the same tables, so that each event counts once for \
             each group. Give all detectors one detector.group, or each group its own postgres.schema",
            listed(&names)
        );
        (ConditionSeverity::Notice, message)
    });
    component.set_condition(ConditionCode::SeveralGroups, message);
}
