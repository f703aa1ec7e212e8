//! The trend of the lag over the last minute.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::event::Timestamp;

/// Length of the observed time in milliseconds.
const MAX_DISTANCE: i64 = 60_000;
/// Minimum distance between two observations, in milliseconds.
const MIN_DISTANCE: i64 = 4_000;

/// Observed lags of the last minute, by time.
#[derive(Default)]
pub(crate) struct Trend(Mutex<VecDeque<(Timestamp, u64)>>);

impl Trend {
    /// Adds an observation and returns whether the lag shrinks; `None` while this is not known.
    pub(crate) fn note(&self, taken: Timestamp, lag: u64) -> Option<bool> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(time, _)| (0..MAX_DISTANCE).contains(&(taken.millis() - time.millis())));
        if seen.back().is_none_or(|(time, _)| *time < taken) {
            seen.push_back((taken, lag));
        }
        let (first, was) = seen.front()?;
        (taken.millis() - first.millis() >= MIN_DISTANCE).then_some(lag < *was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_shrinks_or_does_not_once_two_answers_are_far_enough_apart() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000).unwrap();
        let trend = Trend::default();
        assert_eq!(trend.note(at(0), 100), None);
        assert_eq!(trend.note(at(1), 90), None);
        assert_eq!(trend.note(at(6), 80), Some(true));
        assert_eq!(trend.note(at(12), 120), Some(false));
        assert_eq!(trend.note(at(300), 1), None, "what is too old tells nothing");
    }
}
