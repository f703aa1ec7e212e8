//! The common part of every client: its clock, and whether the cluster is available.

use std::time::Duration;

use super::fault::{Fault, Remedy};

/// Pause before a call is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// A client of the cluster. The clock is the client's own, so that a simulation can supply a virtual one.
pub(crate) trait ClusterConnection {
    /// Returns the time since some fixed moment; it never decreases.
    fn now(&self) -> Duration;

    /// Waits before a call is repeated.
    fn sleep(&mut self, time: Duration);

    /// Returns why the cluster is unavailable; `None` if it is available.
    fn trouble(&self) -> Option<String>;
}

/// Repeats a call while its remedy is `Retry`, until this time has passed.
///
/// # Errors
/// Returns the last fault of the call.
pub(crate) fn insist<C: ClusterConnection, T>(
    client: &mut C,
    limit: Duration,
    mut call: impl FnMut(&mut C) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let began = client.now();
    loop {
        match call(client) {
            Err(fault) if fault.remedy == Remedy::Retry && client.now().saturating_sub(began) < limit => {
                client.sleep(RETRY_PAUSE);
            }
            other => return other,
        }
    }
}
