//! Faults of a call: before its effect, after it, or with the end of its process.

use std::sync::Arc;

use rand::RngExt;

use super::stage::{Scheduler, SchedulerState, Turn};
use crate::stream::client::{Fault, Remedy};

/// Kinds of faults before and after the effect of a call.
pub(super) type Kinds = (&'static [Remedy], &'static [Remedy]);

pub(super) const ASK: Kinds = (&[Remedy::Retry, Remedy::Retry, Remedy::Rebuild], &[Remedy::Retry]);
/// Share of faults for polls. Most calls are polls; with the usual share the other calls would have few faults.
pub(super) const POLL_SHARE: f64 = 0.15;
pub(super) const LOCAL: Kinds = (&[Remedy::Rebuild], &[Remedy::Rebuild]);
pub(super) const BEGIN: Kinds = (&[Remedy::Retry, Remedy::Rebuild], &[Remedy::Rebuild]);
pub(super) const SEND: Kinds = (&[Remedy::Abort, Remedy::Rebuild], &[Remedy::Abort]);
pub(super) const OFFSETS: Kinds = (&[Remedy::Abort, Remedy::Retry, Remedy::Rebuild], &[Remedy::Retry, Remedy::Abort]);
pub(super) const END: Kinds = (&[Remedy::Retry, Remedy::Rebuild], &[Remedy::Retry, Remedy::Rebuild]);

pub(super) fn dead() -> Fault {
    Fault::new(Remedy::Rebuild, "killed")
}

/// An actor of the simulation whose calls may have faults.
pub(super) trait Struck: Sized {
    /// Returns the scheduler and the number of the actor.
    fn place(&self) -> (&Arc<Scheduler>, usize);

    /// Runs one call: waits for the turn, then has its effect, its fault, or both.
    fn act<T>(
        &mut self,
        kinds: Kinds,
        effect: impl FnOnce(&mut Self, &mut SchedulerState) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.act_with(1.0, kinds, effect)
    }

    /// Runs one call like [`act`](Self::act), with a share of the usual faults.
    fn act_with<T>(
        &mut self,
        share: f64,
        (before, after): Kinds,
        effect: impl FnOnce(&mut Self, &mut SchedulerState) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (stage, me) = self.place();
        let stage = stage.clone();
        let mut inner: Turn<'_> = stage.turn(me);
        if inner.actors[me].is_killed {
            return Err(dead());
        }
        let faults = inner.faults * share;
        if !inner.random.random_bool(faults) {
            return effect(self, &mut inner);
        }
        inner.strikes += 1;
        let is_effective = inner.random.random_bool(0.5);
        let is_last = inner.random.random_bool(0.07);
        if is_effective {
            let done = effect(self, &mut inner);
            if !is_last {
                done?;
            }
        }
        if is_last {
            inner.kill(me);
            return Err(dead());
        }
        let kinds = if is_effective { after } else { before };
        let remedy = kinds[inner.random.random_range(0..kinds.len())];
        Err(Fault::new(remedy, "struck"))
    }
}
