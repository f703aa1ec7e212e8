//! What all pages share: the archive behind its shelves, the templates, the clock.

use std::sync::Arc;
use std::time::Duration;

use super::Options;
use super::asked::Asked;
use super::assets::Assets;
use super::door::{Cookies, Door, Proxies};
use super::health::Health;
use super::live::Hub;
use super::shelf::{Got, Shelf, Why};
use super::view::strip::{self, Seen, Tone};
use super::view::trend::Trend;
use super::view::{dead_letters, detection, device, devices, explain, list, overview};
use crate::archive::{Archive, Failure};
use crate::config::resolved::base::BasePath;
use crate::error::{Error, Result};
use crate::event::Instant;

/// Time between two probes in an outage.
const PROBE: Duration = Duration::from_secs(1);

/// How old the overview's verdict may be on another page.
const ALARM: Duration = Duration::from_secs(20);

/// Everything that a page is made of.
pub struct Site {
    /// What is recorded.
    pub archive: Arc<dyn Archive>,
    health: Arc<Health>,
    /// Path below which a proxy shows all this.
    pub base: BasePath,
    /// Whether browsers are to use this host name over TLS only.
    pub is_tls_only: bool,
    /// Who may come in.
    pub door: Door,
    /// Those who follow.
    pub hub: Arc<Hub>,
    /// Address of a record in a Kafka console; may be empty.
    pub console: String,
    /// By what was asked.
    pub overview: Shelf<Asked, overview::Data>,
    /// By what was asked; also the API's.
    pub list: Shelf<Asked, list::Data>,
    /// By what was asked.
    pub devices: Shelf<Asked, devices::Data>,
    /// By device or series and what was asked.
    pub device: Shelf<(device::Name, Asked), device::Data>,
    /// By what was asked.
    pub detection: Shelf<Asked, detection::Data>,
    /// By what was asked.
    pub dead_letters: Shelf<Asked, dead_letters::Data>,
    /// By topic, partition and offset.
    pub explain: Shelf<explain::Place, Option<explain::Data>>,
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
    "strip.html",
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
    pub fn new(archive: Arc<dyn Archive>, options: Options) -> Result<Site> {
        let mut templates = tera::Tera::new();
        let base = options.base.clone();
        templates.register_filter("link", move |address: &str, _: tera::Kwargs, _: &tera::State| base.link(address));
        templates
            .add_raw_templates(TEMPLATES)
            .map_err(|e| Error::internal(format_args!("an embedded template is broken: {e}")))?;
        let health = Arc::new(Health::new(options.clock, PROBE));
        health.watch(&archive);
        Ok(Site {
            archive,
            overview: Shelf::new(Arc::clone(&health)),
            list: Shelf::new(Arc::clone(&health)),
            devices: Shelf::new(Arc::clone(&health)),
            device: Shelf::new(Arc::clone(&health)),
            detection: Shelf::new(Arc::clone(&health)),
            dead_letters: Shelf::new(Arc::clone(&health)),
            lag: Trend::default(),
            door: Door::new(options.access, Cookies::of(&options.base, options.port), Proxies::new(options.proxies)),
            is_tls_only: options.is_tls_only,
            base: options.base,
            hub: Arc::new(Hub::new(options.stop)),
            console: options.console,
            explain: Shelf::new(Arc::clone(&health)),
            health,
            assets: Assets::embedded(),
            templates,
            refresh: options.refresh.as_secs().max(1),
        })
    }

    /// Now, as readers are told.
    pub fn now(&self) -> Instant {
        self.health.now()
    }

    /// What is known besides an answer that was given at `taken`.
    pub fn seen(&self, data: &overview::Data, taken: Instant) -> Seen {
        let is_shrinking = data.lag(taken).and_then(|lag| self.lag.note(taken, lag));
        Seen { is_shrinking, ahead: self.health.ahead() }
    }

    /// What is wrong with the detection, where another page has just said it. Asks nothing.
    pub fn alarm(&self) -> Option<String> {
        let (data, taken) = self.overview.peek(&Asked::default(), ALARM)?;
        let strip = strip::verdict(&data, &Asked::default(), taken, self.now(), self.seen(&data, taken));
        matches!(strip.tone, Tone::Degraded | Tone::Stopped).then(|| strip.sentence())
    }

    /// Whether the archive is known to give no answer.
    pub fn is_away(&self) -> bool {
        self.health.outage().is_some()
    }

    /// Takes note that the archive gave no answer.
    pub fn failed(&self, failure: &Failure) -> Why {
        self.health.failed(failure);
        match failure {
            Failure::Away(_) => Why::Away { since: self.health.outage().unwrap_or_else(|| self.now()) },
            Failure::Slow => Why::Slow,
            Failure::Refused(remedy) => Why::Refused(remedy.clone()),
        }
    }

    /// Asks the archive by way of a shelf.
    pub fn ask<K, V>(
        &self,
        shelf: &Shelf<K, V>,
        question: &K,
        look: fn(&dyn Archive, &K, Instant) -> std::result::Result<V, Failure>,
    ) -> Got<V>
    where
        K: Clone + PartialEq + Send + 'static,
        V: Send + Sync + 'static,
    {
        let (archive, asked) = (Arc::clone(&self.archive), question.clone());
        shelf.get(question, move |now| look(archive.as_ref(), &asked, now))
    }
}
