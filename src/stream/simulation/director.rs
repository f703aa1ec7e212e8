//! Generates the events around workers and sinks: input, process starts and ends, database outages, compaction and
//! retention. Then follows a quiet time in which every record must get its outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::cluster::{Fate, LogEntry, SimulatedTopic};
use super::stage::{Scheduler, SchedulerState};
use super::world::{ProcessKind, Schedule};
use crate::event::{Fields, OnPartial};
use crate::stop::Stop;

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
/// Producer of transactions in the input.
const PRODUCER: &str = "producer";
/// Maximum number of processes of each kind.
const MAX_PROCESSES: usize = 3;
const MOST_TURNS: u64 = 200_000;
/// Maximum number of partitions of a topic, and the probability that a step adds one.
const MOST_PARTITIONS: i32 = 5;
const GROWTH: f64 = 0.003;
/// Number of devices that send events.
const DEVICES: i32 = 8;
/// Time of the first record in milliseconds; it is unrelated to the virtual clock.
const EPOCH: i64 = 1_764_000_000_000;

pub(super) struct Director<'d> {
    stage: &'d Scheduler,
    schedule: &'d Schedule,
    spawn: &'d dyn Fn(usize, ProcessKind, &'static str, Arc<Stop>),
    processes: Vec<RunningProcess>,
    published: i64,
    /// Partitions of the input in which a producer's transaction is open.
    open: BTreeSet<i32>,
    /// Milliseconds by which all devices' clocks are ahead of [`EPOCH`].
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
        Director { stage, schedule, spawn, processes: Vec::new(), published: 0, open: BTreeSet::new(), ahead: 0 }
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
            inner.cluster.widen_state();
            for process in std::mem::take(&mut self.processes) {
                if inner.random.random_bool(0.5) { inner.kill(process.actor) } else { process.stop.request() }
            }
            for partition in std::mem::take(&mut self.open) {
                let commits = inner.random.random_bool(0.5);
                end_transaction(&mut inner, partition, commits);
            }
            !inner.cluster.transactions.foreign.is_empty()
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
        let is_repaired = self.processes.iter().any(|process| process.part == ProcessKind::Offsets);
        if inner.cluster.group.members.is_empty() && inner.random.random_bool(0.08) {
            // The command accepts what it finds: an offset set back after its list was read would be judged twice.
            let least = if is_repaired { 0 } else { -10 };
            let records = inner.random.random_range(least..20);
            inner.cluster.commit_as_another(partition, records);
        }
        let is_foreign = !inner.cluster.transactions.foreign.is_empty();
        if is_foreign && !is_repaired && inner.random.random_bool(0.1) {
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
        if inner.cluster.partitions < MOST_PARTITIONS && inner.random.random_bool(GROWTH) {
            let (now, is_noticed) = (inner.now, inner.random.random_bool(0.7));
            inner.cluster.grow(now, is_noticed);
        }
        if inner.cluster.outputs < MOST_PARTITIONS && inner.random.random_bool(GROWTH) {
            let (now, is_noticed) = (inner.now, inner.random.random_bool(0.7));
            inner.cluster.grow_outputs(now, is_noticed);
        }
        match inner.random.random_range(0..100) {
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
                let is_allowed = !is_there || (part == ProcessKind::Worker && inner.random.random_bool(0.05));
                if is_allowed && self.processes.iter().filter(|process| process.part == part).count() < MAX_PROCESSES {
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
            87..90 if inner.cluster.has(SimulatedTopic::State, partition) => trim(inner, partition),
            90 => {
                inner.cluster.database.away_until =
                    inner.now + Duration::from_millis(inner.random.random_range(100..4_000));
            }
            _ => inner.now += Duration::from_millis(inner.random.random_range(0..500)),
        }
    }

    /// Runs `anomaly offsets` until no offset of another program is left. Before that the group must be empty.
    fn repair(&mut self) -> Result<(), String> {
        let limit = self.stage.look().turns + MOST_TURNS;
        loop {
            let mut inner = self.stage.turn(0);
            self.processes.retain(|process| inner.actors[process.actor].is_alive);
            if inner.cluster.transactions.foreign.is_empty() {
                return Ok(());
            }
            if inner.turns > limit {
                return Err("the offsets of another program were not accepted".to_owned());
            }
            if self.processes.is_empty() && inner.cluster.group.members.is_empty() {
                self.start(&mut inner, ProcessKind::Offsets, TOOL);
            }
            inner.now += Duration::from_millis(10);
        }
    }

    fn start(&mut self, inner: &mut SchedulerState, part: ProcessKind, name: &'static str) {
        let (actor, stop) = (self.stage.hire(inner), Arc::new(Stop::default()));
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

    /// Returns a random device and its record. Several values may be of other devices, or of the same one again. `None`
    /// if the record is not an event.
    fn value(&self, inner: &mut SchedulerState) -> (Option<i32>, Vec<u8>) {
        let (first, value) = match inner.random.random_range(0..20) {
            0 => return (None, b"no event".to_vec()),
            // The record has a null value.
            1 => return (None, Vec::new()),
            _ => self.one(inner),
        };
        let mut all = vec![value];
        if self.has_arrays() {
            for _ in 0..inner.random.random_range(0..4) {
                let (_, value) = self.one(inner);
                all.push(value);
            }
            match inner.random.random_range(0..30) {
                0 => all.clear(),
                1 => all[0] = event(first, "\"wrong\""),
                2 => all.push(event(first, "null")),
                3 => all.push("3".into()),
                _ => {}
            }
        }
        (Some(first), self.record(&all))
    }

    fn has_arrays(&self) -> bool {
        self.schedule.config.fields != Fields::default()
    }

    /// Returns a record with these values.
    fn record(&self, values: &[String]) -> Vec<u8> {
        if self.has_arrays() { format!(r#"{{"all":[{}]}}"#, values.join(",")).into() } else { values.concat().into() }
    }

    /// Returns a random device and its value.
    fn one(&self, inner: &mut SchedulerState) -> (i32, String) {
        // Each device is silent for some periods.
        let is_silent = |device: i32| (self.published / 150 + i64::from(device)) % 3 == 0;
        let mut device = inner.random.random_range(0..DEVICES);
        if is_silent(device) {
            device = (device + 1) % DEVICES;
        }
        let spike = if inner.random.random_bool(0.1) { 50.0 } else { 0.0 };
        let value = f64::from(device) + inner.random.random_range(-1.0..1.0) + spike;
        (device, event(device, &value.to_string()))
    }

    /// Publishes to the partition of the device's key if the producers route by key; otherwise to this one.
    fn publish(&mut self, inner: &mut SchedulerState, partition: i32, (device, value): (Option<i32>, Vec<u8>)) -> i32 {
        let routed =
            device.filter(|_| self.schedule.routes_by_key).map(|device| route(device, inner.cluster.partitions));
        let partition = routed.unwrap_or(partition);
        self.publish_to(inner, partition, (device, value));
        partition
    }

    fn publish_to(&mut self, inner: &mut SchedulerState, partition: i32, (device, value): (Option<i32>, Vec<u8>)) {
        self.published += 1;
        if inner.random.random_bool(0.001) {
            // The clocks of all devices are set.
            self.ahead += [9_000_000, 86_400_000 * 400, -7_200_000][inner.random.random_range(0..3usize)];
        }
        let right = EPOCH + self.ahead + self.published * 5_000;
        let is_wrong = self.published % 97 == 0 || device.is_some_and(|device| device == self.schedule.wrong_device);
        let time = if is_wrong { self.schedule.wrong_time.unwrap_or(right * 1_000) } else { right };
        // Every series of a device has its key; a rejected record has a key of its own, or none.
        let key = match device {
            Some(device) => Some(format!("d{device}").into_bytes()),
            None => (self.published % 2 == 0).then(|| b"key".to_vec()),
        };
        let (value, headers, owner) = (Some(value).filter(|value| !value.is_empty()), Vec::new(), String::new());
        let entry = LogEntry { key, value, headers, time, fate: Fate::Committed, owner };
        inner.cluster.partition(SimulatedTopic::Input, partition).entries.push(entry);
    }

    /// Publishes records in a transaction that stays open for a while.
    fn publish_open(&mut self, inner: &mut SchedulerState, partition: i32) {
        for _ in 0..inner.random.random_range(1..4) {
            let value = self.value(inner);
            let partition = self.publish(inner, partition, value);
            if let Some(last) = inner.cluster.partition(SimulatedTopic::Input, partition).entries.last_mut() {
                (last.fate, last.owner) = (Fate::Open, PRODUCER.to_owned());
            }
            self.open.insert(partition);
        }
    }

    /// Publishes records of an aborted transaction, and its marker.
    fn publish_in_vain(&mut self, inner: &mut SchedulerState, partition: i32) {
        let value = self.value(inner);
        let partition = self.publish(inner, partition, value);
        let log = inner.cluster.partition(SimulatedTopic::Input, partition);
        if let Some(last) = log.entries.last_mut() {
            last.fate = Fate::Aborted;
        }
        log.marker();
    }
}

/// Ends the producer's open transaction, and writes its marker.
fn end_transaction(inner: &mut SchedulerState, partition: i32, commits: bool) {
    let log = inner.cluster.partition(SimulatedTopic::Input, partition);
    let fate = if commits { Fate::Committed } else { Fate::Aborted };
    log.entries.iter_mut().filter(|entry| entry.fate == Fate::Open).for_each(|entry| entry.fate = fate);
    log.marker();
}

/// Returns the partition of a device's key. It changes when the topic grows: the device then learns again in the new
/// partition.
fn route(device: i32, partitions: i32) -> i32 {
    (device * 7 + 3) % partitions
}

/// Returns paths to the values of records that have an array of values.
pub(crate) fn array_fields(is_judged_partly: bool) -> Fields {
    Fields {
        device: "all[*].d".into(),
        value: "all[*].v".into(),
        on_partial: if is_judged_partly { OnPartial::JudgeValid } else { OnPartial::Reject },
        ..Fields::default()
    }
}

/// Returns an event in both of the forms that [`Schedule`] has.
fn event(device: i32, value: &str) -> String {
    format!(r#"{{"device_id":"d{device}","metric_value":{value},"d":"d{device}","v":{value}}}"#)
}

/// Simulates retention: removes all records that a restart does not need, which are judged and before the checkpoint.
fn trim(inner: &mut SchedulerState, partition: i32) {
    let judged = inner.cluster.transactions.offsets.get(&partition).map_or(0, |progress| progress.offset);
    let state = inner.cluster.partition(SimulatedTopic::State, partition);
    let checkpoints = state.committed(0).filter(|(_, entry)| entry.key.as_deref() == Some(b"f"));
    let checkpoint = checkpoints.last().and_then(|(_, entry)| {
        // The body follows version and checksum.
        let json = serde_json::from_slice::<serde_json::Value>(entry.value.as_deref()?.get(5..)?).ok()?;
        json["offset"].as_i64()
    });
    if let Some(checkpoint) = checkpoint {
        let input = inner.cluster.partition(SimulatedTopic::Input, partition);
        input.start = input.start.max(checkpoint.min(judged));
    }
}
