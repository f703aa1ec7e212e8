//! Runs one schedule: input, processes that start, stop, are killed and paused, outages of the database, compaction and
//! retention. Then follows a quiet time in which every record must get its outcome.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::cluster::{Fate, SimulatedCluster, SimulatedTopic};
use super::director::{self, Director};
use super::process::{SimulatedProcess, carry, repair, work};
use super::rewrites::DecisionCause;
use super::stage::Scheduler;
use crate::config::resolved::{OnReject, Settings, StartPosition};
use crate::meter::Meter;
use crate::policy::{Policy, PolicyOverride};
use crate::series::SeriesLimits;
use crate::stop::Stop;

/// A defect of the log, which the checker must detect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    Loss,
    Duplicate,
    Reorder,
    Amnesia,
    LostRow,
    LostOffset,
}

/// Number of preceding values stored with an anomaly.
pub(crate) const CONTEXT: usize = 12;

/// Kind of the component that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessKind {
    Worker,
    Sink,
    /// `anomaly offsets`, which sets or accepts offsets.
    Offsets,
}

/// Parameters of a run, which follow from the seed.
pub(super) struct Schedule {
    seed: u64,
    pub(super) defect: Option<Defect>,
    pub steps: u32,
    faults: f64,
    pub partitions: i32,
    /// Policies of the processes: each process has one, and changes are recorded.
    pub policies: Vec<Policy>,
    /// Limits of the processes: each process has one of them.
    pub bounds: Vec<SeriesLimits>,
    /// Bytes that the series of a process may use: each process has one of these limits.
    pub memory: Vec<Option<u64>>,
    /// Device with a wrong clock, and the time of its records; `None` means microseconds.
    pub wrong_device: i32,
    pub wrong_time: Option<i64>,
    /// Whether partitions are added at the end that no member notices.
    pub grows_at_last: bool,
    /// Whether the device's key decides its partition; otherwise each device sends to all partitions.
    pub routes_by_key: bool,
    pub config: Settings,
    pub(super) snapshot_bytes: usize,
    /// Size from which on the state topic refuses a batch of snapshots, in bytes.
    pub(super) state_limit: usize,
}

impl Schedule {
    /// Returns whether the oracle can follow incidents: one policy, and no limit of memory.
    pub(super) fn has_incidents(&self) -> bool {
        self.policies.len() == 1 && self.memory.iter().all(Option::is_none)
    }

    pub(super) fn new(seed: u64, defect: Option<Defect>) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x5EED);
        let mut policies = vec![policy(&mut random), policy(&mut random)];
        let mut bounds = || SeriesLimits {
            max_series: if random.random_bool(0.3) { random.random_range(1..7) } else { 1_000 },
            idle_after: random.random_bool(0.5).then_some(600),
        };
        let mut bounds = vec![bounds(), bounds()];
        // Settings change when processes restart one after the other.
        bounds.truncate(random.random_range(1..=2));
        policies.truncate(random.random_range(1..=2));
        let wrong_device = random.random_range(0..16);
        // Wrong times: 1970, the year 2200, and microseconds.
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
        if random.random_bool(0.25) {
            config.detector.start = StartPosition::Latest;
        }
        let grows_at_last = random.random_bool(0.5);
        let state_limit = if random.random_bool(0.3) { random.random_range(130..260) } else { usize::MAX };
        let has_memory_limit = random.random_bool(0.25);
        let memory = [0; 2].map(|_| has_memory_limit.then(|| random.random_range(400..3_000))).to_vec();
        Schedule {
            seed,
            defect,
            grows_at_last,
            steps,
            faults,
            partitions,
            policies,
            bounds,
            memory,
            wrong_device,
            wrong_time,
            routes_by_key,
            config,
            snapshot_bytes,
            state_limit,
        }
    }
}

/// Returns a random policy, in half of the cases with overrides: both methods, several windows, an excluded device.
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
            PolicyOverride { method: Some("adaptive".into()), ..on("d6") },
            PolicyOverride { threshold: Some(1.5), window: Some(random.random_range(3..9)), ..on("d?") },
            PolicyOverride { method: Some(methods[1 - method].into()), min_samples: Some(2), ..on("d*1") },
            PolicyOverride { window: Some(random.random_range(3..16)), ..on("d1*") },
            PolicyOverride { enabled: Some(false), ..on(&format!("d{}", random.random_range(0..6))) },
        ];
    }
    policy
}

/// State at the end of a schedule.
pub(crate) struct ScheduleOutcome {
    pub policies: Vec<Policy>,
    pub bounds: Vec<SeriesLimits>,
    pub has_memory_limit: bool,
    pub config: Settings,
    pub cluster: SimulatedCluster,
    pub trace: u64,
    /// Messages of processes that ended with an error, or that a step took too long.
    pub failures: Vec<String>,
    pub totals: Totals,
}

/// Counters that show how varied a run was.
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
    /// Number of series that were evicted, and of values that were refused, because of the limit of memory.
    memory: u64,
    refused_values: u64,
    tombstones: u64,
    /// Number of batches that the state topic refused as too large.
    oversize: u64,
    trimmed: u64,
    /// Number of committed records whose transaction was open for a while.
    opened: u64,
    /// Number of offsets that were set or accepted after another program had committed.
    foreign: u64,
    /// Number of stretches of partitions that ended with an incident, by its kind.
    incidents: [u64; 4],
    /// Number of times that a client could not read a partition at an offset.
    unreadable: u64,
    rows: u64,
    sink_generations: u64,
    refused: u64,
    cancelled: u64,
    moved: u64,
    restored: u64,
    /// Number of partitions that were added while members ran.
    grown: u64,
    /// Number of these partitions that the group considered as added when it took them over.
    added: u64,
    /// Number of rebalances that members forced, because partitions were assigned to no member.
    forced: u64,
    /// Number of records before the start of their partition.
    before_start: u64,
    /// Number of partitions whose first member ended before its commit, and records arrived until the next one.
    begun_again: u64,
    /// Number of policy changes, and of records of excluded series.
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
        self.memory += other.memory;
        self.refused_values += other.refused_values;
        self.tombstones += other.tombstones;
        self.oversize += other.oversize;
        self.trimmed += other.trimmed;
        self.opened += other.opened;
        self.foreign += other.foreign;
        self.incidents.iter_mut().zip(other.incidents).for_each(|(sum, count)| *sum += count);
        self.unreadable += other.unreadable;
        self.rows += other.rows;
        self.sink_generations += other.sink_generations;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.moved += other.moved;
        self.restored += other.restored;
        self.grown += other.grown;
        self.added += other.added;
        self.forced += other.forced;
        self.before_start += other.before_start;
        self.begun_again += other.begun_again;
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
            self.memory,
            self.refused_values,
            self.tombstones,
            self.oversize,
            self.trimmed,
            self.opened,
            self.rows,
            self.sink_generations,
            self.refused,
            self.cancelled,
            5 * self.moved,
            5 * self.foreign,
            10 * self.incidents.iter().copied().min().unwrap_or_default(),
            self.unreadable,
            5 * self.restored,
            self.grown,
            self.added,
            self.forced,
            self.before_start,
            5 * self.begun_again,
            self.changes,
            self.excluded,
        ];
        assert!(all.iter().all(|n| *n > 500), "{self:?}");
    }
}

/// Runs the schedule to its end.
pub(super) fn play(schedule: &Schedule) -> ScheduleOutcome {
    let stage = Arc::new(Scheduler::new(schedule.seed, SimulatedCluster::new(schedule.partitions), schedule.faults));
    stage.enter_first();
    stage.look().cluster.state_limit = schedule.state_limit;
    let (meter, failures) = (Meter::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let spawn = |actor: usize, part: ProcessKind, name: &'static str, stop: Arc<Stop>| {
            let (stage, meter, failures) = (stage.clone(), meter.clone(), &failures);
            scope.spawn(move || {
                stage.enter(actor);
                let process = SimulatedProcess { stage: &stage, schedule, actor, name, stop: &stop, meter: &meter };
                let run = || match part {
                    ProcessKind::Worker => work(&process),
                    ProcessKind::Sink => carry(&process),
                    ProcessKind::Offsets => repair(&process),
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
        memory: meter.evictions.get("memory"),
        refused_values: meter.refused_values.get(),
        generations: u64::from(inner.cluster.group.generation),
        rows: inner.cluster.database.rows.len() as u64,
        sink_generations: u64::from(inner.cluster.sinks.generation),
        refused: inner.cluster.database.refused,
        oversize: inner.cluster.refusals,
        cancelled: inner.cluster.database.cancelled,
        moved: inner.cluster.database.moved,
        foreign: inner.cluster.transactions.sets.len() as u64,
        incidents: DecisionCause::ALL.map(|incident| inner.cluster.rewrites.count(incident)),
        unreadable: inner.cluster.unreadable,
        restored: inner.cluster.database.restored,
        grown: (inner.cluster.partitions - schedule.partitions) as u64,
        forced: inner.cluster.group.forced + inner.cluster.sinks.forced,
        added: inner.cluster.transactions.added.len() as u64,
        before_start: inner.cluster.transactions.starts.values().map(|first| first.progress.offset as u64).sum(),
        begun_again: inner.cluster.transactions.begun_again(),
        excluded: inner.cluster.transactions.offsets.values().map(|progress| progress.counts.excluded).sum(),
        changes: inner.cluster.epochs().values().map(|epochs| epochs.len() as u64 - 1).sum(),
        ..count(&mut inner.cluster)
    };
    ScheduleOutcome {
        policies: schedule.policies.clone(),
        bounds: schedule.bounds.clone(),
        has_memory_limit: schedule.memory.iter().any(Option::is_some),
        config: schedule.config.clone(),
        trace: inner.trace,
        failures: failures.into_inner().unwrap(),
        cluster: inner.cluster,
        totals,
    }
}

/// Counts the records of the topics.
fn count(cluster: &mut SimulatedCluster) -> Totals {
    let mut totals = Totals::default();
    for ((topic, _), partition) in &cluster.topics {
        // Compacted records count too.
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
                // Content 1 means evicted, see series::snapshot.
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
