//! The common part of every client: its clock, and whether the cluster is available.

use std::time::Duration;

/// A client of the cluster. The clock is the client's own, so that a simulation can supply a virtual one.
pub(crate) trait ClusterConnection {
    /// Returns the time since some fixed moment; it never decreases.
    fn now(&self) -> Duration;

    /// Waits before a call is repeated.
    fn sleep(&mut self, time: Duration);

    /// Returns why the cluster is unavailable; `None` if it is available.
    fn trouble(&self) -> Option<String>;
}
