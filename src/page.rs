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
mod options;
mod outage;
mod query;
mod registry;
mod respond;
mod route;
mod site;
mod view;

use std::sync::Arc;

use crate::archive::Archive;
use crate::error::Result;
use crate::http::Handler;
pub use archive_watch::{ArchiveTroubles, ArchiveWatch};
use dashboard::Dashboard;
pub use options::SiteOptions;

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
