//! One schedule: input that comes all the while, workers and sinks that start, stop, are killed and paused, a database that
//! is unreachable, topics that are compacted and trimmed; then quiet, in which everything that came must get its outcome.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::cluster::{Fate, SimulatedCluster, SimulatedTopic};
use super::consumer::SimulatedConsumer;
use super::database::SimulatedConnection;
use super::director::{self, Director, LAST_SINK};
use super::member::SimulatedClient;
use super::stage::Scheduler;
use crate::config::resolved::{OnReject, Settings, StartPosition};
use crate::detect::{DetectionSettings, Detector};
use crate::health::{ComponentState, ConditionCode, Health, InputHealth};
use crate::meter::Meter;
use crate::policy::{Policy, PolicyOverride};
use crate::series::SeriesLimits;
use crate::stop::Stop;
use crate::stream::sink::{self, Sink};
use crate::stream::worker::{CommitObserver, Worker, WorkerEnding};

/// A wrong log, to try the checker with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    Loss,
    Duplicate,
    Reorder,
    Amnesia,
    LostRow,
    LostOffset,
}

/// Values that an anomaly carries.
pub(crate) const CONTEXT: usize = 12;

/// What a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessKind {
    Worker,
    Sink,
}

/// Everything that is not the course of events itself.
pub(super) struct Schedule {
    seed: u64,
    defect: Option<Defect>,
    pub steps: u32,
    faults: f64,
    pub partitions: i32,
    /// Each process has one of these, and changes to another one are recorded.
    pub policies: Vec<Policy>,
    /// Each process has one of these.
    pub bounds: Vec<SeriesLimits>,
    /// A device whose clock is wrong, and the time of its records; `None`: microseconds.
    pub wrong_device: i32,
    pub wrong_time: Option<i64>,
    /// The keys of devices decide their partitions; otherwise each device sends to all partitions.
    pub routes_by_key: bool,
    pub config: Settings,
    snapshot_bytes: usize,
}

impl Schedule {
    pub(super) fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x5EED);
        let mut policies = vec![policy(&mut random), policy(&mut random)];
        let mut bounds = || SeriesLimits {
            max_series: if random.random_bool(0.3) { random.random_range(1..7) } else { 1_000 },
            idle_after: random.random_bool(0.5).then_some(600),
        };
        let mut bounds = vec![bounds(), bounds()];
        // Changed settings, as processes are restarted one after the other.
        bounds.truncate(random.random_range(1..=2));
        policies.truncate(random.random_range(1..=2));
        let wrong_device = random.random_range(0..16);
        // 1970, the year 2200, and microseconds.
        let wrong_time = [Some(0), Some(7_258_118_400_000), None][random.random_range(0..3usize)];
        let routes_by_key = random.random_bool(0.5);
        let mut config = Settings::default();
        config.detector.snapshot_interval = Duration::from_millis(random.random_range(20..2_000));
        let snapshot_bytes = random.random_range(100..2_000);
        config.detector.on_reject = if random.random_bool(0.8) { OnReject::DeadLetter } else { OnReject::Drop };
        config.detector.start = StartPosition::Earliest;
        config.detector.history = if random.random_bool(0.5) { 0 } else { 1_000_000 };
        config.detector.commit_events = random.random_range(3..60);
        config.detector.stop_leaves = random.random_bool(0.5);
        if random.random_bool(0.5) {
            config.fields = director::array_fields(random.random_bool(0.5));
        }
        let faults = [0.0, 0.01, 0.03, 0.1][random.random_range(0..4usize)];
        let (steps, partitions) = (random.random_range(150..500), random.random_range(1..4));
        config.sink.batch = random.random_range(1..20);
        Schedule {
            seed,
            defect,
            steps,
            faults,
            partitions,
            policies,
            bounds,
            wrong_device,
            wrong_time,
            routes_by_key,
            config,
            snapshot_bytes,
        }
    }
}

/// Half of them with overrides: both methods, windows of several lengths, an excluded device.
fn policy(random: &mut Xoshiro256PlusPlus) -> Policy {
    let methods = ["sigma", "ewma"];
    let method = random.random_range(0..2usize);
    let mut policy = Policy {
        window: random.random_range(4..12),
        min_samples: 3,
        threshold: 2.0,
        method: methods[method].into(),
        ..Policy::default()
    };
    if random.random_bool(0.5) {
        let on = |device: &str| PolicyOverride { device: Some(device.into()), ..PolicyOverride::default() };
        policy.overrides = vec![
            PolicyOverride { threshold: Some(1.5), window: Some(random.random_range(3..9)), ..on("d?") },
            PolicyOverride { method: Some(methods[1 - method].into()), min_samples: Some(2), ..on("d*1") },
            PolicyOverride { window: Some(random.random_range(3..16)), ..on("d1*") },
            PolicyOverride { enabled: Some(false), ..on(&format!("d{}", random.random_range(0..6))) },
        ];
    }
    policy
}

/// What is left at the end.
pub(crate) struct ScheduleOutcome {
    pub policies: Vec<Policy>,
    pub bounds: Vec<SeriesLimits>,
    pub config: Settings,
    pub cluster: SimulatedCluster,
    pub trace: u64,
    /// Of processes that ended otherwise than they may; or that nothing went on.
    pub failures: Vec<String>,
    pub totals: Totals,
}

/// How varied a run was.
#[derive(Debug, Default, Clone)]
pub(super) struct Totals {
    events: u64,
    anomalies: u64,
    kills: u64,
    pauses: u64,
    strikes: u64,
    aborted: u64,
    rebuilt: u64,
    generations: u64,
    sweeps: u64,
    evictions: u64,
    idle: u64,
    tombstones: u64,
    trimmed: u64,
    /// Records of transactions that stayed open for a while, and were committed.
    opened: u64,
    /// Commits of another program.
    foreign: u64,
    rows: u64,
    sink_generations: u64,
    refused: u64,
    moved: u64,
    restored: u64,
    /// Partitions that were added while members ran.
    grown: u64,
    /// Those of them that the group knew as added when it took them.
    added: u64,
    /// Changes of the policy, and records of excluded series.
    changes: u64,
    excluded: u64,
}

impl Totals {
    pub(super) fn add(&mut self, outcome: &ScheduleOutcome) {
        let other = &outcome.totals;
        self.events += other.events;
        self.anomalies += other.anomalies;
        self.kills += other.kills;
        self.pauses += other.pauses;
        self.strikes += other.strikes;
        self.aborted += other.aborted;
        self.rebuilt += other.rebuilt;
        self.generations += other.generations;
        self.sweeps += other.sweeps;
        self.evictions += other.evictions;
        self.idle += other.idle;
        self.tombstones += other.tombstones;
        self.trimmed += other.trimmed;
        self.opened += other.opened;
        self.foreign += other.foreign;
        self.rows += other.rows;
        self.sink_generations += other.sink_generations;
        self.refused += other.refused;
        self.moved += other.moved;
        self.restored += other.restored;
        self.grown += other.grown;
        self.added += other.added;
        self.changes += other.changes;
        self.excluded += other.excluded;
    }

    pub(super) fn assert_varied(&self) {
        let all = [
            self.anomalies,
            self.kills,
            self.pauses,
            self.aborted,
            self.rebuilt,
            self.generations,
            self.sweeps,
            self.evictions,
            self.idle,
            self.tombstones,
            self.trimmed,
            self.opened,
            self.rows,
            self.sink_generations,
            self.refused,
            5 * self.moved,
            5 * self.foreign,
            5 * self.restored,
            self.grown,
            self.added,
            self.changes,
            self.excluded,
        ];
        assert!(all.iter().all(|n| *n > 500), "{self:?}");
    }
}

/// Plays it to the end.
pub(super) fn play(schedule: &Schedule) -> ScheduleOutcome {
    let stage = Arc::new(Scheduler::new(schedule.seed, SimulatedCluster::new(schedule.partitions), schedule.faults));
    stage.enter_first();
    let (meter, failures) = (Meter::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let spawn = |actor: usize, part: ProcessKind, name: &'static str, stop: Arc<Stop>| {
            let (stage, meter, failures) = (stage.clone(), meter.clone(), &failures);
            scope.spawn(move || {
                stage.enter(actor);
                let process = Process { stage: &stage, schedule, actor, name, stop: &stop, meter: &meter };
                let run = || match part {
                    ProcessKind::Worker => work(&process),
                    ProcessKind::Sink => carry(&process),
                };
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                if let Some(why) = ended.unwrap_or_else(|_| Some(format!("{name} panicked"))) {
                    failures.lock().unwrap().push(why);
                }
                stage.exit(actor);
            });
        };
        if let Err(why) = Director::new(&stage, schedule, &spawn).direct() {
            failures.lock().unwrap().push(why);
            let mut inner = stage.look();
            (1..inner.actors.len()).for_each(|actor| inner.kill(actor));
        }
        stage.exit(0);
    });
    let mut inner = Arc::into_inner(stage).expect("every actor has left").into_inner();
    let totals = Totals {
        kills: inner.kills,
        pauses: inner.pauses,
        strikes: inner.strikes,
        aborted: meter.transactions.get("aborted"),
        rebuilt: meter.transactions.get("rebuilt"),
        idle: meter.evictions.get("idle"),
        generations: u64::from(inner.cluster.group.generation),
        rows: inner.cluster.database.rows.len() as u64,
        sink_generations: u64::from(inner.cluster.sinks.generation),
        refused: inner.cluster.database.refused,
        moved: inner.cluster.database.moved,
        foreign: inner.cluster.transactions.passed_by.len() as u64,
        restored: inner.cluster.database.restored,
        grown: (inner.cluster.partitions - schedule.partitions) as u64,
        added: inner.cluster.transactions.added.len() as u64,
        excluded: inner.cluster.transactions.offsets.values().map(|mark| mark.counts.excluded).sum(),
        changes: inner.cluster.epochs().values().map(|epochs| epochs.len() as u64 - 1).sum(),
        ..count(&mut inner.cluster)
    };
    ScheduleOutcome {
        policies: schedule.policies.clone(),
        bounds: schedule.bounds.clone(),
        config: schedule.config.clone(),
        trace: inner.trace,
        failures: failures.into_inner().unwrap(),
        cluster: inner.cluster,
        totals,
    }
}

/// Of what is in the topics.
fn count(cluster: &mut SimulatedCluster) -> Totals {
    let mut totals = Totals::default();
    for ((topic, _), partition) in &cluster.topics {
        // What was compacted away was there.
        let all = partition.entries.iter().filter(|entry| entry.fate != Fate::Aborted);
        for entry in all {
            match topic {
                SimulatedTopic::Input => {
                    totals.events += 1;
                    totals.opened += u64::from(!entry.owner.is_empty());
                }
                SimulatedTopic::Anomalies => totals.anomalies += u64::from(entry.fate == Fate::Committed),
                SimulatedTopic::State if entry.key.as_deref() == Some(b"f") => totals.sweeps += 1,
                SimulatedTopic::State if entry.key.is_some() && entry.value.is_none() => totals.tombstones += 1,
                // Content 1, see series::snapshot.
                SimulatedTopic::State => {
                    totals.evictions += u64::from(entry.value.as_ref().is_some_and(|value| value.get(5) == Some(&1)));
                }
                SimulatedTopic::DeadLetters => {}
            }
        }
        totals.trimmed += if *topic == SimulatedTopic::Input { partition.start as u64 } else { 0 };
    }
    totals
}

/// Where and as whom a process runs.
struct Process<'p> {
    stage: &'p Arc<Scheduler>,
    schedule: &'p Schedule,
    actor: usize,
    name: &'static str,
    stop: &'p Stop,
    meter: &'p Meter,
}

/// A process with one worker, as the role runs it; what it says when it ends otherwise than it may.
fn work(process: &Process<'_>) -> Option<String> {
    let Process { stage, schedule, actor, name, stop, meter } = *process;
    let health = Health::default();
    let input = InputHealth::new(&health);
    let mut observer: CommitObserver = Box::new(|_| ());
    loop {
        let log = SimulatedClient::new(stage.clone(), actor, name, schedule.defect);
        let SeriesLimits { max_series, idle_after } = schedule.bounds[actor % schedule.bounds.len()];
        let policy = schedule.policies[actor % schedule.policies.len()].clone();
        let detector = Detector::new(DetectionSettings { policy, context: CONTEXT, max_series, idle_after });
        let detector = detector.expect("methods");
        let part = health.component(name);
        let parts = (part.clone(), input.clone());
        let worker = Worker::new(log, detector, &schedule.config, parts, meter.clone(), &mut observer, stop);
        let ending = worker.with_snapshot_bytes(schedule.snapshot_bytes).run();
        if let Some(condition) =
            part.conditions().iter().find(|condition| condition.code == ConditionCode::ReplayShortfall)
        {
            return Some(format!("{name} missed records that are there: {}", condition.message));
        }
        match ending {
            WorkerEnding::Stopped => return None,
            WorkerEnding::Replaced => {
                let inner = stage.look();
                let is_nobody = inner.cluster.group.members.get(name).is_some_and(|seat| seat.actor == actor);
                return is_nobody.then(|| format!("{name} gave way to nobody"));
            }
            WorkerEnding::Failed(error) => return Some(format!("{name} failed: {error}")),
            WorkerEnding::Rebuild(_) if stage.look().actors[actor].is_killed => return None,
            WorkerEnding::Rebuild(why) => begin_anew(stage, actor, why),
        }
    }
}

/// A process with a sink, likewise.
fn carry(process: &Process<'_>) -> Option<String> {
    let Process { stage, schedule, actor, name, stop, meter } = *process;
    let part = Health::default().component(name);
    loop {
        let reader = SimulatedConsumer::new(stage.clone(), actor, name, SimulatedTopic::Anomalies);
        let ledger = SimulatedConnection { stage: stage.clone(), me: actor, defect: schedule.defect };
        let sink = Sink::new(reader, &schedule.config, Box::new(ledger), part.clone(), meter.clone(), stop);
        match sink.run() {
            _ if stage.look().actors[actor].is_killed => return None,
            _ if stop.is_requested() => {
                // It may still wait for partitions, when others stored the last of it.
                let is_well = name != LAST_SINK || !matches!(part.state(), ComponentState::Degraded(_));
                return (!is_well).then(|| format!("the last sink ended {:?}, though all is stored", part.state()));
            }
            sink::SinkEnding::Stopped => return Some(format!("{name} stopped by itself")),
            sink::SinkEnding::Rebuild(why) => begin_anew(stage, actor, why),
        }
    }
}

fn begin_anew(stage: &Scheduler, actor: usize, why: String) {
    let mut inner = stage.turn(actor);
    inner.now += Duration::from_millis(500);
    inner.last_rebuild = why;
}
