//! Calls to the log that are repeated until they succeed, within limits.

use std::time::Duration;

use super::Worker;
use crate::health::ComponentState;
use crate::stream::client::{ClusterConnection, Fault, Remedy};

/// A call that has been retried for this long makes the worker degraded.
const PATIENCE: Duration = Duration::from_secs(2);

/// One that has been retried for this long, beyond the transaction's own timeout, is not going to succeed: the committed
/// offsets tell what became of it.
const LIMIT: Duration = Duration::from_secs(15);

impl<L: ClusterConnection> Worker<'_, L> {
    /// Calls until the answer is not `Retry`; gives up when the time to drain is over.
    pub(super) fn insist<T>(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut L) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let since = self.log.now();
        loop {
            match call(&mut self.log) {
                Err(fault) if fault.remedy == Remedy::Retry => {
                    if self.stop.elapsed().is_some_and(|elapsed| elapsed > self.plan.drain) {
                        return Err(Fault::new(Remedy::Rebuild, format_args!("{what}: {fault}")));
                    }
                    if self.log.now().saturating_sub(since) > LIMIT {
                        return Err(Fault { remedy: Remedy::Rebuild, ..fault });
                    }
                    if self.log.now().saturating_sub(since) > PATIENCE {
                        self.part.set(ComponentState::Degraded(format!("{what}: {fault}")));
                    }
                    self.part.beat();
                    self.log.sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }
}
