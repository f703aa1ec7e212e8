//! Decides when the events of a file are due: at their original pace, scaled. Some times in a file are wrong. A single
//! time or gap therefore cannot determine how long a replay pauses.

use std::time::Duration;

use crate::event::Timestamp;

/// Pause for a gap that is skipped.
const GAP: Duration = Duration::from_secs(1);

/// A time that does not continue those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The time that the replay had reached.
    pub from: Timestamp,
    /// The time that does not continue it.
    pub to: Timestamp,
}

/// The pace of a replay.
#[derive(Debug)]
pub(crate) struct Pace {
    speed: f64,
    /// Longest pause, in milliseconds of the file's times.
    longest: i64,
    /// The time that the replay has reached.
    base: Option<Timestamp>,
    /// A time far from `base`: it is wrong, or the next ones are close to it.
    aside: Option<Timestamp>,
    /// Newest time for which there was a pause.
    newest: Option<Timestamp>,
    /// When the reached time is due, after the start.
    due: Duration,
}

impl Pace {
    /// Creates a pace that is `speed` times as fast as the file's times; 0: without pauses. No pause is longer than
    /// `longest`.
    pub(crate) fn new(speed: f64, longest: Duration) -> Self {
        let longest = (longest.as_millis() as f64 * speed) as i64;
        Pace { speed, longest, base: None, aside: None, newest: None, due: Duration::ZERO }
    }

    /// Returns when an event of this time is due, after the start, and whether its time does not continue those before
    /// it.
    pub(crate) fn due(&mut self, at: Option<Timestamp>) -> (Duration, Option<Jump>) {
        let Some(at) = at.filter(|_| self.speed > 0.0) else { return (self.due, None) };
        let Some(base) = self.base else {
            (self.base, self.newest) = (Some(at), Some(at));
            return (self.due, None);
        };
        let step = at.millis() - base.millis();
        if step.abs() <= self.longest {
            self.aside = None;
            if step > 0 {
                let pause = Duration::try_from_secs_f64(step as f64 / 1000.0 / self.speed);
                self.pause(pause.unwrap_or(Duration::MAX), at);
                self.base = Some(at);
            }
            return (self.due, None);
        }
        // Two consecutive times far from the others: the file continues there.
        let goes_on = self.aside.is_some_and(|aside| {
            let step_aside = at.millis() - aside.millis();
            (-self.longest..).contains(&step_aside) && (step > 0) == (aside > base)
        });
        if goes_on {
            let is_new = self.newest.is_none_or(|newest| at.millis() - newest.millis() > self.longest);
            if step > 0 && is_new {
                self.pause(GAP, at);
            }
            (self.base, self.aside) = (Some(at), None);
        } else {
            self.aside = Some(at);
        }
        (self.due, Some(Jump { from: base, to: at }))
    }

    fn pause(&mut self, pause: Duration, until: Timestamp) {
        self.due = self.due.saturating_add(pause);
        self.newest = self.newest.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Returns when events of these times are due, in seconds.
    fn due(speed: f64, longest: Duration, times: &[i64]) -> Vec<f64> {
        let mut pace = Pace::new(speed, longest);
        times.iter().map(|at| pace.due(Timestamp::from_millis(at * 1000)).0.as_secs_f64()).collect()
    }

    #[test]
    fn the_original_pace_is_kept_and_scaled() {
        assert_eq!(due(1.0, HOUR, &[100, 101, 103, 3600]), [0.0, 1.0, 3.0, 3500.0]);
        assert_eq!(due(10.0, HOUR, &[100, 101, 103]), [0.0, 0.1, 0.3]);
        assert_eq!(due(0.0, HOUR, &[100, 101, 99_999_999]), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn times_out_of_order_do_not_slow_the_replay_down() {
        assert_eq!(due(1.0, HOUR, &[10, 5, 11, 6, 12]), [0.0, 0.0, 1.0, 1.0, 2.0]);
    }

    #[test]
    fn no_wrong_time_stops_the_replay_or_sets_its_pace() {
        let (then, now, far) = (0, 1_764_000_000, 4_300_000_000);
        // The first row is of 1970.
        assert_eq!(due(1.0, HOUR, &[then, now, now + 1, now + 2]), [0.0, 0.0, 1.0, 2.0]);
        // The first row is of 2106.
        assert_eq!(due(1.0, HOUR, &[far, now, now + 1, now + 2]), [0.0, 0.0, 0.0, 1.0]);
        // One row in the middle, and every second row.
        assert_eq!(due(1.0, HOUR, &[now, far, now + 1, then, now + 2]), [0.0, 0.0, 1.0, 1.0, 2.0]);
        let every_second = (0..1000).flat_map(|i| [now + i, far + i]).collect::<Vec<_>>();
        assert_eq!(due(1.0, HOUR, &every_second).last(), Some(&999.0));
    }

    #[test]
    fn a_gap_longer_than_the_longest_pause_is_skipped() {
        let day = 86_400;
        assert_eq!(due(1.0, HOUR, &[0, 1, day, day + 1, day + 2]), [0.0, 1.0, 1.0, 2.0, 3.0]);
        // One reading per day: neither all at once, nor a pause of a day.
        let days = (0..100).map(|i| i * day).collect::<Vec<_>>();
        assert_eq!(due(1.0, HOUR, &days).last(), Some(&49.0));
        // The speed makes the gap short.
        assert_eq!(due(100.0, HOUR, &[0, day]), [0.0, 864.0]);
    }

    #[test]
    fn a_file_whose_times_begin_again_continues_at_its_pace() {
        let (now, day) = (1_764_000_000, 86_400);
        let times = [now + day, now, now + 1, now + 2, now + day, now + day + 1];
        assert_eq!(due(1.0, HOUR, &times), [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_extremes_of_time_do_not_overflow() {
        let (first, last) = (-62_167_219_200, 253_402_300_799);
        for speed in [1e-9, 1.0, 1e9] {
            due(speed, Duration::MAX, &[first, last, first, last]);
        }
    }
}
