//! Generates the events around workers and sinks: input, process starts and ends, database outages, compaction and
//! retention. Then follows a quiet time in which every record must get its outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::cluster::SimulatedTopic;
use super::rewrites::DecisionCause;
use super::stage::{Scheduler, SchedulerState};
use super::world::{ProcessKind, Schedule};
use crate::stop::Stop;

mod disturbances;
mod input;

use disturbances::{damage, trim};
pub(super) use input::array_fields;
use input::{end_transaction, event};

const NAMES: [(ProcessKind, &str); 5] = [
    (ProcessKind::Worker, "a"),
    (ProcessKind::Worker, "b"),
    (ProcessKind::Worker, "c"),
    (ProcessKind::Sink, "s"),
    (ProcessKind::Sink, "t"),
];
/// Name of the sink that stores the rest after the faults have ended.
pub(super) const LAST_SINK: &str = "y";
/// Name of the process that runs `anomaly offsets`.
const TOOL: &str = "offsets";
/// Maximum number of processes of each kind.
const MAX_PROCESSES: usize = 3;
const MOST_TURNS: u64 = 200_000;
/// Maximum number of partitions of a topic, and the probability that a step adds one.
const MOST_PARTITIONS: i32 = 5;
const GROWTH: f64 = 0.003;
/// Number of devices that send events.
const DEVICES: i32 = 8;

pub(super) struct Director<'d> {
    stage: &'d Scheduler,
    schedule: &'d Schedule,
    spawn: &'d dyn Fn(usize, ProcessKind, &'static str, Arc<Stop>),
    processes: Vec<RunningProcess>,
    /// Actors of the workers and of `anomaly offsets` that may be alive.
    members: BTreeSet<usize>,
    /// Actor of the last `anomaly offsets`.
    tool: Option<usize>,
    published: i64,
    /// Partitions of the input in which a producer's transaction is open.
    open: BTreeSet<i32>,
    /// An incident that waits until the cluster allows it.
    wanted: Option<DecisionCause>,
    /// Milliseconds by which all devices' clocks are ahead of the schedule's first time.
    ahead: i64,
}

struct RunningProcess {
    actor: usize,
    part: ProcessKind,
    name: &'static str,
    stop: Arc<Stop>,
}

impl<'d> Director<'d> {
    pub(super) fn new(
        stage: &'d Scheduler,
        schedule: &'d Schedule,
        spawn: &'d dyn Fn(usize, ProcessKind, &'static str, Arc<Stop>),
    ) -> Self {
        let (processes, members, open) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Director { stage, schedule, spawn, processes, members, tool: None, published: 0, open, wanted: None, ahead: 0 }
    }

    /// Runs the whole schedule; returns an error if a step takes too long.
    pub(super) fn direct(&mut self) -> Result<(), String> {
        for _ in 0..self.schedule.steps {
            let mut inner = self.stage.turn(0);
            self.step(&mut inner);
        }
        let repairs = {
            let mut inner = self.stage.turn(0);
            inner.faults = 0.0;
            inner.cluster.damaged.clear();
            inner.cluster.widen_state();
            for process in std::mem::take(&mut self.processes) {
                if inner.random.random_bool(0.5) { inner.kill(process.actor) } else { process.stop.request() }
            }
            for partition in std::mem::take(&mut self.open) {
                let commits = inner.random.random_bool(0.5);
                end_transaction(&mut inner, partition, commits);
            }
            inner.cluster.awaits_decision()
        };
        if repairs {
            self.repair()?;
        }
        {
            let mut inner = self.stage.turn(0);
            self.start(&mut inner, ProcessKind::Worker, "z");
            self.start(&mut inner, ProcessKind::Sink, LAST_SINK);
        }
        self.settle("what came during the faults")?;
        let partitions = self.stage.look().cluster.partitions;
        for partition in 0..partitions {
            // Every window is in the record of the anomaly that follows it.
            let mut inner = self.stage.turn(0);
            for device in 0..DEVICES {
                let value = self.record(&[event(device, "1e9")]);
                self.publish_to(&mut inner, partition, (Some(device), value));
            }
        }
        self.settle("the probes")?;
        if self.schedule.grows_at_last {
            self.grow_at_last()?;
        }
        self.processes.iter().for_each(|process| process.stop.request());
        while self.stage.turn(0).actors[1..].iter().any(|actor| actor.is_alive) {}
        Ok(())
    }

    /// Adds partitions that no member notices, with records and anomalies. Nothing else makes the groups assign them.
    fn grow_at_last(&mut self) -> Result<(), String> {
        let forced = |inner: &SchedulerState| inner.cluster.group.forced + inner.cluster.sinks.forced;
        let (before, generation) = {
            let mut inner = self.stage.turn(0);
            let now = inner.now;
            inner.cluster.grow(now, false);
            inner.cluster.grow_outputs(now, false);
            inner.cluster.widen_state();
            for device in 0..DEVICES {
                for value in ["1", "2", "1", "2", "1", "2", "1", "2", "1e9"] {
                    let (value, last) = (self.record(&[event(device, value)]), inner.cluster.partitions - 1);
                    self.publish_to(&mut inner, last, (Some(device), value));
                }
            }
            (forced(&inner), inner.cluster.group.generation)
        };
        self.settle("the partitions that no member noticed")?;
        let inner = self.stage.look();
        match forced(&inner) - before {
            // The added partition of the anomalies may have none.
            1 | 2 => Ok(()),
            // A member that joined again for another reason has got the partitions.
            0 if inner.cluster.group.generation > generation => Ok(()),
            rebalances => Err(format!("{rebalances} rebalances were forced, expected at most one in each group")),
        }
    }

    fn step(&mut self, inner: &mut SchedulerState) {
        self.processes.retain(|process| inner.actors[process.actor].is_alive);
        let partition = inner.random.random_range(0..inner.cluster.partitions);
        self.disturb(inner);
        damage(inner, partition);
        let is_pending = inner.cluster.rewrites.pending.is_some();
        // A second command would decide again.
        let is_repaired = self.tool.is_some_and(|actor| inner.actors[actor].is_alive);
        let is_alone = inner.cluster.group.members.is_empty() && !is_pending;
        if is_alone && inner.random.random_bool(0.08) {
            // The command accepts what it finds: an offset set back after its list was read would be judged twice.
            let least = if is_repaired { 0 } else { -10 };
            let records = inner.random.random_range(least..20);
            inner.cluster.commit_as_another(partition, records);
        }
        let is_awaited = inner.cluster.awaits_decision();
        if is_awaited && !is_repaired && inner.random.random_bool(0.1) {
            self.start(inner, ProcessKind::Offsets, TOOL);
        }
        if inner.random.random_bool(0.03) {
            inner.cluster.widen_state();
        }
        if inner.random.random_bool(0.01) {
            // A person changes max.message.bytes.
            let is_limited = inner.cluster.state_limit < usize::MAX;
            inner.cluster.state_limit = if is_limited { usize::MAX } else { self.schedule.state_limit };
        }
        if inner.cluster.partitions < MOST_PARTITIONS && !is_pending && inner.random.random_bool(GROWTH) {
            let (now, is_noticed) = (inner.now, inner.random.random_bool(0.7));
            inner.cluster.grow(now, is_noticed);
        }
        if inner.cluster.outputs < MOST_PARTITIONS && inner.random.random_bool(GROWTH) {
            let (now, is_noticed) = (inner.now, inner.random.random_bool(0.7));
            inner.cluster.grow_outputs(now, is_noticed);
        }
        match inner.random.random_range(0..100) {
            // After an incident no records arrive until a person has decided.
            0..64 if is_pending => inner.now += Duration::from_millis(100),
            0..60 => {
                for _ in 0..inner.random.random_range(1..15) {
                    let value = self.value(inner);
                    self.publish(inner, partition, value);
                }
            }
            60..62 => self.publish_in_vain(inner, partition),
            62..64 if self.open.remove(&partition) => {
                let commits = inner.random.random_bool(0.5);
                end_transaction(inner, partition, commits);
            }
            62..64 => self.publish_open(inner, partition),
            64..78 => {
                let (part, name) = NAMES[inner.random.random_range(0..NAMES.len())];
                let is_there = self.processes.iter().any(|process| process.name == name);
                // Sometimes two workers have the same name.
                let is_kept_away = part == ProcessKind::Worker
                    && (self.wanted.is_some_and(|wanted| wanted != DecisionCause::RecreatedAtRuntime)
                        || (is_pending && inner.random.random_bool(0.8)));
                let is_allowed = !is_there || (part == ProcessKind::Worker && inner.random.random_bool(0.05));
                if is_allowed
                    && !is_kept_away
                    && self.processes.iter().filter(|process| process.part == part).count() < MAX_PROCESSES
                {
                    self.start(inner, part, name);
                }
            }
            78..80 if !self.processes.is_empty() => {
                let at = inner.random.random_range(0..self.processes.len());
                inner.kill(self.processes[at].actor);
            }
            80..84 if !self.processes.is_empty() => {
                let at = inner.random.random_range(0..self.processes.len());
                self.processes.remove(at).stop.request();
            }
            84..87 if inner.cluster.has(SimulatedTopic::State, partition) => {
                let now = inner.now;
                inner.cluster.partition(SimulatedTopic::State, partition).compact(now);
            }
            87..90 if !is_pending && inner.cluster.has(SimulatedTopic::State, partition) => trim(inner, partition),
            90 => {
                inner.cluster.database.away_until =
                    inner.now + Duration::from_millis(inner.random.random_range(100..4_000));
            }
            _ => inner.now += Duration::from_millis(inner.random.random_range(0..500)),
        }
    }

    /// Runs `anomaly offsets` until no incident and no offset of another program is left. The group must be empty before.
    fn repair(&mut self) -> Result<(), String> {
        let limit = self.stage.look().turns + MOST_TURNS;
        loop {
            let mut inner = self.stage.turn(0);
            self.processes.retain(|process| inner.actors[process.actor].is_alive);
            if !inner.cluster.awaits_decision() {
                return Ok(());
            }
            if inner.turns > limit {
                return Err("the incident or the offsets of another program were not accepted".to_owned());
            }
            let is_repaired = self.tool.is_some_and(|actor| inner.actors[actor].is_alive);
            if !is_repaired && inner.cluster.group.members.is_empty() {
                self.start(&mut inner, ProcessKind::Offsets, TOOL);
            }
            inner.now += Duration::from_millis(10);
        }
    }

    fn start(&mut self, inner: &mut SchedulerState, part: ProcessKind, name: &'static str) {
        let (actor, stop) = (self.stage.hire(inner), Arc::new(Stop::default()));
        if part != ProcessKind::Sink {
            self.members.insert(actor);
        }
        if part == ProcessKind::Offsets {
            self.tool = Some(actor);
        }
        if part == ProcessKind::Worker && inner.cluster.rewrites.pending.is_some() {
            inner.cluster.transactions.warned.insert(actor);
        }
        (self.spawn)(actor, part, name, stop.clone());
        self.processes.push(RunningProcess { actor, part, name, stop });
    }

    /// Waits until every record is committed, and every anomaly stored.
    fn settle(&mut self, what: &str) -> Result<(), String> {
        let limit = self.stage.look().turns + MOST_TURNS;
        loop {
            let mut inner = self.stage.turn(0);
            let cluster = &mut inner.cluster;
            let is_done = (0..cluster.partitions).all(|partition| {
                // Control records and aborted records at the end are passed too.
                let end = cluster.partition(SimulatedTopic::Input, partition).end();
                let progress = cluster.transactions.offsets.get(&partition);
                end == 0 || progress.is_some_and(|progress| progress.offset == end)
            });
            let is_stored = (0..cluster.outputs).all(|partition| {
                let last =
                    cluster.partition(SimulatedTopic::Anomalies, partition).committed(0).last().map(|(at, _)| at + 1);
                let stored = cluster.database.positions.get(&partition);
                last.is_none_or(|last| stored.is_some_and(|stored| *stored >= last))
            });
            if is_done && is_stored && inner.cluster.deciding().is_empty() {
                return Ok(());
            }
            if inner.turns > limit {
                let (group, offsets) = (&inner.cluster.group, &inner.cluster.transactions.offsets);
                let (now, members) = (inner.now, &group.members);
                let (sinks, rows) = (&inner.cluster.sinks.members, &inner.cluster.database.positions);
                return Err(format!(
                    "{what} was not judged and stored within {MOST_TURNS} turns: at {now:?} generation {} of {members:?}, offsets \
                     {offsets:?}; sinks {sinks:?}, offsets {rows:?}; {}",
                    group.generation, inner.last_rebuild
                ));
            }
        }
    }
}
