//! A limit of log lines per second, which counts the suppressed lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The limit, over windows of one second.
#[derive(Debug)]
pub(crate) struct LogRateLimit {
    per_second: u32,
    state: Mutex<Option<(Instant, u32, u64)>>,
}

impl LogRateLimit {
    /// Creates a limit; 0 suppresses every line.
    pub(crate) fn new(per_second: u32) -> Self {
        LogRateLimit { per_second, state: Mutex::new(None) }
    }

    /// Asks to log one line. `None`: suppress it. Otherwise the number of lines that were suppressed and not yet
    /// reported.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, passed, left_out) = state.get_or_insert((now, 0, 0));
        if now.duration_since(*since) >= Duration::from_secs(1) {
            (*since, *passed) = (now, 0);
        }
        if *passed >= self.per_second {
            *left_out += 1;
            return None;
        }
        *passed += 1;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted_by_the_next_line_that_passes() {
        let (limit, start) = (LogRateLimit::new(2), Instant::now());
        let seen = (0..5).map(|_| limit.pass(start)).collect::<Vec<_>>();
        assert_eq!(seen, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(3));
        assert_eq!(limit.pass(start + Duration::from_secs(1)), Some(0));
    }
}
