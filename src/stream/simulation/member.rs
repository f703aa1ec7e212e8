//! [`Log`] of one simulated worker: the client's side of the protocols, with the faults that the schedule strikes it with.
//! A call may fail before it has an effect, or after it (its answer was lost), or be the last one of its process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::cluster::{Entry, Fate, Partition, Topic};
use super::stage::{Inner, Stage};
use super::strike::{ASK, BEGIN, END, LOCAL, OFFSETS, POLL_SHARE, SEND, dead};
use super::world::Defect;
use crate::stop::Stop;
use crate::stream::log::{
    Change, Fault, Identity, Log, Outgoing, Output, Past, Positions, Record, Remedy, Standing, Visit,
};
use crate::stream::mark::Marks;

/// Share of the faults that lose a member's place.
const MISPLACED: f64 = 0.05;

pub struct Member {
    pub(super) stage: Arc<Stage>,
    pub(super) me: usize,
    name: String,
    transactional_id: String,
    epoch: u32,
    id: Option<u64>,
    generation: u32,
    /// Has an assignment, answered or not.
    holds: bool,
    is_asked_back: bool,
    is_lost: bool,
    changes: VecDeque<Change>,
    positions: Positions,
    is_paused: bool,
    is_committing: bool,
    history: Option<(Topic, i32, i64, i64)>,
    defect: Option<Defect>,
}

impl Member {
    pub fn new(stage: Arc<Stage>, me: usize, name: &str, defect: Option<Defect>) -> Self {
        Member { defect, ..Self::by_names(stage, me, name, &format!("group-{name}")) }
    }

    pub fn by_names(stage: Arc<Stage>, me: usize, name: &str, transactional_id: &str) -> Self {
        Member {
            stage,
            me,
            name: name.to_owned(),
            transactional_id: transactional_id.to_owned(),
            epoch: 0,
            id: None,
            generation: 0,
            holds: false,
            is_asked_back: false,
            is_lost: false,
            changes: VecDeque::new(),
            positions: Positions::new(),
            is_paused: true,
            is_committing: false,
            history: None,
            defect: None,
        }
    }

    /// The group's protocol, as a poll runs it.
    fn attend(&mut self, inner: &mut Inner) -> Result<(), Fault> {
        let now = inner.now;
        if inner.random.random_bool(inner.faults * MISPLACED) {
            inner.cluster.group.misplace(&self.name);
        }
        let group = &mut inner.cluster.group;
        match (self.id, group.members.get(&self.name)) {
            (Some(id), Some(seat)) if seat.id == id => {}
            (Some(_), Some(_)) => return Err(Fault::new(Remedy::Yield, "fenced by a member of the same name")),
            (Some(_), None) if self.holds => {
                self.is_lost = true;
                self.ask_back();
                return Ok(());
            }
            _ => self.id = Some(group.join(&self.name, self.me, now)),
        }
        let (is_rebalancing, generation) = (group.is_rebalancing(), group.generation);
        let Some(seat) = group.members.get_mut(&self.name) else { return Ok(()) };
        if is_rebalancing && self.holds {
            self.ask_back();
        } else if is_rebalancing {
            seat.has_joined = true;
        } else if !self.holds && seat.told != generation {
            (seat.told, self.generation, self.holds) = (generation, generation, true);
            self.changes.push_back(Change::Assigned(seat.assignment.clone()));
        }
        Ok(())
    }

    fn ask_back(&mut self) {
        if !std::mem::replace(&mut self.is_asked_back, true) {
            self.changes.push_back(Change::Revoked(self.positions.keys().copied().collect()));
        }
    }

    /// Records that have come to the client, some of them.
    fn fetch(&mut self, inner: &mut Inner, most: usize) -> Vec<(i32, Vec<(i64, Entry)>)> {
        let mut batches = Vec::new();
        for (&partition, next) in &mut self.positions {
            let share = inner.random.random_range(0..=most.min(12));
            let records = inner.cluster.partition(Topic::Input, partition).committed(*next);
            let records = records.take(share).map(|(at, entry)| (at, entry.clone())).collect::<Vec<_>>();
            if let Some((last, _)) = records.last() {
                *next = last + 1;
                batches.push((partition, records));
            }
        }
        if self.defect == Some(Defect::Reorder) {
            for (_, records) in batches.iter_mut().filter(|(_, records)| records.len() > 1) {
                let (one, two) = (records[0].1.value.clone(), records[1].1.value.clone());
                (records[0].1.value, records[1].1.value) = (two, one);
            }
        }
        batches
    }
}

fn show(records: &[(i64, Entry)]) -> Vec<Record<'_>> {
    let record = |(offset, entry): &'_ (i64, Entry)| (*offset, entry.time);
    records
        .iter()
        .map(|read| {
            let (offset, time) = record(read);
            let (key, value) = (read.1.key.as_deref(), read.1.value.as_deref());
            Record { offset, timestamp: Some(time), key, value, headers: &() }
        })
        .collect()
}

fn topic_of(past: Past) -> Topic {
    match past {
        Past::Input => Topic::Input,
        Past::State => Topic::State,
    }
}

impl Log for Member {
    fn now(&self) -> Duration {
        self.stage.look().now
    }

    fn sleep(&mut self, time: Duration) {
        let mut inner = self.stage.turn(self.me);
        inner.now += time;
    }

    fn open(&mut self) -> Result<(), Fault> {
        self.act(ASK, |this, inner| {
            this.epoch = inner.cluster.init(&this.transactional_id);
            Ok(())
        })
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn poll(&mut self, wait: Duration, most: usize, visit: &mut Visit<'_>) -> Result<usize, Fault> {
        let batches = self.act_with(POLL_SHARE, LOCAL, |this, inner| {
            this.attend(inner)?;
            if this.is_paused || !this.changes.is_empty() {
                inner.now += wait / 8;
                return Ok(Vec::new());
            }
            let batches = this.fetch(inner, most);
            if batches.is_empty() {
                inner.now += wait / 4;
            }
            Ok(batches)
        })?;
        batches.iter().for_each(|(partition, records)| visit(*partition, &show(records)));
        Ok(batches.iter().map(|(_, records)| records.len()).sum())
    }

    fn has_change(&self) -> bool {
        !self.changes.is_empty()
    }

    fn change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn is_assignment_lost(&self) -> bool {
        self.is_lost
    }

    fn assign(&mut self, at: &Positions) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            (this.positions, this.is_paused) = (at.clone(), true);
            Ok(())
        })
    }

    fn unassign(&mut self) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            this.positions.clear();
            (this.holds, this.is_asked_back, this.is_lost, this.is_paused) = (false, false, false, true);
            Ok(())
        })
    }

    fn resume(&mut self) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            this.is_paused = false;
            Ok(())
        })
    }

    fn seek(&mut self, to: &Positions) -> Result<(), Fault> {
        self.act(LOCAL, |this, _| {
            this.positions.extend(to);
            Ok(())
        })
    }

    fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, Standing>, Fault> {
        self.act(ASK, |_, inner| {
            if inner.cluster.is_unstable() {
                inner.now += Duration::from_millis(20);
                return Err(Fault::new(Remedy::Retry, "offsets of an open transaction"));
            }
            let offsets = &inner.cluster.transactions.offsets;
            let standing = |partition: &i32| offsets.get(partition).map_or(Standing::New, |mark| Standing::At(*mark));
            Ok(partitions.iter().map(|partition| (*partition, standing(partition))).collect())
        })
    }

    fn bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault> {
        self.act(ASK, |_, inner| {
            let partition = inner.cluster.partition(Topic::Input, partition);
            Ok((partition.start, partition.stable()))
        })
    }

    fn state_bounds(&mut self, partition: i32) -> Result<(i64, i64), Fault> {
        self.act(ASK, |_, inner| {
            let partition = inner.cluster.partition(Topic::State, partition);
            Ok((partition.start, partition.end()))
        })
    }

    fn identity(&mut self) -> Result<Identity, Fault> {
        self.act(ASK, |_, inner| Ok(Identity { id: Some("one".into()), partitions: inner.cluster.partitions }))
    }

    fn ends(&self) -> Positions {
        let mut inner = self.stage.look();
        let end = |p: &mut Partition| p.stable();
        self.positions.keys().map(|p| (*p, end(inner.cluster.partition(Topic::Input, *p)))).collect()
    }

    fn starts(&self) -> Positions {
        let mut inner = self.stage.look();
        self.positions.keys().map(|p| (*p, inner.cluster.partition(Topic::Input, *p).start)).collect()
    }

    fn open_history(&mut self, of: Past, partition: i32, from: i64, to: i64) -> Result<(), Fault> {
        self.act(ASK, |this, _| {
            this.history = Some((topic_of(of), partition, from, to));
            Ok(())
        })
    }

    fn read_history(&mut self, visit: &mut Visit<'_>) -> Result<i64, Fault> {
        let Some((topic, partition, next, to)) = self.history else { return Err(dead()) };
        let mut records = self.act(ASK, |_, inner| {
            let share = inner.random.random_range(1..30);
            let log = inner.cluster.partition(topic, partition);
            if topic == Topic::Input && next < log.start {
                return Err(Fault::new(Remedy::Rebuild, "retention has passed by"));
            }
            let records = log.committed(next).take_while(|(at, _)| *at < to).take(share);
            let records = records.map(|(at, entry)| (at, entry.clone())).collect::<Vec<_>>();
            if records.is_empty() && log.stable() < to {
                inner.now += Duration::from_millis(50);
                return Ok((records, next));
            }
            let next = records.last().map_or(to, |(at, _)| at + 1);
            Ok((records, next))
        })?;
        if self.defect == Some(Defect::Amnesia) {
            records
                .0
                .retain(|(at, e)| topic != Topic::State || at % 3 > 0 || e.key.as_deref().is_some_and(|k| k == b"f"));
        }
        visit(partition, &show(&records.0));
        self.history = Some((topic, partition, records.1, to));
        Ok(records.1)
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.act(BEGIN, |_, _| Ok(()))
    }

    fn send(&mut self, record: Outgoing) -> Result<(), Fault> {
        let defect = self.defect;
        self.act(SEND, |this, inner| {
            let hash = record.key.iter().flatten().map(|byte| i32::from(*byte)).sum::<i32>();
            let spread = hash % inner.cluster.partitions;
            let place = match record.output {
                Output::Anomalies => (Topic::Anomalies, spread),
                Output::DeadLetters => (Topic::DeadLetters, spread),
                Output::State(partition) => (Topic::State, partition),
            };
            let Outgoing { key, value, headers, .. } = record;
            let time = inner.now.as_millis() as i64;
            let entry = Entry { key, value, headers, time, fate: Fate::Open, owner: this.transactional_id.clone() };
            let is_output = place.0 != Topic::State && inner.random.random_bool(0.3);
            let times = match defect {
                Some(Defect::Loss) if is_output => 0,
                Some(Defect::Duplicate) if is_output => 2,
                _ => 1,
            };
            let now = inner.now;
            (0..times)
                .try_for_each(|_| inner.cluster.append(&this.transactional_id, this.epoch, now, place, entry.clone()))
        })
    }

    fn commit(&mut self, next: &Marks) -> Result<(), Fault> {
        if !self.is_committing {
            self.act(OFFSETS, |this, inner| {
                let group = &inner.cluster.group;
                match group.members.get(&this.name) {
                    Some(seat) if Some(seat.id) != this.id => {
                        return Err(Fault::new(Remedy::Yield, "fenced by a member of the same name"));
                    }
                    Some(_) if this.generation == group.generation => {}
                    _ => return Err(Fault::new(Remedy::Abort, "not of this generation")),
                }
                let now = inner.now;
                inner.cluster.add_offsets(&this.transactional_id, this.epoch, now, next)
            })?;
            self.is_committing = true;
        }
        let ended = self.act(END, |this, inner| inner.cluster.end(&this.transactional_id, this.epoch, true));
        self.is_committing = matches!(&ended, Err(fault) if fault.remedy == Remedy::Retry);
        ended
    }

    fn abort(&mut self) -> Result<(), Fault> {
        self.is_committing = false;
        self.act(END, |this, inner| inner.cluster.end(&this.transactional_id, this.epoch, false))
    }

    fn is_replaced(&mut self, _is_fenced: bool, _stop: &Stop) -> bool {
        let inner = self.stage.look();
        let seat = inner.cluster.group.members.get(&self.name);
        self.id.is_some() && seat.is_some_and(|seat| Some(seat.id) != self.id && seat.actor != self.me)
    }

    fn leave(&mut self, _limit: Duration) {
        let _ = self.act(LOCAL, |this, inner| {
            let now = inner.now;
            if inner.cluster.group.members.get(&this.name).is_some_and(|seat| Some(seat.id) == this.id) {
                inner.cluster.group.remove(&this.name, now);
            }
            Ok(())
        });
    }
}
