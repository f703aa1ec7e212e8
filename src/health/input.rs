//! Measures the input as a whole, over all workers of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Monotonic};

use super::arrivals::{Arrivals, RejectReasons};
use super::{Activity, Component, ComponentState, Health};

/// Counts shared by the workers of a process. Its conditions belong to the component `input`.
#[derive(Debug)]
pub struct InputHealth {
    component: Arc<Component>,
    began: Monotonic,
    inner: Mutex<InputCounts>,
}

#[derive(Debug, Default)]
struct InputCounts {
    arrivals: Arrivals,
    /// Number of waiting records per worker.
    backlog: BTreeMap<String, i64>,
}

/// Minimum time between two evaluations.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);

impl InputHealth {
    /// Creates empty counts and their component.
    pub fn new(health: &Health) -> Arc<InputHealth> {
        let component = health.untimed_component("input");
        component.set(ComponentState::Running);
        Arc::new(InputHealth { component, began: Monotonic::now(), inner: Mutex::default() })
    }

    /// Adds the counts of a worker's commit.
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
        let Some(conditions) = inner.arrivals.conditions(self.began.elapsed(), EVALUATION_INTERVAL, all) else {
            return;
        };
        for (code, held) in conditions {
            self.component.set_condition(code, held);
        }
    }

    /// Removes a worker without partitions.
    pub fn forget(&self, worker: &str) {
        self.lock().backlog.remove(worker);
    }

    /// Returns the number of records that wait for all workers.
    #[cfg(test)]
    pub fn backlog(&self) -> i64 {
        self.lock().backlog.values().sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InputCounts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
