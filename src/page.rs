//! The dashboard: pages and an API over an archive of anomalies. Knows HTTP, HTML and the trait [`Archive`]; not who
//! implements it, nor how the process lives.

mod asked;
mod assets;
mod chart;
mod health;
pub mod listener;
mod respond;
mod route;
mod shelf;
mod site;
mod view;

use std::sync::Arc;
use std::time::Duration;

use crate::archive::Archive;
use crate::error::Result;
use crate::event::Instant;
use listener::Handler;
use site::Site;

/// How the pages behave.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time after which an open page refreshes itself.
    pub refresh: Duration,
    /// The wall clock.
    pub clock: fn() -> Instant,
}

/// All pages over one archive.
///
/// # Errors
/// 70 when an embedded template is broken.
pub fn app(archive: Arc<dyn Archive>, options: Options) -> Result<Arc<Handler>> {
    let site = Site::new(archive, options)?;
    Ok(Arc::new(move |request| route::answer(&site, &request)))
}

#[cfg(test)]
mod tests;
