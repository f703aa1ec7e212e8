//! Number of records that the sink stores at once. It is halved when the database cancels a statement because it took
//! too long, and doubled again later.

use std::time::Duration;

/// Time without a cancelled statement after which the size is doubled. Each attempt may take a whole
/// `postgres.statement_timeout`.
const RAISE: Duration = Duration::from_secs(600);

/// Size of the sink's batches.
pub(super) struct BatchSize {
    largest: usize,
    current: usize,
    /// Time of the next doubling, by the reader's clock.
    next_raise: Duration,
}

impl BatchSize {
    /// Starts with the largest size.
    pub(crate) fn new(largest: usize) -> Self {
        BatchSize { largest, current: largest, next_raise: Duration::ZERO }
    }

    /// Returns the number of records to store at once, of those that wait.
    pub(crate) fn of(&self, waiting: usize) -> usize {
        waiting.min(self.current)
    }

    /// Notes that a batch was stored.
    pub(crate) fn note_stored(&mut self, now: Duration) {
        if self.current < self.largest && now >= self.next_raise {
            self.current = self.current.saturating_mul(2).min(self.largest);
            self.next_raise = now + RAISE;
        }
    }

    /// Notes that the database cancelled a statement for this many records. Returns whether a smaller batch is possible.
    pub(crate) fn note_cancelled(&mut self, records: usize, now: Duration) -> bool {
        self.current = (records / 2).max(1);
        self.next_raise = now + RAISE;
        records > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_halved_down_to_one_and_doubled_after_a_time_without_cancelled_statements() {
        let (mut size, start) = (BatchSize::new(8), Duration::from_secs(5));
        let halved = [8, 4, 2, 1].map(|records| (size.of(100), size.note_cancelled(records, start)));
        assert_eq!(halved, [(8, true), (4, true), (2, true), (1, false)]);
        size.note_stored(start + RAISE - Duration::from_millis(1));
        assert_eq!(size.of(100), 1);
        let raised = [1, 1, 2, 3, 9].map(|times| {
            size.note_stored(start + RAISE * times);
            size.of(100)
        });
        assert_eq!(raised, [2, 2, 4, 8, 8]);
        assert_eq!(size.of(3), 3);
    }
}
