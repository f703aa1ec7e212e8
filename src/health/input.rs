//! The input as a whole: what all workers of a process measure of it together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Monotonic};

use super::arrivals::{Arrivals, RejectReasons};
use super::{Activity, Component, ComponentState, Health};

/// Shared by the workers of a process. Its conditions are those of the part `input`.
#[derive(Debug)]
pub struct InputHealth {
    part: Arc<Component>,
    began: Monotonic,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    arrivals: Arrivals,
    /// Records that wait, by worker.
    backlog: BTreeMap<String, i64>,
}

/// Time between two evaluations.
const EVALUATE: Duration = Duration::from_secs(1);

impl InputHealth {
    /// Nothing came yet.
    pub fn new(health: &Health) -> Arc<InputHealth> {
        let part = health.untimed_part("input");
        part.set(ComponentState::Running);
        Arc::new(InputHealth { part, began: Monotonic::now(), inner: Mutex::default() })
    }

    /// What a worker has committed just now.
    pub fn note(&self, activities: impl Iterator<Item = Activity>, reasons: &RejectReasons) {
        self.lock().arrivals.note(self.began.elapsed(), activities, reasons);
    }

    /// Raises and clears the conditions; `backlog` is the number of records that wait for this worker.
    pub fn evaluate(&self, worker: &str, backlog: i64) {
        let mut inner = self.lock();
        match inner.backlog.get_mut(worker) {
            Some(known) => *known = backlog,
            None => {
                inner.backlog.insert(worker.to_owned(), backlog);
            }
        }
        let all = inner.backlog.values().sum();
        let Some(conditions) = inner.arrivals.conditions(self.began.elapsed(), EVALUATE, all) else { return };
        for (code, held) in conditions {
            self.part.set_condition(code, held);
        }
    }

    /// A worker has no partitions any more: nothing waits for it until it says so again.
    pub fn forget(&self, worker: &str) {
        self.lock().backlog.remove(worker);
    }

    /// Records that wait for all workers.
    #[cfg(test)]
    pub fn backlog(&self) -> i64 {
        self.lock().backlog.values().sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
