//! Measures how long anomalies wait for the ledger, and derives the condition that the sink cannot keep up.

use std::time::Duration;

use crate::health::ConditionSeverity;
use crate::stream::client::Positions;

/// Wait from which the sink is reported as too slow.
const REPORTED_DELAY: Duration = Duration::from_secs(60);

/// Measures the time from the end of the topic to the ledger. It notes the ends, waits until they are stored, and notes
/// the ends again.
#[derive(Default)]
pub(super) struct SinkDelay {
    /// The noted ends, and when they were noted.
    mark: Option<(Positions, Duration)>,
    /// Time that the last ends took.
    last: Duration,
}

impl SinkDelay {
    /// Returns the condition; `None` if nothing waits for a minute. `stored` has the ledger's offset of each partition,
    /// and `lag` is the number of waiting anomalies.
    pub(crate) fn watch(
        &mut self,
        now: Duration,
        stored: &Positions,
        ends: &Positions,
        lag: i64,
    ) -> Option<(ConditionSeverity, String)> {
        if let Some((mark, since)) = &self.mark {
            // A partition that was given away is not waited for.
            let is_stored = |(partition, end): (&i32, &i64)| stored.get(partition).is_none_or(|next| next >= end);
            if mark.iter().all(is_stored) {
                self.last = now.saturating_sub(*since);
                self.mark = None;
            }
        }
        if stored.is_empty() {
            (self.mark, self.last) = (None, Duration::ZERO);
            return None;
        }
        let (_, since) = self.mark.get_or_insert_with(|| {
            let ours = ends.iter().filter(|(partition, _)| stored.contains_key(partition));
            (ours.map(|(partition, end)| (*partition, *end)).collect(), now)
        });
        let delay = now.saturating_sub(*since).max(self.last);
        (lag > 0 && delay >= REPORTED_DELAY).then(|| {
            let minutes = delay.as_secs() / 60;
            let message = format!(
                "{lag} anomalies wait for the database, the oldest for {minutes} min or more: it stores them more slowly than they \
                 are found"
            );
            (ConditionSeverity::Notice, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_needs_a_minute_and_more_is_reported_until_it_needs_less() {
        let mut delay = SinkDelay::default();
        let at = |p: i64| Positions::from([(0, p)]);
        let mut watch = |second, stored, end| {
            delay.watch(Duration::from_secs(second), &at(stored), &at(end), end - stored).map(|(_, text)| text)
        };
        // One a second arrives, and one in three seconds is stored.
        let first = (0..600_u64).find(|second| watch(*second, *second as i64 / 3, *second as i64).is_some());
        assert!(first.is_some_and(|first| (60..240).contains(&first)), "{first:?}");
        let text = watch(600, 200, 600).unwrap();
        assert!(text.starts_with("400 anomalies wait for the database, the oldest for "), "{text}");
        assert!(watch(700, 201, 700).is_some(), "it lasts although one mark was stored");
        // The database is fast again.
        watch(701, 701, 701);
        assert_eq!(watch(702, 702, 702), None);
        assert_eq!(watch(703, 702, 703), None);
        assert_eq!(watch(704, 703, 704), None);
    }

    #[test]
    fn a_steady_load_that_is_stored_within_seconds_is_no_condition() {
        let mut delay = SinkDelay::default();
        for second in 0..600_i64 {
            let (stored, end) = (Positions::from([(0, second * 100)]), Positions::from([(0, second * 100 + 500)]));
            assert_eq!(delay.watch(Duration::from_secs(second as u64), &stored, &end, 500), None);
        }
    }
}
