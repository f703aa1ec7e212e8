//! What all pages share: the archive, the templates, access control, the clock. It does not know any page.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::answer_cache::{AnswerCache, CachedAnswer, NoNewAnswer};
use super::assets::Assets;
use super::auth::{Auth, Cookies, Proxies};
use super::options::SiteOptions;
use super::outage::Outage;
use super::view::trend::Trend;
use crate::archive::{Archive, NoAnswer};
use crate::config::resolved::base::BasePath;
use crate::error::{Error, Result};
use crate::event::Timestamp;

/// Maximum number of exports that are sent at the same time.
pub(crate) const EXPORTS: usize = 8;
/// Pause between two probes in an outage.
const PROBE: Duration = Duration::from_secs(1);

/// Data and services that all pages share.
pub(crate) struct Site {
    /// The archive that stores the anomalies.
    pub archive: Arc<dyn Archive>,
    health: Arc<Outage>,
    /// Path prefix under which a proxy publishes the dashboard.
    pub base: BasePath,
    /// Whether browsers must use TLS for this host name from now on (HSTS).
    pub is_tls_only: bool,
    /// Access control of the pages.
    pub auth: Auth,
    /// URL of a record in a Kafka console; empty for no link.
    pub console: String,
    lag: Trend,
    /// The style sheet and the script, with their hashes.
    pub assets: Assets,
    /// The compiled templates of all pages.
    pub templates: tera::Tera,
    /// Free places for exports.
    pub exports: Arc<Semaphore>,
    /// Refresh interval of an open page, in seconds.
    pub refresh: u64,
}

macro_rules! templates {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("templates/", $name)))),*] };
}

/// Templates that several pages share. Tera escapes HTML only in templates whose name ends in `.html`.
const SHARED: [Template; 9] = templates![
    "base.html",
    "banner.html",
    "outside.html",
    "row.html",
    "rows.html",
    "login.html",
    "keys.html",
    "filters.html",
    "notice.html",
];

/// Name and text of a template, both embedded.
pub(crate) type Template = (&'static str, &'static str);

impl Site {
    /// Makes a site without querying the archive.
    ///
    /// # Errors
    /// 70 when a template is not valid.
    pub(crate) fn new(archive: Arc<dyn Archive>, options: SiteOptions, pages: &[Template]) -> Result<Site> {
        let mut templates = tera::Tera::new();
        let base = options.base.clone();
        templates.register_filter("link", move |address: &str, _: tera::Kwargs, _: &tera::State| base.link(address));
        templates
            .add_raw_templates(SHARED.iter().chain(pages).copied())
            .map_err(|e| Error::internal(format_args!("an embedded template is broken: {e}")))?;
        let health = Arc::new(Outage::new(options.clock, PROBE));
        health.watch(&archive);
        Ok(Site {
            archive,
            lag: Trend::default(),
            auth: Auth::new(options.access, Cookies::of(&options.base, options.port), Proxies::new(options.proxies)),
            is_tls_only: options.is_tls_only,
            base: options.base,
            console: options.console,
            health,
            assets: Assets::embedded(),
            templates,
            exports: Arc::new(Semaphore::new(EXPORTS)),
            refresh: options.refresh.as_secs().max(1),
        })
    }

    /// Returns the current time by the database's clock, as far as its offset is known.
    pub(crate) fn now(&self) -> Timestamp {
        self.health.now()
    }

    /// Returns whether the lag has shrunk in the last minute; `None` while this is not known.
    pub(crate) fn is_shrinking(&self, lag: Option<u64>, taken: Timestamp) -> Option<bool> {
        lag.and_then(|lag| self.lag.note(taken, lag))
    }

    /// Returns by how many seconds this machine's clock is ahead of the database's, if the difference matters.
    pub(crate) fn clock_ahead(&self) -> Option<f64> {
        self.health.ahead()
    }

    /// Makes an empty answer cache. In an outage it returns the last answers.
    pub(crate) fn cache<K, V>(&self) -> AnswerCache<K, V>
    where
        K: Clone + PartialEq + Send + 'static,
        V: Send + Sync + 'static,
    {
        AnswerCache::new(Arc::clone(&self.health))
    }

    /// Returns the state of the archive: whether it answers.
    pub(crate) fn health(&self) -> &Outage {
        &self.health
    }

    /// Returns whether the archive is known to be unreachable.
    pub(crate) fn is_away(&self) -> bool {
        self.health.outage().is_some()
    }

    /// Records a failure of the archive, and returns it as the reason for a page.
    pub(crate) fn failed(&self, failure: &NoAnswer) -> NoNewAnswer {
        self.health.failed(failure);
        match failure {
            NoAnswer::Unavailable(_) => {
                NoNewAnswer::Unavailable { since: self.health.outage().unwrap_or_else(|| self.now()) }
            }
            NoAnswer::Slow => NoNewAnswer::Slow,
            NoAnswer::Refused(remedy) => NoNewAnswer::Refused(remedy.clone()),
        }
    }

    /// Queries the archive through a cache.
    pub(crate) fn ask<K, V>(
        &self,
        cache: &AnswerCache<K, V>,
        key: &K,
        load: fn(&dyn Archive, &K, Timestamp) -> std::result::Result<V, NoAnswer>,
    ) -> CachedAnswer<V>
    where
        K: Clone + PartialEq + Send + 'static,
        V: Send + Sync + 'static,
    {
        let (archive, owned) = (Arc::clone(&self.archive), key.clone());
        cache.get(key, move |now| load(archive.as_ref(), &owned, now))
    }
}
