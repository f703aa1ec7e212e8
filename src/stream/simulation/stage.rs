//! Schedules actors on real threads, of which only one acts at a time. Each call into the log first waits for its turn.
//! The order of turns follows from the seed alone. Time advances with the turns.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::cluster::SimulatedCluster;
use super::group::SESSION;

pub(super) struct Scheduler {
    inner: Mutex<SchedulerState>,
}

pub(super) struct SchedulerState {
    pub cluster: SimulatedCluster,
    pub random: Xoshiro256PlusPlus,
    pub now: Duration,
    pub actors: Vec<Actor>,
    /// Share of calls that have a fault.
    pub faults: f64,
    turn: usize,
    pub turns: u64,
    pub kills: u64,
    pub pauses: u64,
    pub strikes: u64,
    /// Reason of the last rebuild, for messages.
    pub last_rebuild: String,
    /// Hash of all events, to compare two runs.
    pub trace: u64,
}

pub(super) struct Actor {
    thread: Option<Thread>,
    /// Whether the process runs; the actor is its worker or its sink.
    pub is_alive: bool,
    /// Time until which a signal has stopped the process.
    paused: Duration,
    /// Whether a signal has ended the process: its calls have no effect any more.
    pub is_killed: bool,
    /// Time at which the actor was last active.
    silent_since: Option<Duration>,
}

pub(super) type Turn<'s> = MutexGuard<'s, SchedulerState>;

impl Scheduler {
    pub(super) fn new(seed: u64, cluster: SimulatedCluster, faults: f64) -> Self {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (now, actors) = (Duration::ZERO, Vec::new());
        let last_rebuild = String::new();
        let (turn, turns, kills, pauses, strikes, trace) = (0, 0, 0, 0, 0, 0);
        let inner = SchedulerState {
            cluster,
            random,
            now,
            actors,
            faults,
            turn,
            turns,
            kills,
            pauses,
            strikes,
            last_rebuild,
            trace,
        };
        Scheduler { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> Turn<'_> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an actor; its thread must call [`enter`](Self::enter) first.
    pub(super) fn hire(&self, inner: &mut SchedulerState) -> usize {
        inner.actors.push(Actor {
            thread: None,
            is_alive: true,
            paused: Duration::ZERO,
            is_killed: false,
            silent_since: None,
        });
        inner.actors.len() - 1
    }

    /// Waits for the first turn of this actor.
    pub(super) fn enter(&self, me: usize) {
        self.lock().actors[me].thread = Some(std::thread::current());
        drop(self.wait(me));
    }

    /// Enters the first actor, which has the first turn.
    pub(super) fn enter_first(&self) {
        let mut inner = self.lock();
        let me = self.hire(&mut inner);
        inner.actors[me].thread = Some(std::thread::current());
    }

    /// Passes the turn to a random actor; returns when it is the turn of `me` again.
    pub(super) fn turn(&self, me: usize) -> Turn<'_> {
        let mut inner = self.lock();
        inner.pass(Some(me));
        if inner.turn == me {
            return inner;
        }
        self.hand_over(inner);
        self.wait(me)
    }

    /// Removes `me` from the schedule.
    pub(super) fn exit(&self, me: usize) {
        let mut inner = self.lock();
        inner.actors[me].is_alive = false;
        let now = inner.now;
        inner.actors[me].silent_since.get_or_insert(now);
        inner.pass(None);
        self.hand_over(inner);
    }

    /// Wakes the next actor. The lock is released first, because the woken thread needs it.
    fn hand_over(&self, inner: Turn<'_>) {
        // An actor that has not entered yet finds that it is its turn.
        let next = inner.actors[inner.turn].thread.clone();
        drop(inner);
        if let Some(thread) = next {
            thread.unpark();
        }
    }

    fn wait(&self, me: usize) -> Turn<'_> {
        loop {
            let inner = self.lock();
            if inner.turn == me {
                return inner;
            }
            drop(inner);
            std::thread::park();
        }
    }

    /// Returns the state after all actors have ended.
    pub(super) fn into_inner(self) -> SchedulerState {
        self.inner.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state without passing the turn; only for the actor that has the turn.
    pub(super) fn look(&self) -> Turn<'_> {
        self.lock()
    }
}

impl SchedulerState {
    /// Advances time, runs the coordinators, and selects the next actor.
    fn pass(&mut self, me: Option<usize>) {
        self.turns += 1;
        self.now += Duration::from_micros(self.random.random_range(100..4_000));
        if let Some(me) = me.filter(|me| *me > 0)
            && self.random.random_bool(self.faults / 8.0)
        {
            // A SIGSTOP mostly lasts longer than the timeout of a transaction or a session.
            self.actors[me].paused = self.now + Duration::from_millis(self.random.random_range(1_000..25_000));
            self.actors[me].silent_since.get_or_insert(self.now);
            self.pauses += 1;
        }
        loop {
            self.coordinate();
            for actor in &mut self.actors {
                if actor.is_alive && !actor.is_killed && actor.paused <= self.now {
                    actor.silent_since = None;
                }
            }
            let ready = |actor: &Actor| actor.is_alive && actor.paused <= self.now;
            let able = (0..self.actors.len()).filter(|at| ready(&self.actors[*at])).collect::<Vec<_>>();
            if !able.is_empty() {
                self.turn = able[self.random.random_range(0..able.len())];
                break;
            }
            let next = self.actors.iter().filter(|actor| actor.is_alive).map(|actor| actor.paused).min();
            match next {
                Some(next) => self.now = next,
                None => return,
            }
        }
        self.note(self.turn as u64);
    }

    fn coordinate(&mut self) {
        self.cluster.time_out(self.now);
        for id in self.cluster.deciding() {
            if self.random.random_bool(0.5) {
                self.cluster.write_marker(&id);
            }
        }
        let gone = |actor: usize| {
            self.actors[actor].silent_since.is_some_and(|since| self.now.saturating_sub(since) > SESSION)
        };
        let (inputs, outputs) = (self.cluster.partitions, self.cluster.outputs);
        for (group, partitions) in [(&mut self.cluster.group, inputs), (&mut self.cluster.sinks, outputs)] {
            let expired = group.members.iter().filter(|(_, member)| gone(member.actor)).map(|(name, _)| name.clone());
            for name in expired.collect::<Vec<_>>() {
                group.remove(&name, self.now);
            }
            group.settle(self.now, partitions);
        }
    }

    /// Kills the process of an actor, which notices it at its next call.
    pub(super) fn kill(&mut self, actor: usize) {
        let actor = &mut self.actors[actor];
        actor.silent_since.get_or_insert(self.now);
        self.kills += u64::from(!actor.is_killed);
        (actor.is_killed, actor.paused) = (true, self.now);
    }

    pub(super) fn note(&mut self, what: u64) {
        self.trace =
            (self.trace.rotate_left(5) ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.now.as_micros() as u64;
    }
}
