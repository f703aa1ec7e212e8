//! The options of the dashboard.

use std::sync::Arc;
use std::time::Duration;

use super::auth::Access;
use crate::config::resolved::base::BasePath;
use crate::config::resolved::network::Network;
use crate::event::Timestamp;
use crate::stop::Stop;

/// Options of the dashboard, from the settings.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// Interval at which an open page refreshes itself.
    pub refresh: Duration,
    /// Returns the time of the wall clock.
    pub clock: fn() -> Timestamp,
    /// Path prefix under which a proxy publishes the dashboard.
    pub base: BasePath,
    /// Port of the dashboard. It is part of the cookies' names, so that two dashboards on one host do not share
    /// cookies.
    pub port: u16,
    /// Proxies whose forwarding headers are trusted.
    pub proxies: Vec<Network>,
    /// Whether browsers must use TLS for this host name from now on (HSTS).
    pub is_tls_only: bool,
    /// Access control of the pages.
    pub access: Access,
    /// URL of a record in a Kafka console, with the placeholders `{topic}`, `{partition}` and `{offset}`; empty for no
    /// link.
    pub console: String,
    /// Stop request of the process; it ends the event streams.
    pub stop: Arc<Stop>,
}
