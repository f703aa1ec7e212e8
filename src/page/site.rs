//! What all pages share: the archive behind its shelves, the templates, the clock.

use std::sync::Arc;
use std::time::Duration;

use super::SiteOptions;
use super::answer_cache::{AnswerCache, CachedAnswer, NoNewAnswer};
use super::assets::Assets;
use super::auth::{Auth, Cookies, Proxies};
use super::live::Hub;
use super::outage::Outage;
use super::query::PageQuery;
use super::view::banner::{self, BannerContext, Tone};
use super::view::trend::Trend;
use super::view::{dead_letters, detection, device, devices, explain, list, overview};
use crate::archive::{Archive, NoAnswer};
use crate::config::resolved::base::BasePath;
use crate::error::{Error, Result};
use crate::event::Timestamp;

/// Time between two probes in an outage.
const PROBE: Duration = Duration::from_secs(1);

/// How old the overview's verdict may be on another page.
const ALARM: Duration = Duration::from_secs(20);

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
    /// Those who follow.
    pub hub: Arc<Hub>,
    /// Address of a record in a Kafka console; may be empty.
    pub console: String,
    /// By what was asked.
    pub overview: AnswerCache<PageQuery, overview::OverviewData>,
    /// By what was asked; also the API's.
    pub list: AnswerCache<PageQuery, list::ListData>,
    /// By what was asked.
    pub devices: AnswerCache<PageQuery, devices::DevicesData>,
    /// By device or series and what was asked.
    pub device: AnswerCache<(device::Name, PageQuery), device::DeviceData>,
    /// By what was asked.
    pub detection: AnswerCache<PageQuery, detection::DetectionData>,
    /// By what was asked.
    pub dead_letters: AnswerCache<PageQuery, dead_letters::DeadLettersData>,
    /// By topic, partition and offset.
    pub explain: AnswerCache<explain::AnomalyId, Option<explain::ExplainData>>,
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

/// Tera escapes by a name's end: each must be `.html`.
const TEMPLATES: [(&str, &str); 16] = templates![
    "base.html",
    "banner.html",
    "outside.html",
    "row.html",
    "rows.html",
    "dead_letters.html",
    "detection.html",
    "login.html",
    "keys.html",
    "filters.html",
    "overview.html",
    "list.html",
    "devices.html",
    "device.html",
    "explain.html",
    "notice.html",
];

impl Site {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// 70 when a template is broken.
    pub fn new(archive: Arc<dyn Archive>, options: SiteOptions) -> Result<Site> {
        let mut templates = tera::Tera::new();
        let base = options.base.clone();
        templates.register_filter("link", move |address: &str, _: tera::Kwargs, _: &tera::State| base.link(address));
        templates
            .add_raw_templates(TEMPLATES)
            .map_err(|e| Error::internal(format_args!("an embedded template is broken: {e}")))?;
        let health = Arc::new(Outage::new(options.clock, PROBE));
        health.watch(&archive);
        Ok(Site {
            archive,
            overview: AnswerCache::new(Arc::clone(&health)),
            list: AnswerCache::new(Arc::clone(&health)),
            devices: AnswerCache::new(Arc::clone(&health)),
            device: AnswerCache::new(Arc::clone(&health)),
            detection: AnswerCache::new(Arc::clone(&health)),
            dead_letters: AnswerCache::new(Arc::clone(&health)),
            lag: Trend::default(),
            door: Auth::new(options.access, Cookies::of(&options.base, options.port), Proxies::new(options.proxies)),
            is_tls_only: options.is_tls_only,
            base: options.base,
            hub: Arc::new(Hub::new(options.stop)),
            console: options.console,
            explain: AnswerCache::new(Arc::clone(&health)),
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

    /// What is known besides an answer that was given at `taken`.
    pub fn seen(&self, data: &overview::OverviewData, taken: Timestamp) -> BannerContext {
        let is_shrinking = data.lag(taken).and_then(|lag| self.lag.note(taken, lag));
        BannerContext { is_shrinking, ahead: self.health.ahead() }
    }

    /// What is wrong with the detection, where another page has just said it. Asks nothing.
    pub fn alarm(&self) -> Option<String> {
        let (data, taken) = self.overview.peek(&PageQuery::default(), ALARM)?;
        let banner = banner::verdict(&data, &PageQuery::default(), taken, self.now(), self.seen(&data, taken));
        matches!(banner.tone, Tone::Degraded | Tone::Stopped).then(|| banner.sentence())
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

    /// Asks the archive by way of a shelf.
    pub fn ask<K, V>(
        &self,
        shelf: &AnswerCache<K, V>,
        question: &K,
        look: fn(&dyn Archive, &K, Timestamp) -> std::result::Result<V, NoAnswer>,
    ) -> CachedAnswer<V>
    where
        K: Clone + PartialEq + Send + 'static,
        V: Send + Sync + 'static,
    {
        let (archive, asked) = (Arc::clone(&self.archive), question.clone());
        shelf.get(question, move |now| look(archive.as_ref(), &asked, now))
    }
}
