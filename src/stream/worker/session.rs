//! The client of a worker, the limits of its retries, and its state in the health report.

use std::sync::Arc;
use std::time::Duration;

use crate::config::resolved::Settings;
use crate::health::{Component, ComponentState};
use crate::meter::Meter;
use crate::stop::Stop;
use crate::stream::client::{ClusterConnection, Fault, Remedy};

/// Duration of retries after which the worker is reported as degraded.
const DEGRADED_AFTER: Duration = Duration::from_secs(2);

/// Longest time of retries, beyond the transaction's own timeout. After it the committed offsets show the outcome.
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

/// The parts that all steps of a worker share. Each step requires only the traits of the client that it uses.
pub(super) struct WorkerSession<'a, C> {
    pub client: C,
    pub settings: &'a Settings,
    /// The worker in the health report.
    pub component: Arc<Component>,
    pub meter: Meter,
    pub stop: &'a Stop,
}

impl<C: ClusterConnection> WorkerSession<'_, C> {
    /// Calls until the answer is not `Retry`; gives up when the time to drain is over.
    pub(crate) fn insist<T>(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut C) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let since = self.client.now();
        loop {
            match call(&mut self.client) {
                Err(fault) if fault.remedy == Remedy::Retry => {
                    if self.stop.elapsed().is_some_and(|elapsed| elapsed > self.settings.service.drain_timeout) {
                        return Err(Fault::new(Remedy::Rebuild, format_args!("{what}: {fault}")));
                    }
                    if self.client.now().saturating_sub(since) > RETRY_TIMEOUT {
                        return Err(Fault { remedy: Remedy::Rebuild, ..fault });
                    }
                    if self.client.now().saturating_sub(since) > DEGRADED_AFTER {
                        self.component.set(ComponentState::Degraded(format!("{what}: {fault}")));
                    }
                    self.component.beat();
                    self.client.sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }
}
