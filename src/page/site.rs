//! What all pages share: the archive, the templates, access control, the clock. Knows no page.

use std::sync::Arc;
use std::time::Duration;

use super::SiteOptions;
use super::answer_cache::{AnswerCache, CachedAnswer, NoNewAnswer};
use super::assets::Assets;
use super::auth::{Auth, Cookies, Proxies};
use super::outage::Outage;
use super::view::trend::Trend;
use crate::archive::{Archive, NoAnswer};
use crate::config::resolved::base::BasePath;
use crate::error::{Error, Result};
use crate::event::Timestamp;

/// Time between two probes in an outage.
const PROBE: Duration = Duration::from_secs(1);

/// Everything that a page is made of.
pub struct Site {
    /// What is recorded.
    pub archive: Arc<dyn Archive>,
    health: Arc<Outage>,
    /// Path below which a proxy shows all this.
    pub base: BasePath,
    /// Whether browsers are to use this host name over TLS only.
    pub is_tls_only: bool,
    /// Who may come in.
    pub door: Auth,
    /// Address of a record in a Kafka console; may be empty.
    pub console: String,
    lag: Trend,
    /// Style sheet and script.
    pub assets: Assets,
    /// Compiled templates.
    pub templates: tera::Tera,
    /// Of an open page, in seconds.
    pub refresh: u64,
}

macro_rules! templates {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("templates/", $name)))),*] };
}

/// Templates that several pages share. Tera escapes by a name's end: each must be `.html`.
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

/// Name and text of a template.
pub type Template = (&'static str, &'static str);

impl Site {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// 70 when a template is broken.
    pub fn new(archive: Arc<dyn Archive>, options: SiteOptions, pages: &[Template]) -> Result<Site> {
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
            door: Auth::new(options.access, Cookies::of(&options.base, options.port), Proxies::new(options.proxies)),
            is_tls_only: options.is_tls_only,
            base: options.base,
            console: options.console,
            health,
            assets: Assets::embedded(),
            templates,
            refresh: options.refresh.as_secs().max(1),
        })
    }

    /// Now, as readers are told.
    pub fn now(&self) -> Timestamp {
        self.health.now()
    }

    /// Whether the lag shrinks, as the answers of the last minute show it; `None` while that is not known.
    pub fn is_shrinking(&self, lag: Option<u64>, taken: Timestamp) -> Option<bool> {
        lag.and_then(|lag| self.lag.note(taken, lag))
    }

    /// Seconds by which this program's clock is ahead of the archive's, when they differ.
    pub fn clock_ahead(&self) -> Option<f64> {
        self.health.ahead()
    }

    /// An empty cache of answers; in an outage it gives the last ones.
    pub fn cache<K, V>(&self) -> AnswerCache<K, V>
    where
        K: Clone + PartialEq + Send + 'static,
        V: Send + Sync + 'static,
    {
        AnswerCache::new(Arc::clone(&self.health))
    }

    /// Whether the archive is known to give no answer.
    pub fn is_away(&self) -> bool {
        self.health.outage().is_some()
    }

    /// Takes note that the archive gave no answer.
    pub fn failed(&self, failure: &NoAnswer) -> NoNewAnswer {
        self.health.failed(failure);
        match failure {
            NoAnswer::Away(_) => NoNewAnswer::Away { since: self.health.outage().unwrap_or_else(|| self.now()) },
            NoAnswer::Slow => NoNewAnswer::Slow,
            NoAnswer::Refused(remedy) => NoNewAnswer::Refused(remedy.clone()),
        }
    }

    /// Asks the archive through a cache.
    pub fn ask<K, V>(
        &self,
        cache: &AnswerCache<K, V>,
        question: &K,
        look: fn(&dyn Archive, &K, Timestamp) -> std::result::Result<V, NoAnswer>,
    ) -> CachedAnswer<V>
    where
        K: Clone + PartialEq + Send + 'static,
        V: Send + Sync + 'static,
    {
        let (archive, asked) = (Arc::clone(&self.archive), question.clone());
        cache.get(question, move |now| look(archive.as_ref(), &asked, now))
    }
}
