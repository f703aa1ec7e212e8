//! Tests of the dashboard over a real PostgreSQL: pages and API show the rows of the tables, page by page, and report a
//! missing database in time. They need the variables of `tests/box env`; each test has its own schema.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use anomaly::anomaly::{Anomaly, Direction, RecordId, SCHEMA_VERSION, Severity};
use anomaly::config::{self, Settings};
use anomaly::event::Timestamp;
use anomaly::http;
use anomaly::ledger::{Ledger, LedgerPosition, SinkRecord};
use anomaly::role::dashboard;
use anomaly::store::ledger::PostgresLedger;
use anomaly::{series_block, store};
use tokio::sync::oneshot;

/// A migrated schema with a dashboard over it, which is dropped at the end.
pub struct Stage {
    settings: Settings,
    pub address: SocketAddr,
    /// Ledger that inserts rows, with the next offset.
    sink: Mutex<(PostgresLedger, i64)>,
    stop: Option<oneshot::Sender<()>>,
}

fn settings() -> Settings {
    let places = config::SettingFiles {
        dir: concat!(env!("CARGO_MANIFEST_DIR"), "/etc").into(),
        required: true,
        file: Some(config::schema::ShippedFile::Dashboard),
        env: std::env::vars().filter(|(name, _)| name.starts_with("ANOMALY__")).collect(),
        credentials: None,
    };
    config::load(&places).unwrap().settings
}

/// Serves the pages with these settings on a free port.
fn serve(settings: &Settings) -> (SocketAddr, oneshot::Sender<()>) {
    let handler = dashboard::app(settings, &Arc::default()).unwrap();
    let bound = http::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.address();
    let (sender, stop) = oneshot::channel();
    std::thread::spawn(move || bound.serve(handler, stop, Duration::from_millis(100)));
    (address, sender)
}

impl Stage {
    pub fn new() -> Stage {
        Stage::with(|_| ())
    }

    /// Creates the schema with settings that differ from the shipped ones.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Stage {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut settings = settings();
        change(&mut settings);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        settings.postgres.schema = format!("dashboard_{}_{number}", std::process::id());
        let (mut client, limit) = store::connect_adjustable(&settings.postgres).unwrap();
        store::migrate::migrate(&mut client, &limit, &settings.postgres).unwrap();
        let mut sink = PostgresLedger::new(&settings.postgres, "sink", "anomalies");
        sink.begin(0, &LedgerPosition { next: 0, topic_id: None }).unwrap();
        let (address, stop) = serve(&settings);
        Stage { settings, address, sink: Mutex::new((sink, 0)), stop: Some(stop) }
    }

    pub fn client(&self) -> postgres::Client {
        store::connect(&self.settings.postgres).unwrap()
    }

    /// Inserts an anomaly as the sink does.
    pub fn insert(&self, anomaly: &Anomaly) {
        self.insert_all(std::slice::from_ref(anomaly));
    }

    /// Inserts anomalies in one transaction.
    pub fn insert_all(&self, anomalies: &[Anomaly]) {
        let mut sink = self.sink.lock().unwrap();
        let (ledger, next) = &mut *sink;
        let entry = |(i, anomaly): (usize, &Anomaly)| SinkRecord {
            partition: 0,
            offset: *next + i as i64,
            key: None,
            value: Vec::new(),
            detected_at: anomaly.timestamp.unwrap(),
            anomaly: Ok(anomaly.clone()),
        };
        let entries = anomalies.iter().enumerate().map(entry).collect::<Vec<_>>();
        let end = *next + anomalies.len() as i64;
        let written = ledger.write(&entries, &[(0, (*next, end))].into()).unwrap();
        assert_eq!(written.inserted, anomalies.len() as u64);
        *next = end;
    }

    /// Inserts the reports of a detector that judged for half an hour.
    pub fn report(&self) {
        self.client()
            .batch_execute(
                "insert into detector_status (detector_group, topic, partition, worker, state, committed, end_offset, lag,
                    event_time, series, settings_hash)
                 values ('g', 'raw_events', 0, 'w', 'running', 9, 62, 53, now(), 2, 'h');
                 insert into detector_settings values ('h', '{\"threshold\": 3.0, \"method\": \"sigma\"}');
                 insert into coverage select m, 'raw_events', 0, 600, 0, 0
                 from generate_series(date_trunc('minute', now()) - interval '30 min', date_trunc('minute', now()), '1 min') m;
                 insert into activity select minute, topic, partition, judged, learning, rejected, 0, 0, 0, 0, 0 from coverage",
            )
            .unwrap();
    }

    /// Starts a second instance of the dashboard, whose database can be disconnected.
    pub fn second_instance(&self) -> (SocketAddr, Between, oneshot::Sender<()>) {
        let mut settings = self.settings.clone();
        let between = Between::new((settings.postgres.host.clone(), settings.postgres.port));
        (settings.postgres.host, settings.postgres.port) = ("127.0.0.1".into(), between.port);
        let (address, stop) = serve(&settings);
        (address, between, stop)
    }

    /// Restarts the dashboard in another process, at another address.
    pub fn restart(&mut self) {
        self.stop = None;
        let (address, stop) = serve(&self.settings);
        (self.address, self.stop) = (address, Some(stop));
    }

    /// Requests a URL as [`get`] does. On a busy machine the database answers some pages too late; these are asked for again.
    pub fn get(&self, url: &str) -> (u16, String, String) {
        let mut answer = get(self.address, url);
        for _ in 0..20 {
            if !answer.2.contains("PostgreSQL does not answer in time") && answer.1.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(900));
            answer = get(self.address, url);
        }
        answer
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let sql = format!("drop schema {} cascade", self.settings.postgres.schema);
        self.client().batch_execute(&sql).unwrap();
    }
}

/// Requests a URL; returns status, `x-stale` and body.
pub fn get(address: SocketAddr, url: &str) -> (u16, String, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let mut answer = ureq::Agent::from(config).get(format!("http://{address}{url}")).call().unwrap();
    let stale = answer.headers().get("x-stale").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status().as_u16(), stale, answer.body_mut().read_to_string().unwrap())
}

pub fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().millis() - seconds * 1000).unwrap()
}

pub fn anomaly(device: &str, offset: i64, time: Timestamp, value: f64) -> Anomaly {
    let window = vec![21.4, 21.6, 21.5, 21.3];
    let moments = series_block::moments(window.iter().copied()).unwrap();
    let z = (value - moments.mean) / moments.std_dev;
    Anomaly {
        schema_version: SCHEMA_VERSION,
        kind: "point".into(),
        device_id: device.into(),
        metric_name: Some("temperature".into()),
        metric_value: value,
        timestamp: Some(time),
        method: "sigma".into(),
        score: z.abs(),
        threshold: Some(3.0),
        expected: Some(moments.mean),
        lower: moments.mean - 3.0 * moments.std_dev,
        upper: moments.mean + 3.0 * moments.std_dev,
        mean: Some(moments.mean),
        std_dev: Some(moments.std_dev),
        z_score: Some(z),
        evidence: std::collections::BTreeMap::new(),
        direction: if z < 0.0 { Direction::Low } else { Direction::High },
        severity: if z.abs() >= 6.0 { Severity::Critical } else { Severity::Warning },
        label: None,
        window_count: 4,
        window,
        reason: None,
        return_period_events: None,
        return_period_seconds: None,
        source: RecordId { topic: "raw_events".into(), generation: 0, partition: 0, offset, index: 0 },
    }
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_empty_database_says_that_nothing_has_reported() {
    let stage = Stage::new();
    let (status, stale, body) = stage.get("/");
    assert_eq!((status, stale.as_str()), (200, ""));
    assert!(body.contains("No detector has reported yet.") && body.contains("No anomaly is recorded yet"), "{body}");
    assert!(!body.contains("\"cov\""), "nothing was judged");
    assert_eq!(stage.get("/api/v1/anomalies").2, r#"{"anomalies":[],"next":null,"prev":null,"cursor":"c1-0"}"#);
}

#[test]
fn the_pages_show_the_rows_of_the_tables() {
    let stage = Stage::new();
    let hostile = "<b>pump</b>/'7'";
    let critical = anomaly(hostile, 7, ago(130), 24.6);
    stage.insert(&critical);
    stage.insert(&anomaly("press-0009", 8, ago(190), 21.0));
    stage.report();
    let (_, _, body) = stage.get("/");
    for text in [
        "<strong>2 anomalies</strong>",
        "53 events",
        "&lt;b&gt;pump&lt;/b&gt;",
        "24.6",
        "running",
        "class=\"cov\"",
        "18,600 values",
    ] {
        assert!(body.contains(text), "no {text} in {body}");
    }
    let (status, _, device) = stage.get("/devices/%3Cb%3Epump%3C%2Fb%3E%2F%277%27");
    assert!(status == 200 && device.contains("1 anomaly") && !device.contains("press-0009"), "{device}");
    let (status, _, explain) = stage.get("/anomalies/raw_events/0/7");
    assert!(status == 200 && explain.contains("equal to the stored record in every bit"), "{explain}");
    assert_eq!(stage.get("/anomalies/raw_events/0/9").0, 404);
    let found = json(&stage.get("/api/v1/anomalies?severity=critical&span=1h").2);
    let mut record = found["anomalies"][0].clone();
    record.as_object_mut().unwrap().remove("detected_at").unwrap();
    assert_eq!(serde_json::from_value::<Anomaly>(record).unwrap(), critical);
    stage.client().batch_execute("update detector_status set updated_at = now() - interval '20 s'").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(stage.get("/").2.contains("Detection has stopped."));
}

#[test]
fn numbers_come_back_from_the_table_in_every_bit_and_absent_ones_are_dashes() {
    let stage = Stage::new();
    let plain = anomaly("oven", 1, ago(60), 24.6);
    // As the method finds them: the deviation is the root of the variance.
    let variance = plain.std_dev.unwrap().powi(2);
    let numbers =
        [("variance", variance), ("alpha", 0.1 + 0.2), ("zero", -0.0), ("small", 5e-324), ("large", f64::MAX)];
    let evidence = numbers.map(|(name, number)| (name.to_owned(), number));
    let weighted = Anomaly {
        method: "ewma".into(),
        std_dev: Some(variance.sqrt()),
        evidence: evidence.clone().into(),
        source: RecordId { offset: 2, ..plain.source.clone() },
        ..plain.clone()
    };
    let none = Anomaly {
        method: "other".into(),
        mean: None,
        std_dev: None,
        z_score: None,
        threshold: None,
        source: RecordId { offset: 3, ..plain.source.clone() },
        ..plain.clone()
    };
    stage.insert_all(&[plain, weighted.clone(), none.clone()]);
    let found = json(&stage.get("/api/v1/anomalies?span=1h").2);
    let read = |offset: usize| {
        let mut record = found["anomalies"][3 - offset].clone();
        record.as_object_mut().unwrap().remove("detected_at").unwrap();
        serde_json::from_value::<Anomaly>(record).unwrap()
    };
    assert_eq!((read(2), read(3)), (weighted.clone(), none));
    assert!(evidence.iter().all(|(name, number)| read(2).evidence[name].to_bits() == number.to_bits()));
    let (_, _, csv) = stage.get("/api/v1/anomalies.csv?span=1h");
    assert!(csv.contains(",\"{\"\"alpha\"\":0.30000000000000004,"), "{csv}");
    let (status, _, page) = stage.get("/anomalies/raw_events/0/3/0/point");
    assert!(status == 200 && page.contains("<dt>Threshold</dt><dd><bdi>\u{2014}</bdi>"), "{page}");
    let (status, _, page) = stage.get("/devices/oven");
    assert!(status == 200 && page.contains("<dt>mean</dt><dd>\u{2014}</dd>"), "{page}");
}

#[test]
fn pages_follow_one_another_without_gap_or_repetition_also_at_equal_times() {
    let stage = Stage::new();
    for offset in 0..25 {
        // Five at each time: the order goes on inside them.
        stage.insert(&anomaly("pump", offset, Timestamp::from_millis(1_700_000_000_000 + offset / 5).unwrap(), 24.0));
    }
    let (mut seen, mut url) = (Vec::new(), "/api/v1/anomalies?limit=4".to_owned());
    loop {
        let page = json(&stage.get(&url).2);
        let offsets = page["anomalies"].as_array().unwrap().iter().map(|a| a["source"]["offset"].as_i64().unwrap());
        seen.extend(offsets);
        let Some(next) = page["next"].as_str() else { break };
        url = format!("/api/v1/anomalies?limit=4&before={next}");
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<_>>());
    // And back again.
    let page = json(&stage.get("/api/v1/anomalies?limit=4&before=1700000000001.0.0.7.0.point.raw_events").2);
    let offsets = |page: &serde_json::Value| {
        page["anomalies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["source"]["offset"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(offsets(&page), [6, 5, 4, 3]);
    let back = json(&stage.get(&format!("/api/v1/anomalies?limit=4&after={}", page["prev"].as_str().unwrap())).2);
    assert_eq!(offsets(&back), [10, 9, 8, 7]);
    assert!(stage.get("/anomalies?limit=4&before=1700000000001.0.0.7.0.point.raw_events").2.contains(">Newer</a>"));
    let range = json(&stage.get("/api/v1/anomalies?from=2023-11-14T22:13:20.001Z&to=2023-11-14T22:13:20.002Z").2);
    assert_eq!(range["anomalies"].as_array().unwrap().len(), 5);
    assert_eq!(
        stage.get("/api/v1/anomalies?device=other").2,
        r#"{"anomalies":[],"next":null,"prev":null,"cursor":"c1-25"}"#
    );
    assert!(stage.get("/anomalies?limit=4").2.contains(">Older</a>"));
}

#[test]
fn totals_equal_the_counts_of_the_rows() {
    let stage = Stage::new();
    let rows = (0..300).map(|i| {
        let mut row =
            anomaly(&format!("pump-{}", i % 7), i, ago(i * 3600 * 2 + 60), if i % 3 == 0 { 24.0 } else { 21.9 });
        row.metric_name = (i % 5 > 0).then(|| format!("metric-{}", i % 5));
        row
    });
    let rows = rows.collect::<Vec<_>>();
    rows.chunks(40).for_each(|chunk| stage.insert_all(chunk));
    let mut client = stage.client();
    for table in ["anomaly_minutes", "anomaly_hours", "anomaly_days", "anomaly_metrics"] {
        let sql = format!(
            "select sum(anomalies)::bigint, (sum(anomalies) filter (where severity = 'critical'))::bigint from {table}"
        );
        let row = client.query_one(&sql, &[]).unwrap();
        let critical = rows.iter().filter(|row| row.severity == Severity::Critical).count() as i64;
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (300, critical), "{table}");
    }
    // A range whose ends are not whole hours: anomalies of its first and last hour lie outside of it.
    let minutes = |row: usize, minutes: i64| {
        Timestamp::from_millis(rows[row].timestamp.unwrap().millis() + minutes * 60_000).unwrap()
    };
    let between = format!("from={}&to={}", minutes(5, 17), minutes(1, -17));
    let of_device = format!("from={}&to={}&device=pump-3", minutes(31, 17), minutes(1, -17));
    // A filter by method is answered from the rows, the same without it from the totals.
    for query in [
        &between,
        &of_device,
        "span=1h",
        "span=6h",
        "span=24h",
        "span=7d",
        "span=30d",
        "span=30d&device=pump-3",
        "span=7d&metric=metric-1",
        "span=30d&severity=critical",
    ] {
        let numbers = |url: &str| {
            let (status, _, body) = stage.get(url);
            assert_eq!(status, 200, "{url}: {body}");
            let label = body.split("aria-label=\"").find(|part| part.contains("anomalies,")).unwrap();
            let bars = body.matches("<g><title>").count();
            let names = body.split("<ul class=\"bars").nth(1).unwrap().matches("<li>").count();
            (label.split(';').next().unwrap().to_owned(), bars, names, body.matches("class=\"left name\"").count())
        };
        let (totals, rows) = (numbers(&format!("/?{query}")), numbers(&format!("/?{query}&method=sigma")));
        assert_eq!(totals, rows, "{query}");
        assert!(!totals.0.starts_with("0 "), "{query}: {totals:?}");
    }
    // The same rows again are not counted again.
    let mut again = PostgresLedger::new(&stage.settings.postgres, "sink", "anomalies");
    let entry = |(i, row): (usize, &Anomaly)| SinkRecord {
        partition: 0,
        offset: 300 + i as i64,
        key: None,
        value: Vec::new(),
        detected_at: row.timestamp.unwrap(),
        anomaly: Ok(row.clone()),
    };
    let mut mixed = rows[..5].to_vec();
    mixed.push(anomaly("pump-9", 9_999, ago(5), 24.0));
    let entries = mixed.iter().enumerate().map(entry).collect::<Vec<_>>();
    let written = again.write(&entries, &[(0, (300, 306))].into()).unwrap();
    assert_eq!((written.inserted, written.present), (1, 5));
    let sum: i64 = client.query_one("select sum(anomalies)::bigint from anomaly_days", &[]).unwrap().get(0);
    assert_eq!(sum, 301);
}

#[test]
fn an_hour_is_compared_with_the_hours_of_the_day_before() {
    let stage = Stage::new();
    stage.report();
    let usual = |stage: &Stage| {
        let (_, _, body) = stage.get("/");
        body.split(" \u{d7} a usual hour")
            .next()
            .filter(|start| start.len() < body.len())
            .map(|start| start.rsplit(' ').next().unwrap().to_owned())
    };
    // Two in most hours before, none in one, many in another; five in this one.
    let before = [2, 2, 0, 2, 20, 2];
    let hours = (1..).zip(before).flat_map(|(hour, n)| std::iter::repeat_n(hour, n));
    let rows = hours.chain([0; 5]).zip(0..).map(|(hour, i)| anomaly("pump-0042", i, ago(3_600 * hour + 300), 24.6));
    stage.insert_all(&rows.collect::<Vec<_>>());
    assert_eq!(usual(&stage).as_deref(), Some("2.5"));
    let rest = ["/?span=6h", "/?device=pump-0042"].map(|url| stage.get(url).2);
    assert!(rest.iter().all(|body| !body.contains("a usual hour")), "an hour of everything, or nothing");
    let stage = Stage::new();
    stage.report();
    (0..3).for_each(|i| stage.insert(&anomaly("pump-0042", i, ago(3_600 * i + 60), 24.6)));
    assert_eq!(usual(&stage), None, "two hours are too few to tell");
}

#[test]
fn sql_in_any_parameter_is_a_value_and_nothing_else() {
    let stage = Stage::new();
    stage.insert(&anomaly("pump", 1, ago(60), 24.0));
    let names = [
        "device", "metric", "severity", "method", "label", "review", "q", "span", "from", "to", "limit", "before",
        "live", "tz", "theme", "cursor",
    ];
    let attacks = [
        "'; drop table anomalies cascade; --",
        "' or '1'='1",
        "\\'; select pg_sleep(9); --",
        "%' or true --",
        "$1",
        "{}",
        "\u{2019}",
        "a?b?",
    ];
    for attack in attacks {
        let text = url::form_urlencoded::byte_serialize(attack.as_bytes()).collect::<String>();
        for name in names {
            for page in [
                "/",
                "/anomalies",
                "/devices",
                "/devices/pump",
                "/detection",
                "/api/v1/anomalies",
                "/api/v1/anomalies.csv",
            ] {
                let start = Clock::now();
                let (status, _, body) = stage.get(&format!("{page}?{name}={text}"));
                assert!(matches!(status, 200 | 400), "{page} {name} {attack}: {status} {body}");
                let is_text = ["device", "metric", "method", "label", "q"].contains(&name);
                if page == "/api/v1/anomalies" && is_text {
                    assert!(body.starts_with("{\"anomalies\":[]"), "{name} {attack}: {body}");
                }
                assert!(start.elapsed() < Duration::from_secs(30), "{page} {name} {attack}");
            }
        }
        for path in [format!("/devices/{text}"), format!("/devices/pump/{text}"), format!("/anomalies/{text}/0/1")] {
            assert!(matches!(stage.get(&path.replace('+', "%20")).0, 200 | 404), "{path}");
        }
    }
    assert_eq!(json(&stage.get("/api/v1/anomalies").2)["anomalies"].as_array().unwrap().len(), 1);
}

#[test]
fn rows_older_than_the_retention_are_counted_until_they_are_deleted() {
    let stage = Stage::with(|settings| settings.postgres.retention = Duration::from_secs(30 * 86_400));
    let year = 365 * 86_400;
    let rows = (0..5).map(|i| anomaly("pump-0042", i, ago(year + i * 3_600), 24.0)).collect::<Vec<_>>();
    stage.insert_all(&rows);
    // A file that was replayed: its totals go at once, its rows as long after they were written as any others.
    let sql = "update anomalies set detected_at = now();
        insert into detector_status (detector_group, topic, partition, worker, state, series, settings_hash)
        values ('g', 't', 0, 'w', 'running', 0, 'h')";
    stage.client().batch_execute(sql).unwrap();
    for _ in 0..2 {
        stage.client().batch_execute("select anomalies_maintain('30 days', now(), '0', '0')").unwrap();
    }
    let [from, to] = [ago(year + 8 * 3_600), ago(year - 4 * 3_600)];
    for query in ["", "&device=pump-0042", "&metric=temperature"] {
        let (_, _, body) = stage.get(&format!("/?from={from}&to={to}{query}"));
        assert!(body.contains("aria-label=\"5 anomalies, 5 critical"), "{query}: {body}");
        assert!(body.matches("class=\"left name\"").count() == 1, "{query}: {body}");
    }
}

#[test]
fn each_anomaly_of_a_record_has_its_own_page_and_its_own_review() {
    let stage = Stage::new();
    let first = anomaly("pump-1", 0, Timestamp::now(), 24.6);
    let mut second = first.clone();
    second.source.index = 1;
    let mut other = first.clone();
    other.kind = "limit".into();
    stage.insert_all(&[first, second, other]);
    let review = |id: &str, review: &str| {
        let config = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build();
        let url = format!("http://{}/anomalies/raw_events/0/0/{id}/reviews", stage.address);
        ureq::Agent::from(config).post(url).send(format!("review={review}&note=n")).unwrap().status().as_u16()
    };
    assert_eq!((review("0/point", "true"), review("1/point", "false"), review("2/point", "ack")), (303, 303, 404));
    std::thread::sleep(Duration::from_millis(900));
    let found = json(&stage.get("/api/v1/anomalies").2);
    let mut reviews = found["anomalies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| format!("{} {} {}", a["source"]["index"], a["kind"].as_str().unwrap(), a["review"].as_str().unwrap()))
        .collect::<Vec<_>>();
    reviews.sort();
    assert_eq!(reviews, ["0 limit none", "0 point true", "1 point false"]);
    let reviewed = |url: &str| {
        let (status, _, body) = stage.get(url);
        (status, body.contains("true alarm</b> by"), body.contains("false alarm</b> by"))
    };
    assert_eq!(reviewed("/anomalies/raw_events/0/0/0/point"), (200, true, false));
    assert_eq!(reviewed("/anomalies/raw_events/0/0/1/point"), (200, false, true));
    assert_eq!(reviewed("/anomalies/raw_events/0/0/0/limit"), (200, false, false));
    assert_eq!(reviewed("/anomalies/raw_events/0/0/2/point").0, 404);
    // The address without index and kind leads to the first of them.
    assert!(stage.get("/anomalies/raw_events/0/0").2.contains("/anomalies/raw_events/0/0/0/limit/reviews"));
}

#[test]
#[ignore = "makes ten million rows"]
fn no_page_reads_a_whole_table_of_ten_million_rows() {
    const ROWS: i64 = 10_000_000;
    let stage = Stage::with(|settings| settings.postgres.statement_timeout = Duration::from_secs(3_000));
    let mut client = stage.client();
    client.batch_execute("select anomalies_maintain('35 days', now(), '0', '0')").unwrap();
    // A thousand devices of three metrics over thirty days, in the order of time.
    let rows = format!(
        "insert into anomalies
         select 'raw_events', 0, n % 4, n, 0, 'point', 2, 'pump-' || to_char(hashint8(n) & 1023, 'FM0000'),
             (array['temperature', 'pressure', 'vibration'])[1 + (n % 3)], 24.6, now() - interval '30 days' * (1 - n / {ROWS}.0),
             'sigma', 28.2, 3, 21.45, 21.1, 21.8, 21.45, 0.11, 28.2, '{{}}', 'high',
             case when n % 5 = 0 then 'critical' else 'warning' end, case when n % 9973 = 0 then 'spike' end, 4,
             '{{21.4,21.6,21.5,21.3}}', null, null, null, now(), 1, n
         from generate_series(1, {ROWS}) n"
    );
    let start = Clock::now();
    client.batch_execute(&rows).unwrap();
    // In the order of time, as the sink writes them; a hash's would scatter an hour over the whole table.
    let totals = "insert into anomaly_minutes
             select date_trunc('minute', event_time), coalesce(sink, 0), severity, count(*), count(label)
             from anomalies group by 1, 2, 3 order by 1;
         insert into anomaly_hours
             select date_trunc('hour', event_time), device_id, coalesce(metric_name, ''), severity, count(*)
             from anomalies group by 1, 2, 3, 4 order by 1;
         insert into anomaly_days
             select date_trunc('day', hour), device_id, metric_name, severity, sum(anomalies)
             from anomaly_hours group by 1, 2, 3, 4 order by 1;
         insert into anomaly_metrics
             select hour, metric_name, severity, 0, sum(anomalies) from anomaly_hours group by 1, 2, 3 order by 1;
         insert into devices select distinct device_id from anomaly_hours;
         insert into reviews
             (source_topic, source_partition, source_offset, source_index, kind, event_time, review, made_by)
             select source_topic, source_partition, source_offset, source_index, kind, event_time, 'true', 'ada'
             from anomalies where source_offset % 99991 = 0";
    client.batch_execute(totals).unwrap();
    client.batch_execute("update sink_offsets set next_offset = 10000001").unwrap();
    // Not in one transaction with anything.
    client.batch_execute("vacuum analyze").unwrap();
    println!("{ROWS} rows made in {:?}", start.elapsed());
    let pages = [
        "/",
        "/?span=15m",
        "/?span=6h",
        "/?span=24h",
        "/?span=7d",
        "/?span=30d",
        "/?span=1h&device=pump-0042",
        "/?span=30d&device=pump-0042",
        "/?span=30d&metric=pressure",
        "/?span=7d&severity=critical",
        "/?q=0042",
        "/?q=004&span=24h",
        "/anomalies",
        "/anomalies?severity=critical",
        "/anomalies?device=pump-0042&metric=pressure",
        "/anomalies?q=0042&severity=critical",
        "/anomalies?review=true",
        "/anomalies?review=none",
        "/anomalies?span=30d",
        "/anomalies?before=1700000000000.0.0.5.0.point.raw_events",
        "/anomalies/raw_events/2/5000002",
        "/devices",
        "/devices?span=30d",
        "/devices/pump-0042",
        "/devices/pump-0042/pressure?span=30d",
        "/devices/nobody",
        "/detection",
        "/detection?span=30d",
        "/api/v1/anomalies?limit=500",
        "/api/v1/anomalies?label=spike&span=24h",
    ];
    // What a scan of a whole table leaves behind, of those that have a million rows: a full week has more than two.
    let scanned = |client: &mut postgres::Client| -> i64 {
        std::thread::sleep(Duration::from_millis(1_100));
        let sql = "select coalesce(sum(seq_tup_read), 0)::bigint, count(*) from pg_stat_user_tables
                   where schemaname = current_schema() and n_live_tup >= 1000000";
        let row = client.query_one(sql, &[]).unwrap();
        assert!(row.get::<_, i64>(1) >= 4, "the rows are not there");
        row.get(0)
    };
    let mut slow = Vec::new();
    for page in pages {
        let before = scanned(&mut client);
        // On a machine with other work an answer may come too late for its page; it is asked for again.
        let first = (0..10).find_map(|_| {
            std::thread::sleep(Duration::from_millis(850));
            time(&stage, page)
        });
        let first = first.unwrap_or_else(|| panic!("{page} is late ten times"));
        let read = scanned(&mut client) - before;
        println!("{:>8.1} ms, {read:>9} rows scanned: {page}", first.as_secs_f64() * 1e3);
        if read > 0 {
            slow.push(format!("{page}: {read} rows"));
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
    // For bench/README.md: each again and again, as rarely as answers are not given again.
    let mut times = vec![Vec::new(); pages.len()];
    for _ in 0..100 {
        let round = Clock::now();
        for (page, times) in pages.iter().zip(&mut times) {
            times.push(time(&stage, page).map_or(f64::INFINITY, |time| time.as_secs_f64() * 1e3));
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(round.elapsed()));
    }
    println!("hundred times each, ms: p50, p99, slowest");
    for (page, mut times) in pages.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!("{:>6.1} {:>6.1} {:>6.1} {page}", times[49], times[98], times[99]);
    }
}

/// Measures the time of an answer; `None` if it comes too late for its page.
fn time(stage: &Stage, page: &str) -> Option<Duration> {
    let start = Clock::now();
    let (status, stale, body) = get(stage.address, page);
    let is_late = status == 503 || !stale.is_empty() || body.contains("does not answer in time");
    assert!(is_late || matches!(status, 200 | 404), "{page}: {status} {body}");
    (!is_late).then(|| start.elapsed())
}

#[test]
fn a_part_of_a_name_finds_devices_and_wildcards_are_literal() {
    let stage = Stage::new();
    for (i, device) in ["Pump-0042", "pump-0043", "press_1", "pressX1", "100%"].into_iter().enumerate() {
        stage.insert(&anomaly(device, i as i64, ago(60), 24.0));
    }
    let devices = |query: &str| {
        let found = json(&stage.get(&format!("/api/v1/anomalies?{query}")).2);
        let mut names =
            found["anomalies"].as_array().unwrap().iter().map(|a| a["device_id"].to_string()).collect::<Vec<_>>();
        names.sort();
        names.join(" ").replace('"', "")
    };
    assert_eq!(devices("q=PUMP"), "Pump-0042 pump-0043");
    assert_eq!(devices("q=press_1"), "press_1");
    assert_eq!(devices("q=0%25"), "100%");
    assert_eq!(devices("q=nothing"), "");
    assert_eq!(devices("q=pump&device=pump-0043&device=press_1"), "pump-0043");
    assert_eq!(devices("device=press_1&device=pressX1"), "pressX1 press_1");
    assert_eq!(stage.get("/?q=nothing&span=30d").0, 200);
    let (_, _, none) = stage.get("/anomalies?severity=warning&device=100%25");
    assert!(none.contains("Without the severity there is one."), "{none}");
    let ranked = json(&stage.get("/api/v1/anomalies?sort=device").2);
    assert_eq!(ranked["anomalies"][0]["device_id"], "100%");
}

#[test]
fn a_review_filters_counts_and_never_changes_the_record() {
    let stage = Stage::new();
    (0..4).for_each(|i| stage.insert(&anomaly("pump", i, ago(60 + i), 24.0)));
    let records = || {
        let mut found = json(&stage.get("/api/v1/anomalies").2)["anomalies"].clone();
        let reviews =
            found.as_array_mut().unwrap().iter_mut().map(|a| a.as_object_mut().unwrap().remove("review").unwrap());
        let reviews = reviews.map(|review| review.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        (found, reviews)
    };
    let before = records().0;
    for (offset, review) in [(1, "ack"), (1, "true"), (2, "false"), (3, "ack"), (3, "none")] {
        let config = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build();
        let url = format!("http://{}/anomalies/raw_events/0/{offset}/0/point/reviews", stage.address);
        let answer = ureq::Agent::from(config).post(url).send(format!("review={review}&note=n")).unwrap();
        assert_eq!(answer.status().as_u16(), 303);
    }
    std::thread::sleep(Duration::from_millis(900));
    let offsets = |review: &str| {
        let found = json(&stage.get(&format!("/api/v1/anomalies?{review}")).2);
        let offsets = found["anomalies"].as_array().unwrap().iter().map(|a| a["source"]["offset"].as_i64().unwrap());
        offsets.collect::<Vec<_>>()
    };
    assert_eq!(offsets("review=true"), [1]);
    assert_eq!(offsets("review=false&review=true"), [1, 2]);
    assert_eq!(offsets("review=none"), [0, 3]);
    assert_eq!(offsets("review=none&review=false"), [0, 2, 3]);
    assert_eq!(offsets("review=ack"), [0_i64; 0]);
    assert_eq!(records(), (before, ["none", "true", "false", "none"].map(str::to_owned).to_vec()));
    let (_, _, body) = stage.get("/detection");
    assert!(body.contains("1 of 2 reviewed anomalies were true alarms: 50 %"), "{body}");
    let (_, _, explain) = stage.get("/anomalies/raw_events/0/3");
    assert!(
        explain.contains("acknowledged</b> by <bdi>anyone</bdi>") && explain.contains("<p>not reviewed</p>"),
        "{explain}"
    );
}

#[test]
fn an_export_has_every_row_once_beyond_a_page() {
    let stage = Stage::new();
    let rows = (0..1_203).map(|i| anomaly("=pump", i, ago(60 + i % 100), 24.0)).collect::<Vec<_>>();
    stage.insert_all(&rows);
    let (status, _, csv) = stage.get("/api/v1/anomalies.csv?span=1h");
    assert_eq!(status, 200);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let of_offset = reader.headers().unwrap().iter().position(|name| name == "source_offset").unwrap();
    let lines = reader.records().collect::<Result<Vec<_>, _>>().unwrap();
    let mut offsets = lines.iter().map(|line| line[of_offset].parse::<i64>().unwrap()).collect::<Vec<_>>();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..1_203).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| &line[1] == "'=pump"));
    assert_eq!(stage.get("/api/v1/anomalies.jsonl").2.lines().count(), 1_203);
    assert_eq!(stage.get("/api/v1/anomalies.jsonl?limit=7").2.lines().count(), 7);
}

#[test]
fn a_schema_without_tables_is_reported_with_the_remedy() {
    let stage = Stage::new();
    stage.client().batch_execute("drop table anomalies cascade").unwrap();
    let (status, _, body) = stage.get("/");
    assert!(status == 503 && body.contains("anomaly migrate"), "{body}");
}

/// A proxy between the dashboard and the database, which can cut the connection.
pub struct Between {
    port: u16,
    is_open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Between {
    fn new(upstream: (String, u16)) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_open, streams) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let (open, held) = (Arc::clone(&is_open), Arc::clone(&streams));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let far = TcpStream::connect((upstream.0.as_str(), upstream.1)).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
                held.lock().unwrap().extend([near, far]);
            }
        });
        Between { port, is_open, streams }
    }

    pub fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    /// Closes all connections and accepts no more.
    pub fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        self.cut();
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn a_restart_is_not_noticed_and_an_outage_is_reported_and_ends_by_itself() {
    let stage = Stage::new();
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.0));
    let (address, between, _stop) = stage.second_instance();
    assert!(get(address, "/").2.contains("pump-0042"));
    // The server restarts: the pooled connections are dead, new ones are not. On a busy machine one of five tries suffices.
    let is_fresh = |_| {
        between.cut();
        std::thread::sleep(Duration::from_secs(1));
        let (status, stale, _) = get(address, "/");
        (status, stale.as_str()) == (200, "")
    };
    assert!((0..5).any(is_fresh), "each restart was noticed");
    // It is gone.
    between.close();
    std::thread::sleep(Duration::from_secs(1));
    within_two_seconds("/", || {
        let (status, stale, body) = get(address, "/");
        assert_eq!((status, stale.as_str()), (200, "1"));
        assert!(body.contains("PostgreSQL has been unreachable since") && body.contains("pump-0042"), "{body}");
    });
    let (status, _, body) = get(address, "/devices");
    assert!(status == 503 && body.contains("There is no earlier data to show."), "{body}");
    // It returns.
    between.open();
    let patience = Clock::now();
    while get(address, "/").1 == "1" {
        assert!(patience.elapsed() < Duration::from_secs(30), "its return is not noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_a_database_every_page_answers_in_two_seconds() {
    let mut settings = settings();
    // A port that refuses connections, and that no other test can get meanwhile.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    settings.postgres.port = closed.local_addr().unwrap().port();
    let (address, _stop) = serve(&settings);
    for url in ["/", "/anomalies", "/devices", "/devices/pump", "/anomalies/raw_events/0/7", "/api/v1/anomalies"] {
        within_two_seconds(url, || {
            let (status, _, body) = get(address, url);
            assert_eq!(status, 503, "{url}");
            assert!(body.contains("PostgreSQL has been unreachable since"), "{url}: {body}");
            assert!(!body.contains("refused") && !body.contains("src/"), "{url}: {body}");
        });
    }
}

/// Checks that an answer waits at most two seconds for an unavailable database. On a busy machine one of five tries suffices.
fn within_two_seconds(url: &str, ask: impl Fn()) {
    let times = (0..5).map(|_| {
        let start = Clock::now();
        ask();
        start.elapsed()
    });
    assert!(times.into_iter().any(|time| time < Duration::from_secs(2)), "{url}: five answers were late");
}
