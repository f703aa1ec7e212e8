//! The dashboard against a real PostgreSQL: what is in the tables is on the pages and in the API, page by page; without a
//! database it says so in time. Needs the variables of `vagrant/box env`; each test has a schema of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use anomaly::anomaly::{Anomaly, Direction, Severity, Source};
use anomaly::config::{self, Settings};
use anomaly::event::Instant;
use anomaly::page::listener;
use anomaly::role::dashboard;
use anomaly::{store, window};
use tokio::sync::oneshot;

/// A migrated schema with the dashboard over it; dropped at the end.
pub struct Stage {
    settings: Settings,
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

fn settings() -> Settings {
    let places = config::Places {
        dir: concat!(env!("CARGO_MANIFEST_DIR"), "/etc").into(),
        required: true,
        file: Some(config::schema::File::Dashboard),
        env: std::env::vars().filter(|(name, _)| name.starts_with("ANOMALY__")).collect(),
        credentials: None,
    };
    config::load(&places).unwrap().settings
}

/// The pages of these settings on a free port.
fn serve(settings: &Settings) -> (SocketAddr, oneshot::Sender<()>) {
    let handler = dashboard::app(settings).unwrap();
    let bound = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.address();
    let (sender, stop) = oneshot::channel();
    std::thread::spawn(move || bound.serve(handler, stop, Duration::from_millis(100)));
    (address, sender)
}

impl Stage {
    fn new() -> Stage {
        Stage::with(|_| ())
    }

    /// With other settings than the shipped ones.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Stage {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut settings = settings();
        change(&mut settings);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        settings.postgres.schema = format!("dashboard_{}_{number}", std::process::id());
        let mut client = store::connect(&settings.postgres).unwrap();
        store::migrate::migrate(&mut client, &settings.postgres.schema).unwrap();
        let (address, stop) = serve(&settings);
        Stage { settings, address, _stop: stop }
    }

    fn client(&self) -> postgres::Client {
        store::connect(&self.settings.postgres).unwrap()
    }

    pub fn insert(&self, anomaly: &Anomaly) {
        let a = anomaly;
        let time = a.timestamp.unwrap().to_time();
        let sql = format!(
            "insert into anomalies ({}) values ($1,$2,$3,$4,$5,1,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23)",
            store::row::COLUMNS
        );
        let values: [&(dyn postgres::types::ToSql + Sync); 23] = [
            &a.source.topic,
            &a.source.partition,
            &a.source.offset,
            &a.source.index,
            &a.kind,
            &a.device_id,
            &a.metric_name,
            &a.metric_value,
            &time,
            &a.mean,
            &a.std_dev,
            &a.z_score,
            &a.score,
            &a.threshold,
            &a.lower,
            &a.upper,
            &(a.window_count as i32),
            &a.method,
            &a.direction.as_str(),
            &a.severity.as_str(),
            &a.label,
            &a.window,
            &time,
        ];
        self.client().execute(&sql, &values).unwrap();
    }

    fn get(&self, url: &str) -> (u16, String, String) {
        get(self.address, url)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let sql = format!("drop schema {} cascade", self.settings.postgres.schema);
        self.client().batch_execute(&sql).unwrap();
    }
}

/// Status, `x-stale` and body.
fn get(address: SocketAddr, url: &str) -> (u16, String, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let mut answer = ureq::Agent::from(config).get(format!("http://{address}{url}")).call().unwrap();
    let stale = answer.headers().get("x-stale").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    (answer.status().as_u16(), stale, answer.body_mut().read_to_string().unwrap())
}

pub fn ago(seconds: i64) -> Instant {
    Instant::from_millis(Instant::now().millis() - seconds * 1000).unwrap()
}

pub fn anomaly(device: &str, offset: i64, time: Instant, value: f64) -> Anomaly {
    let window = vec![21.4, 21.6, 21.5, 21.3];
    let moments = window::moments(window.iter().copied()).unwrap();
    let z = (value - moments.mean) / moments.std_dev;
    Anomaly {
        schema_version: 1,
        kind: "point".into(),
        device_id: device.into(),
        metric_name: Some("temperature".into()),
        metric_value: value,
        timestamp: Some(time),
        mean: moments.mean,
        std_dev: moments.std_dev,
        z_score: Some(z),
        score: z.abs(),
        threshold: 3.0,
        lower: moments.mean - 3.0 * moments.std_dev,
        upper: moments.mean + 3.0 * moments.std_dev,
        window_count: 4,
        method: "sigma".into(),
        direction: if z < 0.0 { Direction::Low } else { Direction::High },
        severity: if z.abs() >= 6.0 { Severity::Critical } else { Severity::Warning },
        label: None,
        window,
        source: Source { topic: "raw_events".into(), partition: 0, offset, index: 0 },
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_empty_database_says_that_nothing_has_reported() {
    let stage = Stage::new();
    let (status, stale, body) = stage.get("/");
    assert_eq!((status, stale.as_str()), (200, ""));
    assert!(body.contains("No detector has reported yet.") && body.contains("No anomaly is recorded yet"), "{body}");
    assert!(!body.contains("\"cov\""), "nothing was judged");
    assert_eq!(stage.get("/api/anomalies").2, r#"{"anomalies":[],"next":null}"#);
}

#[test]
fn what_is_in_the_tables_is_on_the_pages() {
    let stage = Stage::new();
    let hostile = "<b>pump</b>/'7'";
    let critical = anomaly(hostile, 7, ago(130), 24.6);
    stage.insert(&critical);
    stage.insert(&anomaly("press-0009", 8, ago(190), 21.0));
    stage
        .client()
        .batch_execute(
            "insert into detector_status values ('g', 'raw_events', 0, 'w', 'running', 9, 62, 53, now(), 2, 'h', now());
             insert into coverage select m, 'raw_events', 0, 600, 0, 0
             from generate_series(date_trunc('minute', now()) - interval '30 min', date_trunc('minute', now()), '1 min') m",
        )
        .unwrap();
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
    let found = json(&stage.get("/api/anomalies?severity=critical&span=1h").2);
    let mut record = found["anomalies"][0].clone();
    record.as_object_mut().unwrap().remove("detected_at").unwrap();
    assert_eq!(serde_json::from_value::<Anomaly>(record).unwrap(), critical);
    stage.client().batch_execute("update detector_status set updated_at = now() - interval '20 s'").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(stage.get("/").2.contains("Detection has stopped."));
}

#[test]
fn pages_follow_one_another_without_gap_or_repetition_also_at_equal_times() {
    let stage = Stage::new();
    for offset in 0..25 {
        // Five at each time: the order goes on inside them.
        stage.insert(&anomaly("pump", offset, Instant::from_millis(1_700_000_000_000 + offset / 5).unwrap(), 24.0));
    }
    let (mut seen, mut url) = (Vec::new(), "/api/anomalies?limit=4".to_owned());
    loop {
        let page = json(&stage.get(&url).2);
        let offsets = page["anomalies"].as_array().unwrap().iter().map(|a| a["source"]["offset"].as_i64().unwrap());
        seen.extend(offsets);
        let Some(next) = page["next"].as_str() else { break };
        url = format!("/api/anomalies?limit=4&before={next}");
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<_>>());
    let range = json(&stage.get("/api/anomalies?from=2023-11-14T22:13:20.001Z&to=2023-11-14T22:13:20.002Z").2);
    assert_eq!(range["anomalies"].as_array().unwrap().len(), 5);
    assert_eq!(stage.get("/api/anomalies?device=other").2, r#"{"anomalies":[],"next":null}"#);
    assert!(stage.get("/anomalies?limit=4").2.contains(">Older</a>"));
}

#[test]
fn a_schema_without_tables_says_the_remedy() {
    let stage = Stage::new();
    stage.client().batch_execute("drop table anomalies").unwrap();
    let (status, _, body) = stage.get("/");
    assert!(status == 503 && body.contains("anomaly migrate"), "{body}");
}

/// Stands between the dashboard and the database, and can cut them apart.
struct Between {
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

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn a_restart_is_not_noticed_and_an_outage_is_told_and_ends_by_itself() {
    let stage = Stage::new();
    stage.insert(&anomaly("pump-0042", 1, ago(60), 24.0));
    let mut settings = stage.settings.clone();
    let between = Between::new((settings.postgres.host.clone(), settings.postgres.port));
    (settings.postgres.host, settings.postgres.port) = ("127.0.0.1".into(), between.port);
    let (address, _stop) = serve(&settings);
    assert!(get(address, "/").2.contains("pump-0042"));
    // The server restarts: the pooled connections are dead, new ones are not.
    between.cut();
    std::thread::sleep(Duration::from_secs(1));
    let (status, stale, _) = get(address, "/");
    assert_eq!((status, stale.as_str()), (200, ""));
    // It is gone.
    between.is_open.store(false, Ordering::SeqCst);
    between.cut();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..3 {
        let start = Clock::now();
        let (status, stale, body) = get(address, "/");
        assert_eq!((status, stale.as_str()), (200, "1"));
        assert!(body.contains("PostgreSQL is away since") && body.contains("pump-0042"), "{body}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    let (status, _, body) = get(address, "/devices");
    assert!(status == 503 && body.contains("There is no earlier data to show."), "{body}");
    // It returns.
    between.is_open.store(true, Ordering::SeqCst);
    let patience = Clock::now();
    while get(address, "/").1 == "1" {
        assert!(patience.elapsed() < Duration::from_secs(5), "its return is not noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_a_database_every_page_answers_in_two_seconds() {
    let mut settings = settings();
    // A port that was free a moment ago.
    settings.postgres.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (address, _stop) = serve(&settings);
    for url in ["/", "/anomalies", "/devices", "/devices/pump", "/anomalies/raw_events/0/7", "/api/anomalies"] {
        let start = Clock::now();
        let (status, _, body) = get(address, url);
        assert_eq!(status, 503, "{url}");
        assert!(body.contains("PostgreSQL is away since"), "{url}: {body}");
        assert!(!body.contains("refused") && !body.contains("src/"), "{url}: {body}");
        assert!(start.elapsed() < Duration::from_secs(2), "{url}: {:?}", start.elapsed());
    }
}
