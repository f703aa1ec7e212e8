//! Taking records: one poll, judged at once.

use std::time::Duration;

use super::{BATCH, Worker};
use crate::stream::client::{Fault, RecordFetch, Remedy};

/// How long a poll waits when nothing is open.
const IDLE: Duration = Duration::from_millis(200);

impl<L: RecordFetch> Worker<'_, L> {
    /// Polls, and judges what comes into `staged`.
    pub(super) fn take(&mut self) -> Result<usize, Fault> {
        let wait = match self.open {
            // The history is waited for.
            _ if self.restoring.is_some() => Duration::ZERO,
            Some(since) => self.plan.commit_interval.saturating_sub(self.log.now().saturating_sub(since)),
            None => IDLE,
        };
        let Worker { log, decoder, detector, plan, positions, staged, restoring, dead_letter_limit, .. } = self;
        staged.tick();
        let mut leaked = false;
        let taken = log.poll(wait, BATCH, &mut |partition, records| {
            if restoring.as_ref().is_some_and(|restoring| restoring.has(partition)) {
                leaked = true;
            } else if let Some(mark) = positions.get_mut(&partition) {
                staged.judge(plan, decoder, detector, partition, records, mark, *dead_letter_limit);
            }
        })?;
        if leaked {
            return Err(Fault::new(Remedy::Rebuild, "a paused partition gave a record"));
        }
        Ok(taken)
    }
}
