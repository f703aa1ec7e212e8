//! Whole pages over an archive in memory: routes, hostile names, outages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant as Clock};

use super::chart::spark::tests::sample;
use super::listener::{Handler, Request, Response};
use super::{Options, app};
use crate::anomaly::Anomaly;
use crate::archive::*;
use crate::event::Instant;

const HOSTILE: &str = "<script>alert(1)</script>'\"&/../%";

fn now() -> Instant {
    Instant::parse_rfc3339("2026-11-23T17:00:12Z").unwrap()
}

/// One anomaly of a hostile device, and a detector that reported `age` seconds ago.
struct Fake {
    /// 0 answers, 1 is away, 2 refuses.
    mood: AtomicU8,
    age: f64,
    judged: u64,
}

impl Fake {
    fn check(&self) -> Result<(), Failure> {
        match self.mood.load(Ordering::SeqCst) {
            0 => Ok(()),
            1 => Err(Failure::Away("connection refused by /var/run/secret".into())),
            _ => Err(Failure::Refused("run `anomaly migrate`".into())),
        }
    }

    fn record(&self) -> Record {
        let name = Some(HOSTILE.to_owned());
        let anomaly = Anomaly { device_id: HOSTILE.into(), metric_name: name.clone(), label: name, ..sample(18.0) };
        Record { anomaly, detected_at: now() }
    }
}

impl Archive for Fake {
    fn ping(&self) -> Result<(), Failure> {
        self.check()
    }
    fn newest(&self, filter: &Filter, _: Option<&Key>, limit: u32) -> Result<Page, Failure> {
        self.check()?;
        let is_it = filter.device.as_deref().is_none_or(|device| device == HOSTILE);
        let records = if is_it { vec![self.record()] } else { vec![] };
        let next = records.first().filter(|_| limit == 1).and_then(|record| Key::of(&record.anomaly));
        Ok(Page { records, next })
    }
    fn at(&self, _: &str, _: i32, offset: i64) -> Result<Vec<Record>, Failure> {
        self.check()?;
        Ok(if offset == 184_467 { vec![self.record()] } else { vec![] })
    }
    fn by_time(&self, _: &Filter, _: &Bins) -> Result<Vec<BinCount>, Failure> {
        self.check()?;
        Ok(if self.judged > 0 { vec![BinCount { bin: 59, count: Count { critical: 1, warning: 0 } }] } else { vec![] })
    }
    fn by_device(&self, _: &Filter, _: u32) -> Result<Vec<NameCount>, Failure> {
        self.check()?;
        Ok(vec![NameCount { name: Some(HOSTILE.into()), count: Count { critical: 1, warning: 0 } }])
    }
    fn by_metric(&self, filter: &Filter, limit: u32) -> Result<Vec<NameCount>, Failure> {
        self.by_device(filter, limit)
    }
    fn lanes(&self, _: &Filter, _: &Bins, _: &[String]) -> Result<Vec<LaneCount>, Failure> {
        self.check()?;
        Ok(vec![LaneCount { device: HOSTILE.into(), bin: 59, count: Count { critical: 1, warning: 0 } }])
    }
    fn coverage(&self, _: Instant, _: Instant) -> Result<Vec<CoverageRow>, Failure> {
        self.check()?;
        let minute = Instant::parse_rfc3339("2026-11-23T16:58:00Z").unwrap();
        Ok(vec![CoverageRow { minute, judged: self.judged, learning: 9, rejected: 0 }])
    }
    fn status(&self) -> Result<Vec<StatusRow>, Failure> {
        self.check()?;
        Ok(vec![StatusRow {
            group: "g".into(),
            topic: "raw_events".into(),
            partition: 0,
            worker: "w".into(),
            state: "running".into(),
            committed: Some(1),
            lag: Some(53),
            event_time: None,
            series: 7,
            settings_hash: "h".into(),
            updated_at: Instant::from_millis(now().millis() - (self.age * 1000.0) as i64).unwrap(),
            age: self.age,
        }])
    }
}

fn pages(age: f64, judged: u64) -> (Arc<Fake>, Arc<Handler>) {
    let fake = Arc::new(Fake { mood: AtomicU8::new(0), age, judged });
    let options = Options { refresh: Duration::from_secs(5), clock: now };
    (Arc::clone(&fake), app(fake, options).unwrap())
}

fn get(handler: &Arc<Handler>, url: &str) -> (Response, String) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let response = handler(Request { path: path.into(), query: query.into() });
    let body = String::from_utf8(response.body.to_vec()).unwrap();
    (response, body)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
}

/// All pages that show the hostile device.
fn all() -> Vec<String> {
    let device = format!("/devices/{}", super::view::segment(HOSTILE));
    let mut urls = ["/", "/anomalies", "/devices", "/anomalies/raw_events/3/184467"].map(str::to_owned).to_vec();
    urls.push(device);
    urls.push(format!("/?device={}&metric={0}", super::view::segment(HOSTILE)));
    urls
}

#[test]
fn hostile_names_stay_text_on_every_page_and_every_page_is_guarded() {
    let (_, handler) = pages(1.0, 9);
    for url in all() {
        let (response, body) = get(&handler, &url);
        assert_eq!(response.status, 200, "{url}: {body}");
        assert!(body.contains("&lt;script&gt;alert(1)"), "{url} does not show the device");
        assert!(!body.contains("<script>alert"), "{url}");
        assert!(!body.contains(" style=") && !body.contains("<style"), "{url} is styled inline");
        assert!(!body.contains("NaN"), "{url}");
        let policy = header(&response, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert!(header(&response, "referrer-policy").is_some());
    }
}

#[test]
fn an_unknown_key_is_400_with_its_name() {
    let (_, handler) = pages(1.0, 9);
    for url in all() {
        let (response, body) = get(&handler, &format!("{}?c%3Colour=red", url.split('?').next().unwrap()));
        assert_eq!(response.status, 400, "{url}");
        assert!(body.contains("`c&lt;olour` is not a parameter here"), "{url}: {body}");
    }
    let (response, body) = get(&handler, "/api/anomalies?limit=0");
    assert_eq!(response.status, 400);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["parameter"], "limit");
}

#[test]
fn what_is_not_there_is_404() {
    let (_, handler) = pages(1.0, 9);
    let long = format!("/devices/{}", "x".repeat(257));
    for url in [
        "/x",
        "/anomalies/t/0",
        "/anomalies/t/x/0",
        "/anomalies/raw_events/3/1",
        "/devices/%00",
        "/devices/%ff",
        &long,
        "/assets/style.css",
        "/../etc/passwd",
        "/api",
        "/api/x",
    ] {
        assert_eq!(get(&handler, url).0.status, 404, "{url}");
    }
}

#[test]
fn assets_are_kept_for_ever_under_the_hash_of_their_content() {
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/");
    for (start, kind) in
        [("/assets/style.", "text/css; charset=utf-8"), ("/assets/app.", "text/javascript; charset=utf-8")]
    {
        let at = body.find(start).unwrap();
        let path = &body[at..at + body[at..].find('"').unwrap()];
        let (response, _) = get(&handler, path);
        assert_eq!((response.status, header(&response, "content-type")), (200, Some(kind)));
        assert!(header(&response, "cache-control").unwrap().contains("immutable"));
    }
}

#[test]
fn the_page_refreshes_itself_with_and_without_script_unless_paused() {
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/?severity=critical");
    assert!(body.contains("data-refresh=\"5\"") && body.contains("http-equiv=\"refresh\" content=\"5\""));
    assert!(body.contains("href=\"/?severity=critical&amp;live=off\""), "{body}");
    let (_, paused) = get(&handler, "/?severity=critical&live=off");
    assert!(!paused.contains("data-refresh") && !paused.contains("http-equiv=\"refresh\""));
    assert!(paused.contains("href=\"/?severity=critical\""));
}

#[test]
fn quiet_learning_and_stopped_never_look_alike() {
    let sentence = |age, judged| {
        let (_, body) = get(&pages(age, judged).1, "/");
        let at = body.find("class=\"sentence\"").unwrap();
        body[at..at + 200].to_owned()
    };
    assert!(sentence(1.0, 9).contains("Detecting. <strong>1 anomaly</strong>"));
    assert!(sentence(1.0, 0).contains("Learning. <strong>Nothing is judged yet.</strong>"));
    assert!(sentence(16.0, 9).contains("Detection has stopped. <strong>No report for 16 s.</strong>"));
    let (_, stopped) = get(&pages(600.0, 9).1, "/");
    assert!(stopped.contains("not reporting since 16:50:12"), "{stopped}");
    assert!(stopped.contains("class=\"hatch\""));
}

#[test]
fn the_api_gives_records_as_they_are_and_the_next_key() {
    let (_, handler) = pages(1.0, 9);
    let (response, body) = get(&handler, "/api/anomalies?limit=1");
    assert_eq!((response.status, header(&response, "content-type")), (200, Some("application/json")));
    let json = serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let mut first = json["anomalies"][0].clone();
    assert_eq!(first.as_object_mut().unwrap().remove("detected_at").unwrap(), "2026-11-23T17:00:12.000Z");
    let read = serde_json::from_value::<Anomaly>(first).unwrap();
    assert_eq!((read.device_id.as_str(), read.z_score), (HOSTILE, Some(8.0)));
    let next = json["next"].as_str().unwrap();
    assert_eq!(get(&handler, &format!("/api/anomalies?limit=1&before={next}")).0.status, 200);
    assert!(get(&handler, "/api/anomalies").1.ends_with("\"next\":null}"));
}

#[test]
fn an_outage_shows_the_last_data_with_its_date_and_ends_by_itself() {
    let (fake, handler) = pages(1.0, 9);
    assert_eq!(header(&get(&handler, "/").0, "x-stale"), None);
    std::thread::sleep(Duration::from_millis(900));
    fake.mood.store(1, Ordering::SeqCst);
    let start = Clock::now();
    let (response, body) = get(&handler, "/");
    assert_eq!((response.status, header(&response, "x-stale")), (200, Some("1")));
    assert!(body.contains("PostgreSQL is away since 17:00:12."), "{body}");
    assert!(body.contains("The last data is from 17:00:12.") && body.contains("Newest anomalies"));
    let (response, cold) = get(&handler, "/anomalies");
    assert_eq!((response.status, header(&response, "retry-after")), (503, Some("5")));
    assert!(cold.contains("PostgreSQL is away since") && cold.contains("data-refresh"));
    let (response, api) = get(&handler, "/api/anomalies");
    assert_eq!((response.status, header(&response, "retry-after")), (503, Some("5")));
    for text in [body, cold, api] {
        assert!(!text.contains("/var/run"), "{text}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    fake.mood.store(0, Ordering::SeqCst);
    let patience = Clock::now();
    while get(&handler, "/anomalies").0.status != 200 {
        assert!(patience.elapsed() < Duration::from_secs(5), "the end of the outage is not noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(header(&get(&handler, "/").0, "x-stale"), None);
}

#[test]
fn a_refusal_says_the_remedy() {
    let (fake, handler) = pages(1.0, 9);
    fake.mood.store(2, Ordering::SeqCst);
    let (response, body) = get(&handler, "/");
    assert_eq!(response.status, 503);
    assert!(body.contains("PostgreSQL refuses to answer.") && body.contains("`anomaly migrate`"), "{body}");
}
