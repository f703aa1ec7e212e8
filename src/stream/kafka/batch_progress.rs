//! Progress of the partitions within one batch of a reader of ranges.

use std::cell::RefCell;
use std::ops::Range;

use crate::stream::client::{OffsetRanges, Positions};

/// Progress of the partitions within one batch. Records arrive in runs of one partition, so the partition is looked up once
/// for each run.
pub(super) struct BatchProgress<'h> {
    left: &'h OffsetRanges,
    run: RefCell<(i32, Range<i64>)>,
    moved: RefCell<Positions>,
}

impl<'h> BatchProgress<'h> {
    /// Creates the progress of a batch that begins with these ranges.
    pub(crate) fn new(left: &'h OffsetRanges) -> Self {
        BatchProgress { left, run: RefCell::new((-1, 0..0)), moved: RefCell::default() }
    }

    /// Changes to the run of another partition.
    fn turn(&self, partition: i32) {
        let mut run = self.run.borrow_mut();
        if run.0 == partition {
            return;
        }
        let mut moved = self.moved.borrow_mut();
        let (of, range) = &*run;
        if self.left.get(of).is_some_and(|left| left.start < range.start) {
            moved.insert(*of, range.start);
        }
        let left = self.left.get(&partition).cloned().unwrap_or(0..0);
        *run = (partition, moved.get(&partition).copied().unwrap_or(left.start)..left.end);
    }

    /// Notes a record. Returns whether it is in the range of its partition.
    pub(crate) fn wants(&self, partition: i32, offset: i64) -> bool {
        self.turn(partition);
        let range = &mut self.run.borrow_mut().1;
        let is_wanted = range.contains(&offset);
        if offset >= range.start {
            range.start = (offset + 1).min(range.end);
        }
        is_wanted
    }

    /// Records that the end of the partition was reached.
    pub(crate) fn meet(&self, partition: i32, end: i64) {
        self.turn(partition);
        let range = &mut self.run.borrow_mut().1;
        if end >= range.end {
            range.start = range.end;
        }
    }

    /// Returns the next offset of each partition that advanced.
    pub(crate) fn moved(&self) -> Positions {
        self.turn(-1);
        self.moved.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_takes_each_record_once_and_ends_with_the_range() {
        let left = OffsetRanges::from([(0, 5..10), (1, 0..3), (2, 0..3), (3, 7..9)]);
        let progress = BatchProgress::new(&left);
        let wanted = [(0, 4), (0, 5), (0, 6), (1, 0), (0, 6), (0, 7), (1, 3), (4, 0)];
        let wanted = wanted.map(|(partition, offset)| progress.wants(partition, offset));
        assert_eq!(wanted, [false, true, true, true, false, true, false, false]);
        progress.meet(2, 3);
        progress.meet(3, 8);
        assert_eq!(progress.moved(), Positions::from([(0, 8), (1, 3), (2, 3)]));
    }
}
