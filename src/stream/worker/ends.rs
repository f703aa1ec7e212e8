//! Ends of partitions that hold no record: control records, and records of aborted transactions.

use std::time::Duration;

use super::Worker;
use crate::stream::client::RecordFetch;

/// Between two commits that only move offsets to the ends of partitions.
const MOVE_ENDS: Duration = Duration::from_secs(1);

impl<L: RecordFetch> Worker<'_, L> {
    /// Moves past control records and aborted records at the ends of partitions, so that no lag stays where nothing is left to
    /// judge; at most once a second. Whether there was one.
    pub(super) fn move_to_ends(&mut self) -> bool {
        let now = self.log.now();
        // A record that stops the worker is read, and not passed.
        if self.staged.poison.is_some() || now.saturating_sub(self.ends_moved) < MOVE_ENDS {
            return false;
        }
        let mut has_moved = false;
        for (partition, end) in self.log.reached() {
            if let Some(mark) = self.positions.get_mut(&partition).filter(|mark| mark.offset < end) {
                mark.offset = end;
                has_moved = true;
            }
        }
        if has_moved {
            self.ends_moved = now;
        }
        has_moved
    }
}
