//! Decides which changes of state are logged.

use std::time::Instant as Monotonic;

use super::ComponentState;
use super::condition::LOG_AGAIN;

/// States that were logged since the component last served, with their times. A component that fails repeatedly is
/// logged no more often than one that waits.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    logged: Vec<(ComponentState, Monotonic)>,
}

impl Repeats {
    /// Returns whether to log a change to this state, and remembers it.
    pub(crate) fn is_news(&mut self, state: &ComponentState) -> bool {
        if matches!(state, ComponentState::Running | ComponentState::Stopped) {
            self.logged.clear();
            return true;
        }
        self.logged.retain(|(_, at)| at.elapsed() < LOG_AGAIN);
        let is_news = self.logged.iter().all(|(logged, _)| logged != state);
        if is_news {
            self.logged.push((state.clone(), Monotonic::now()));
        }
        is_news
    }
}

/// Names of log lines with the time of the last one. A loop that begins again and again logs each line at most once a
/// minute.
#[derive(Debug, Default)]
pub(super) struct RepeatedLines {
    logged: Vec<(String, Monotonic)>,
}

impl RepeatedLines {
    /// Returns whether to log a line of this name now, and remembers that it was logged.
    pub(crate) fn is_due(&mut self, line: &str) -> bool {
        self.logged.retain(|(_, at)| at.elapsed() < LOG_AGAIN);
        let is_due = self.logged.iter().all(|(logged, _)| logged != line);
        if is_due {
            self.logged.push((line.to_owned(), Monotonic::now()));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_begins_again_and_again_logs_each_state_once_until_it_serves() {
        let states = [
            ComponentState::Starting("taking over 6 partitions".into()),
            ComponentState::Degraded("a partition is missing".into()),
            ComponentState::Degraded("beginning again: a partition is missing".into()),
        ];
        let mut repeats = Repeats::default();
        let mut count = |states: &[ComponentState]| states.iter().filter(|state| repeats.is_news(state)).count();
        assert_eq!((count(&states), count(&states), count(&states)), (3, 0, 0));
        assert_eq!(count(&[ComponentState::Running]), 1);
        assert_eq!(count(&states), 3, "after it has served, each is news");
    }

    #[test]
    fn a_line_of_each_attempt_is_logged_once_a_minute() {
        let mut lines = RepeatedLines::default();
        let logged = (0..6).map(|attempt| lines.is_due(if attempt == 2 { "other" } else { "new partition 3" }));
        assert_eq!(logged.collect::<Vec<_>>(), [true, false, true, false, false, false]);
    }
}
