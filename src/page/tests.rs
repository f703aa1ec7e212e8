//! Tests of whole pages over an archive in memory: routes, hostile names, outages.

mod access;
mod api;
mod archive_watch;
mod base;
mod blind;
mod silent;
mod states;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use super::auth::Access;
use super::chart::spark::tests::sample;
use super::{SiteOptions, app};
use crate::anomaly::{Anomaly, AnomalyId};
use crate::archive::*;
use crate::config::resolved::base::BasePath;
use crate::event::Timestamp;
use crate::health::{Activity, Tally};
use crate::http::{Handler, Request, Response, ResponseBody};
use crate::unavailable::Unavailable;

/// A device name with markup, a path, right-to-left letters and a character that changes the writing direction.
const HOSTILE: &str = "<script>alert(1)</script>'\"&/../%\u{5d0}\u{202e}";

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-23T17:00:12Z").unwrap()
}

/// Returns the time this number of minutes after 16:55.
fn minute(at: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::parse_rfc3339("2026-11-23T16:55:00Z").unwrap().millis() + at * 60_000).unwrap()
}

/// Makes a partition whose last report is `age` seconds old.
fn status(age: f64) -> StatusRow {
    let updated_at = Timestamp::from_millis(now().millis() - (age * 1000.0) as i64).unwrap();
    StatusRow { updated_at, ..StatusRow::sample(age) }
}

/// An archive with one anomaly of a hostile device, and a detector whose last report is `age` seconds old.
struct Fake {
    /// 0: the archive answers; 1: it is unreachable; 2: it refuses; 3: it is slow; 4: it refuses queries about device
    /// `poison`; 5: it refuses queries about dead letters.
    mood: AtomicU8,
    age: f64,
    judged: u64,
    facts: ArchiveFacts,
    reviews: Mutex<Vec<NewReview>>,
}

/// Facts that differ from the default answers.
#[derive(Default)]
struct ArchiveFacts {
    status: Option<Vec<StatusRow>>,
    conditions: Vec<ConditionRow>,
    /// Counts by minute of arrival, counted from 16:55.
    activity: Option<Vec<(i64, Activity)>>,
    /// Counts by minute of event time, counted from 16:55.
    coverage: Option<Vec<(i64, Tally)>>,
    /// Whether no anomaly has a time in any range.
    is_empty: bool,
    outside: Outside,
    /// Names and values of the settings of every hash.
    settings: Option<Vec<(String, String)>>,
    fresh: u64,
    known: Option<Known>,
    refused: u64,
    dead_letters: Vec<DeadLetter>,
    /// Milliseconds by which the archive's clock is ahead.
    ahead: i64,
}

impl Fake {
    fn new(age: f64, judged: u64) -> Arc<Fake> {
        Arc::new(Fake {
            mood: AtomicU8::new(0),
            age,
            judged,
            facts: ArchiveFacts::default(),
            reviews: Mutex::default(),
        })
    }

    fn check(&self) -> Result<(), NoAnswer> {
        match self.mood.load(Ordering::SeqCst) {
            0 | 4..=7 => Ok(()),
            3 => Err(NoAnswer::Slow),
            1 => Err(NoAnswer::Unavailable(Unavailable::postgresql("connection refused by /var/run/secret"))),
            _ => Err(NoAnswer::Refused("run `anomaly migrate`".into())),
        }
    }

    fn record(&self) -> StoredAnomaly {
        let name = Some(HOSTILE.to_owned());
        let anomaly = Anomaly { device_id: HOSTILE.into(), metric_name: name.clone(), label: name, ..sample(18.0) };
        StoredAnomaly { anomaly, detected_at: now(), review: Review::None, is_newest_generation: true }
    }
}

impl AnomalyQueries for Fake {
    fn newest(&self, filter: &Filter, _: Option<&PageKey>, limit: u32) -> Result<AnomalyPage, NoAnswer> {
        self.check()?;
        if self.mood.load(Ordering::SeqCst) == 4 && filter.devices == ["poison"] {
            return Err(NoAnswer::Refused("22003: out of range".into()));
        }
        if self.facts.is_empty {
            return Ok(AnomalyPage::default());
        }
        let is_it = filter.devices.is_empty() || filter.devices.iter().any(|device| device == HOSTILE);
        let records = if is_it { vec![self.record()] } else { vec![] };
        let next = records.first().filter(|_| limit == 1).and_then(|record| PageKey::of(&record.anomaly));
        Ok(AnomalyPage { records, next })
    }
    fn newer(&self, filter: &Filter, _: &PageKey, limit: u32) -> Result<AnomalyPage, NoAnswer> {
        self.newest(filter, None, limit)
    }
    fn ranked(&self, filter: &Filter, _: Ranking, limit: u32) -> Result<Vec<StoredAnomaly>, NoAnswer> {
        Ok(self.newest(filter, None, limit)?.records)
    }
    fn find(&self, address: &AnomalyAddress) -> Result<Option<StoredAnomaly>, NoAnswer> {
        self.check()?;
        Ok((address.offset == 184_467).then(|| self.record()))
    }
    fn outside(&self, _: &Filter, _: Timestamp, _: u32) -> Result<Outside, NoAnswer> {
        self.check()?;
        Ok(self.facts.outside.clone())
    }
    fn fresh(&self, _: &Filter, _: Timestamp) -> Result<u64, NoAnswer> {
        self.check()?;
        Ok(self.facts.fresh)
    }
}

impl CountQueries for Fake {
    fn by_time(&self, _: &Filter, _: &Bins) -> Result<Vec<BinCount>, NoAnswer> {
        self.check()?;
        Ok(if self.judged > 0 && !self.facts.is_empty {
            vec![BinCount { bin: 59, count: Count { critical: 1, warning: 0 } }]
        } else {
            vec![]
        })
    }
    fn by_device(&self, _: &Filter, _: u32) -> Result<Vec<NameCount>, NoAnswer> {
        self.check()?;
        Ok(vec![NameCount { name: Some(HOSTILE.into()), count: Count { critical: 1, warning: 0 } }])
    }
    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, NoAnswer> {
        self.by_device(filter, limit)
    }
    fn lanes(&self, _: &Filter, _: &Bins, _: &[String]) -> Result<Vec<LaneCount>, NoAnswer> {
        self.check()?;
        Ok(vec![LaneCount { device: HOSTILE.into(), bin: 59, count: Count { critical: 1, warning: 0 } }])
    }
}

impl ReportQueries for Fake {
    fn coverage(&self, _: Timestamp, _: Timestamp, _: i64) -> Result<Vec<CoverageRow>, NoAnswer> {
        self.check()?;
        if let Some(rows) = &self.facts.coverage {
            let row = |(at, tally): &(i64, Tally)| {
                let Tally { judged, learning, rejected, excluded, .. } = *tally;
                CoverageRow { minute: minute(*at), judged, learning, rejected, excluded }
            };
            return Ok(rows.iter().map(row).collect());
        }
        Ok(vec![CoverageRow { minute: minute(3), judged: self.judged, learning: 9, rejected: 0, excluded: 0 }])
    }
    fn activity(&self, from: Timestamp, _: i64) -> Result<Vec<ActivityRow>, NoAnswer> {
        self.check()?;
        if let Some(rows) = &self.facts.activity {
            return Ok(rows
                .iter()
                .filter(|(at, _)| minute(*at) >= from)
                .map(|(at, activity)| ActivityRow { minute: minute(*at), activity: *activity })
                .collect());
        }
        let tally = Tally { judged: self.judged, learning: 9, ..Tally::default() };
        Ok(vec![ActivityRow { minute: minute(3), activity: Activity { tally, ..Activity::default() } }])
    }
    fn status(&self) -> Result<Vec<StatusRow>, NoAnswer> {
        self.check()?;
        Ok(self.facts.status.clone().unwrap_or_else(|| vec![status(self.age)]))
    }
    fn conditions(&self) -> Result<Vec<ConditionRow>, NoAnswer> {
        self.check()?;
        Ok(self.facts.conditions.clone())
    }
    fn settings(&self, _: &str) -> Result<Option<Vec<(String, String)>>, NoAnswer> {
        self.check()?;
        let plain = || vec![("threshold".into(), "3.0".into()), ("min_samples".into(), "30".into())];
        Ok(Some(self.facts.settings.clone().unwrap_or_else(plain)))
    }
    fn refused(&self, _: Timestamp) -> Result<u64, NoAnswer> {
        self.check()?;
        Ok(self.facts.refused)
    }
    fn dead_letters(&self, _: u32) -> Result<Vec<DeadLetter>, NoAnswer> {
        self.check()?;
        if self.mood.load(Ordering::SeqCst) == 5 {
            return Err(NoAnswer::Refused("42501: permission denied for table rejected_samples".into()));
        }
        Ok(self.facts.dead_letters.clone())
    }
    fn knows(&self, _: &str) -> Result<Known, NoAnswer> {
        self.check()?;
        Ok(self.facts.known.unwrap_or(Known::Incomplete))
    }
    fn search(&self, text: &str, _: u32) -> Result<Vec<String>, NoAnswer> {
        self.check()?;
        Ok([HOSTILE.to_owned()].into_iter().filter(|name| name.contains(text)).collect())
    }
    fn clock(&self) -> Result<Timestamp, NoAnswer> {
        self.check()?;
        Ok(Timestamp::from_millis(now().millis() + self.facts.ahead).unwrap())
    }
}

impl ReviewQueries for Fake {
    fn reviews_of(&self, _: &AnomalyId) -> Result<Vec<ReviewRecord>, NoAnswer> {
        self.check()?;
        Ok(self
            .reviews
            .lock()
            .unwrap()
            .iter()
            .rev()
            .map(|new| ReviewRecord { review: new.review, note: new.note.clone(), by: new.by.clone(), at: now() })
            .collect())
    }
    fn add_review(&self, review: &NewReview) -> Result<bool, NoAnswer> {
        self.check()?;
        self.reviews.lock().unwrap().push(review.clone());
        Ok(review.anomaly.source.offset == 184_467)
    }
    fn try_review(&self) -> Result<(), NoAnswer> {
        self.check()?;
        match self.mood.load(Ordering::SeqCst) {
            6 => Err(NoAnswer::Refused("42501: permission denied for table reviews".into())),
            7 => Err(NoAnswer::Slow),
            _ => Ok(()),
        }
    }
    fn reviews(&self, _: Timestamp, _: Timestamp) -> Result<Vec<(Review, u64)>, NoAnswer> {
        self.check()?;
        Ok(vec![(Review::True, 1)])
    }
    fn quality(&self, _: Timestamp, _: Timestamp) -> Result<Vec<Quality>, NoAnswer> {
        self.check()?;
        Ok(vec![Quality { day: now(), right: 3, wrong: 1, expected: 0, labelled: 9, all: 10 }])
    }
}

impl Archive for Fake {
    fn ping(&self) -> Result<(), NoAnswer> {
        self.check()
    }
    fn position(&self) -> Result<Cursor, NoAnswer> {
        self.check()?;
        Ok(Cursor([(1, 7)].into()))
    }
    fn follow(&self) -> Result<Box<dyn Follower>, NoAnswer> {
        Err(NoAnswer::Refused("this archive cannot be followed".into()))
    }
}

/// Makes the pages of one hostile anomaly with this access control.
fn guarded(access: Access) -> Arc<Handler> {
    app(Fake::new(1.0, 9), options(access)).unwrap()
}

fn options(access: Access) -> SiteOptions {
    let console = "https://console/{topic}/{partition}?o={offset}".into();
    let base = BasePath::default();
    let proxies = vec!["10.0.0.1".parse().unwrap()];
    let (refresh, stop) = (Duration::from_secs(5), Arc::default());
    SiteOptions { base, port: 8501, proxies, is_tls_only: false, refresh, clock: now, access, console, stop }
}

fn pages(age: f64, judged: u64) -> (Arc<Fake>, Arc<Handler>) {
    let fake = Fake::new(age, judged);
    (Arc::clone(&fake), app(fake, options(Access::Open { is_anywhere: true })).unwrap())
}

fn get(handler: &Arc<Handler>, url: &str) -> (Response, String) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    send(handler, Request::get(path, query))
}

fn send(handler: &Arc<Handler>, request: Request) -> (Response, String) {
    let mut response = handler(request);
    let body = match &mut response.body {
        ResponseBody::Whole(bytes) => bytes.to_vec(),
        // An export is read until its end.
        ResponseBody::Stream(pieces) => std::iter::from_fn(|| pieces.blocking_recv()).flatten().collect(),
        ResponseBody::Events(pieces) => std::iter::from_fn(|| pieces.blocking_recv()).flatten().collect(),
        ResponseBody::Head => unreachable!("no handler makes it"),
    };
    (response, String::from_utf8(body).unwrap())
}

/// Returns the title of a page.
fn title(body: &str) -> &str {
    body.split("<title>").nth(1).unwrap().split("</title>").next().unwrap()
}

/// Returns a page's text without its elements.
fn plain(html: &str) -> String {
    let parts = html.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text));
    parts.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
}

/// Returns all pages that show the hostile device.
fn all() -> Vec<String> {
    let device = format!("/devices/{}", super::view::links::segment(HOSTILE));
    let mut urls =
        ["/", "/anomalies", "/devices", "/anomalies/raw_events/3/184467/0/point"].map(str::to_owned).to_vec();
    urls.push(format!("{device}/{}", super::view::links::segment(HOSTILE)));
    urls.push(device);
    urls.push(format!("/?device={}&metric={0}", super::view::links::segment(HOSTILE)));
    urls
}
