//! The request to stop, which every loop of the process sees, and a sleep that ends when it comes.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The request to stop. Once set, it stays set.
#[derive(Debug, Default)]
pub struct Stop {
    since: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Stop {
    /// Requests the stop of the process.
    pub fn request(&self) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.changed.notify_all();
    }

    /// Returns the time since the request, if there was one.
    pub fn elapsed(&self) -> Option<Duration> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    /// Returns whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.elapsed().is_some()
    }

    /// Sleeps for `time`, or until the request. Returns whether a stop was requested.
    pub fn wait(&self, time: Duration) -> bool {
        let guard = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, time, |since| since.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        guard.is_some()
    }
}
