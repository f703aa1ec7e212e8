//! Measures for how long a producer's events wait without a delivery. librdkafka reports no error while it does not know
//! the leader of a partition, or while a broker accepts requests and does not answer.

use std::time::{Duration, Instant};

/// Time without a delivery after which waiting events are reported.
const LIMIT: Duration = Duration::from_secs(5);
/// Maximum time between two notes that counts. A process that was suspended does not know what happened meanwhile.
const MAX_NOTE_GAP: Duration = Duration::from_secs(2);

/// Events that wait, and the time in which none was delivered.
#[derive(Debug)]
pub(super) struct Undelivered {
    delivered: u64,
    waiting: u64,
    /// Time without a delivery while events waited.
    stood: Duration,
    noted: Instant,
}

impl Undelivered {
    pub(super) fn new(now: Instant) -> Self {
        Undelivered { delivered: 0, waiting: 0, stood: Duration::ZERO, noted: now }
    }

    /// Notes the number of delivered events so far, and of those that wait. Call it several times a second.
    pub(super) fn note(&mut self, delivered: u64, waiting: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.noted);
        if waiting == 0 || self.waiting == 0 || delivered != self.delivered {
            self.stood = Duration::ZERO;
        } else if passed <= MAX_NOTE_GAP {
            self.stood += passed;
        }
        (self.delivered, self.waiting, self.noted) = (delivered, waiting, now);
    }

    /// Returns for how long events have waited without a delivery.
    pub(super) fn stood(&self) -> Duration {
        self.stood
    }

    /// Returns the sentence for the operator after 5 s without a delivery.
    pub(super) fn trouble(&self) -> Option<String> {
        let text = || format!("no event was delivered for {} s; {} events wait", self.stood.as_secs(), self.waiting);
        (self.stood >= LIMIT).then(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_wait_without_an_error_are_reported_until_one_is_delivered() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut undelivered = Undelivered::new(start);
        (0..=20).for_each(|second| undelivered.note(7, 0, at(second * 1_000)));
        assert_eq!(undelivered.trouble(), None, "no event waits");
        (21..=25).for_each(|second| undelivered.note(7, 3, at(second * 1_000)));
        assert_eq!(undelivered.trouble(), None, "they have waited for four seconds");
        undelivered.note(7, 4, at(26_000));
        assert_eq!(undelivered.trouble().as_deref(), Some("no event was delivered for 5 s; 4 events wait"));
        undelivered.note(7, 4, at(90_000));
        assert_eq!(undelivered.stood(), Duration::from_secs(5), "the process was suspended");
        undelivered.note(8, 900, at(90_500));
        assert_eq!(undelivered.trouble(), None, "an event was delivered");
    }
}
