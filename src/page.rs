//! The dashboard: pages and an API that show an archive of anomalies. It uses HTTP, HTML and the trait [`Archive`]; it
//! does not know who implements the trait or how the process is run.

mod answer_cache;
mod archive_watch;
mod assets;
pub mod auth;
mod cached_page;
mod chart;
mod context;
mod dashboard;
mod frame;
mod live;
mod outage;
mod query;
mod registry;
mod respond;
mod route;
mod site;
mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::archive::Archive;
use crate::config::resolved::base::BasePath;
use crate::config::resolved::network::Network;
use crate::error::Result;
use crate::event::Timestamp;
use crate::http::Handler;
use crate::stop::Stop;
pub use archive_watch::{ArchiveTroubles, ArchiveWatch};
use auth::Access;
use dashboard::Dashboard;

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

/// Makes the handler for all pages of an archive, and starts the thread that feeds the event stream.
///
/// # Errors
/// 70 when an embedded template is not valid.
pub fn app(archive: Arc<dyn Archive>, options: SiteOptions) -> Result<Arc<Handler>> {
    watched_app(archive, options).map(|(handler, _)| handler)
}

/// Makes the handler as [`app`] does, and the watch that reports whether the archive answers.
///
/// # Errors
/// As [`app`].
pub fn watched_app(archive: Arc<dyn Archive>, options: SiteOptions) -> Result<(Arc<Handler>, ArchiveWatch)> {
    let dashboard = Arc::new(Dashboard::new(archive, options)?);
    live::follow(&dashboard)?;
    let watch = ArchiveWatch::new(Arc::clone(&dashboard));
    Ok((Arc::new(move |request| route::answer(&dashboard, request)), watch))
}

#[cfg(test)]
mod tests;
