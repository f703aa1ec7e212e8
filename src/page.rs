//! The dashboard: pages and an API over an archive of anomalies. Knows HTTP, HTML and the trait [`Archive`]; not who
//! implements it, nor how the process lives.

mod answer_cache;
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
use auth::Access;
use dashboard::Dashboard;

/// How the pages behave.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// Time after which an open page refreshes itself.
    pub refresh: Duration,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
    /// Path below which a proxy shows the pages.
    pub base: BasePath,
    /// Port of the pages, which tells their cookies from those of another dashboard on this host.
    pub port: u16,
    /// Proxies that are believed.
    pub proxies: Vec<Network>,
    /// Whether browsers are to use this host name over TLS only.
    pub is_tls_only: bool,
    /// Who may come in.
    pub access: Access,
    /// Address of a record in a Kafka console, with `{topic}`, `{partition}` and `{offset}` in it; empty: no link.
    pub console: String,
    /// Event streams end when it is requested.
    pub stop: Arc<Stop>,
}

/// All pages over one archive.
///
/// # Errors
/// 70 when an embedded template is broken.
pub fn app(archive: Arc<dyn Archive>, options: SiteOptions) -> Result<Arc<Handler>> {
    let dashboard = Arc::new(Dashboard::new(archive, options)?);
    live::follow(&dashboard)?;
    Ok(Arc::new(move |request| route::answer(&dashboard, request)))
}

#[cfg(test)]
mod tests;
