//! Whole pages over an archive in memory: routes, hostile names, outages.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use super::chart::spark::tests::sample;
use super::door::Access;
use super::listener::{Body, Handler, Request, Response};
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
    marks: Mutex<Vec<NewMark>>,
}

impl Fake {
    fn new(age: f64, judged: u64) -> Arc<Fake> {
        Arc::new(Fake { mood: AtomicU8::new(0), age, judged, marks: Mutex::default() })
    }

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
        Record { anomaly, detected_at: now(), review: Review::None }
    }
}

impl Archive for Fake {
    fn ping(&self) -> Result<(), Failure> {
        self.check()
    }
    fn newest(&self, filter: &Filter, _: Option<&Key>, limit: u32) -> Result<Page, Failure> {
        self.check()?;
        let is_it = filter.devices.is_empty() || filter.devices.iter().any(|device| device == HOSTILE);
        let records = if is_it { vec![self.record()] } else { vec![] };
        let next = records.first().filter(|_| limit == 1).and_then(|record| Key::of(&record.anomaly));
        Ok(Page { records, next })
    }
    fn newer(&self, filter: &Filter, _: &Key, limit: u32) -> Result<Page, Failure> {
        self.newest(filter, None, limit)
    }
    fn ranked(&self, filter: &Filter, _: Order, limit: u32) -> Result<Vec<Record>, Failure> {
        Ok(self.newest(filter, None, limit)?.records)
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
    fn coverage(&self, _: Instant, _: Instant, _: i64) -> Result<Vec<CoverageRow>, Failure> {
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
    fn search(&self, text: &str, _: u32) -> Result<Vec<String>, Failure> {
        self.check()?;
        Ok([HOSTILE.to_owned()].into_iter().filter(|name| name.contains(text)).collect())
    }
    fn position(&self) -> Result<Cursor, Failure> {
        self.check()?;
        Ok(Cursor([(1, 7)].into()))
    }
    fn marks(&self, _: &str, _: i32, _: i64) -> Result<Vec<Mark>, Failure> {
        self.check()?;
        Ok(self
            .marks
            .lock()
            .unwrap()
            .iter()
            .rev()
            .map(|mark| Mark { review: mark.review, note: mark.note.clone(), by: mark.by.clone(), at: now() })
            .collect())
    }
    fn mark(&self, mark: &NewMark) -> Result<bool, Failure> {
        self.check()?;
        self.marks.lock().unwrap().push(mark.clone());
        Ok(mark.offset == 184_467)
    }
    fn reviews(&self, _: Instant, _: Instant) -> Result<Vec<(Review, u64)>, Failure> {
        self.check()?;
        Ok(vec![(Review::True, 1)])
    }
    fn settings(&self, _: &str) -> Result<Option<Vec<(String, String)>>, Failure> {
        self.check()?;
        Ok(Some(vec![("threshold".into(), "3.0".into()), ("min_samples".into(), "30".into())]))
    }
    fn quality(&self, _: Instant, _: Instant) -> Result<Vec<Quality>, Failure> {
        self.check()?;
        Ok(vec![Quality { day: now(), right: 3, wrong: 1, expected: 0, labelled: 9, all: 10 }])
    }
    fn follow(&self) -> Result<Box<dyn Follower>, Failure> {
        Err(Failure::Away("nobody follows here".into()))
    }
}

/// The pages of one hostile anomaly, for whom `access` lets in.
fn guarded(access: Access) -> Arc<Handler> {
    app(Fake::new(1.0, 9), options(access)).unwrap()
}

fn options(access: Access) -> Options {
    let console = "https://console/{topic}/{partition}?o={offset}".into();
    Options { refresh: Duration::from_secs(5), clock: now, access, console, stop: Arc::default() }
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
        Body::Whole(bytes) => bytes.to_vec(),
        // An export: until its end.
        Body::Stream(pieces) => std::iter::from_fn(|| pieces.blocking_recv()).flatten().collect(),
    };
    (response, String::from_utf8(body).unwrap())
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
}

/// All pages that show the hostile device.
fn all() -> Vec<String> {
    let device = format!("/devices/{}", super::view::segment(HOSTILE));
    let mut urls = ["/", "/anomalies", "/devices", "/anomalies/raw_events/3/184467"].map(str::to_owned).to_vec();
    urls.push(format!("{device}/{}", super::view::segment(HOSTILE)));
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
    let (response, body) = get(&handler, "/api/v1/anomalies?limit=0");
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
    // Nine values of seven series in two minutes: forty-five more minutes to thirty each.
    assert!(
        get(&pages(1.0, 0).1, "/").1.contains("a series is judged in about 50 min."),
        "{}",
        get(&pages(1.0, 0).1, "/").1
    );
    assert!(sentence(16.0, 9).contains("Detection has stopped. <strong>No report for 16 s.</strong>"));
    let (_, stopped) = get(&pages(600.0, 9).1, "/");
    assert!(stopped.contains("not reporting since 16:50:12"), "{stopped}");
    assert!(stopped.contains("class=\"hatch\""));
}

#[test]
fn the_api_gives_records_as_they_are_and_the_next_key() {
    let (_, handler) = pages(1.0, 9);
    let (response, body) = get(&handler, "/api/v1/anomalies?limit=1");
    assert_eq!((response.status, header(&response, "content-type")), (200, Some("application/json")));
    let json = serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let mut first = json["anomalies"][0].clone();
    assert_eq!(first.as_object_mut().unwrap().remove("detected_at").unwrap(), "2026-11-23T17:00:12.000Z");
    let read = serde_json::from_value::<Anomaly>(first).unwrap();
    assert_eq!((read.device_id.as_str(), read.z_score), (HOSTILE, Some(8.0)));
    let next = json["next"].as_str().unwrap();
    assert_eq!(get(&handler, &format!("/api/v1/anomalies?limit=1&before={next}")).0.status, 200);
    assert!(get(&handler, "/api/v1/anomalies").1.ends_with("\"next\":null,\"prev\":null,\"cursor\":\"c1-7\"}"));
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
    let (response, api) = get(&handler, "/api/v1/anomalies");
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

fn post(path: &str, form: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = Request { method: hyper::Method::POST, body: form.to_owned().into(), ..Request::get(path, "") };
    request.headers.insert("host", "localhost:8501".parse().unwrap());
    headers.iter().for_each(|(name, value)| drop(request.headers.insert(*name, value.parse().unwrap())));
    request
}

const MARKS: &str = "/anomalies/raw_events/3/184467/marks";

#[test]
fn a_mark_is_kept_with_its_note_and_shown_as_text() {
    let (fake, handler) = pages(1.0, 9);
    let (before, _) = get(&handler, "/anomalies/raw_events/3/184467");
    assert_eq!(before.status, 200);
    let (response, _) =
        send(&handler, post(MARKS, "mark=false&note=a+%3Cb%3E+pump", &[("sec-fetch-site", "same-origin")]));
    assert_eq!((response.status, header(&response, "location")), (303, Some("/anomalies/raw_events/3/184467")));
    let mark = fake.marks.lock().unwrap()[0].clone();
    assert_eq!((mark.review, mark.note.as_str(), mark.offset), (Review::False, "a <b> pump", 184_467));
    let (_, body) = get(&handler, "/anomalies/raw_events/3/184467");
    assert!(body.contains("<b>false alarm</b> by anyone") && body.contains("a &lt;b&gt; pump"), "{body}");
    for (path, form, status) in [
        (MARKS, "mark=maybe", 400),
        (MARKS, "note=x", 400),
        (MARKS, "mark=true&other=1", 400),
        (MARKS, &format!("mark=true&note={}", "x".repeat(MAX_NOTE + 1)), 400),
        ("/anomalies/raw_events/3/1/marks", "mark=true", 404),
        ("/anomalies/raw_events/3/x/marks", "mark=true", 404),
        ("/anomalies", "mark=true", 404),
    ] {
        assert_eq!(send(&handler, post(path, form, &[])).0.status, status, "{path} {form}");
    }
}

#[test]
fn another_sites_page_cannot_mark() {
    let (fake, handler) = pages(1.0, 9);
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://localhost:8502")],
    ] {
        assert_eq!(send(&handler, post(MARKS, "mark=true", headers)).0.status, 403, "{headers:?}");
    }
    assert!(fake.marks.lock().unwrap().is_empty());
    assert_eq!(send(&handler, post(MARKS, "mark=true", &[("origin", "http://localhost:8501")])).0.status, 303);
}

#[test]
fn without_passwords_pages_are_served_under_names_of_this_machine_only() {
    let handler = guarded(Access::Open { is_anywhere: false });
    let status = |host: &str| {
        let mut request = Request::get("/", "");
        request.headers.insert("host", host.parse().unwrap());
        send(&handler, request).0.status
    };
    for own in ["localhost", "localhost:8501", "127.0.0.1:8501", "[::1]:8501", "10.0.0.7", "box.localhost"] {
        assert_eq!(status(own), 200, "{own}");
    }
    for foreign in ["evil.example", "localhost.evil.example:8501", "[evil]", ""] {
        assert_eq!(status(foreign), 421, "{foreign}");
    }
}

#[test]
fn a_proxy_is_believed_only_from_its_address() {
    let handler = guarded(Access::Proxy {
        header: "X-Forwarded-User".into(),
        from: vec!["10.0.0.1".parse().unwrap()],
        operators: vec!["ada".into()],
    });
    let visit = |peer: &str, name: Option<&str>, mut request: Request| {
        request.peer = peer.parse().unwrap();
        if let Some(name) = name {
            request.headers.insert("x-forwarded-user", name.parse().unwrap());
        }
        send(&handler, request).0.status
    };
    assert_eq!(visit("10.0.0.1", Some("bob"), Request::get("/", "")), 200);
    assert_eq!(visit("::ffff:10.0.0.1", Some("bob"), Request::get("/", "")), 200);
    assert_eq!(visit("10.0.0.2", Some("bob"), Request::get("/", "")), 403);
    assert_eq!(visit("10.0.0.1", None, Request::get("/", "")), 403);
    assert_eq!(visit("10.0.0.1", Some("bob"), post(MARKS, "mark=true", &[])), 403);
    assert_eq!(visit("10.0.0.1", Some("ada"), post(MARKS, "mark=true", &[])), 303);
}

#[test]
fn exports_have_every_record_and_no_formula() {
    let (_, handler) = pages(1.0, 9);
    let (response, csv) = get(&handler, "/api/v1/anomalies.csv");
    assert_eq!(header(&response, "content-type"), Some("text/csv; charset=utf-8"));
    let rows = csv::Reader::from_reader(csv.as_bytes()).into_records().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!((rows.len(), rows[0].get(1)), (1, Some(HOSTILE)));
    let (_, lines) = get(&handler, "/api/v1/anomalies.jsonl?limit=1");
    let record = serde_json::from_str::<serde_json::Value>(lines.trim_end()).unwrap();
    assert_eq!(record["device_id"], HOSTILE);
}

#[test]
fn the_description_of_the_api_names_every_parameter_and_no_other() {
    let (_, handler) = pages(1.0, 9);
    let (_, body) = get(&handler, "/api/openapi.json");
    let description = serde_json::from_str::<serde_json::Value>(&body).unwrap();
    let parameters = description["paths"]["/api/v1/anomalies"]["get"]["parameters"].as_array().unwrap();
    let names = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names, super::asked::API.concat());
}

#[test]
fn texts_are_compressed_for_who_can_read_that() {
    let (_, handler) = pages(1.0, 9);
    let mut request = Request::get("/", "");
    request.headers.insert("accept-encoding", "br, gzip".parse().unwrap());
    let response = handler(request);
    assert_eq!(header(&response, "content-encoding"), Some("gzip"));
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(&response.body.whole().unwrap()[..]);
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(text.contains("Newest anomalies"));
    assert_eq!(header(&get(&handler, "/").0, "content-encoding"), None);
}
