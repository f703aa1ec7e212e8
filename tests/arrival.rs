//! Tests of the dashboard over a real PostgreSQL: what it knows by time of arrival, whatever times the events have.

use std::time::Duration;

use anomaly::event::{RejectClass, Timestamp};
use anomaly::health::{Cut, Health, RejectedSample, RejectedSamples};
use anomaly::store::heartbeat::Heartbeat;

use super::common::{Case, Sent, event, free_port, wait_for};
use super::dashboard::{Stage, ago, anomaly, get, json};

/// Inserts rows whose event times have these distances from now in seconds, all detected now.
fn detected_now(stage: &Stage, distances: &[i64]) {
    for (offset, seconds) in distances.iter().enumerate() {
        stage.insert(&anomaly("pump-0042", offset as i64, ago(-seconds), 24.6));
    }
    stage.client().batch_execute("update anomalies set detected_at = now()").unwrap();
}

#[test]
fn anomalies_with_another_time_are_on_the_page_in_the_list_the_api_and_the_export() {
    let stage = Stage::new();
    stage.report();
    let (hour, year) = (3_600, 31_556_952);
    // A usual one, and -75 min, -2 h, -5 h, +10 min, +25 h, 1970, 2106.
    let distances = [-60, -75 * 60, -2 * hour, -5 * hour, 600, 25 * hour, -56 * year, 80 * year];
    detected_now(&stage, &distances);
    let offsets = |rows: &serde_json::Value| {
        let mut all =
            rows.as_array().unwrap().iter().map(|a| a["source"]["offset"].as_i64().unwrap()).collect::<Vec<_>>();
        all.sort_unstable();
        all
    };
    for (span, inside) in [("15m", &[0][..]), ("1h", &[0]), ("24h", &[0, 1, 2, 3])] {
        let answer = json(&stage.get(&format!("/api/v1/anomalies?span={span}")).2);
        // A bar of a day is longer than ten minutes.
        let found = offsets(&answer["anomalies"]);
        assert!(found.iter().filter(|offset| **offset != 4).eq(inside), "{span}: {found:?}");
        let both = [found, offsets(&answer["outside"])].concat();
        assert_eq!(both.len(), distances.len(), "{span}: {both:?}");
        assert_eq!(answer["outside_is_cut"], false);
        assert_eq!(stage.get(&format!("/api/v1/anomalies.csv?span={span}")).2.lines().count(), 1 + distances.len());
        assert_eq!(stage.get(&format!("/api/v1/anomalies.jsonl?span={span}")).2.lines().count(), distances.len());
    }
    let cut = json(&stage.get("/api/v1/anomalies?span=1h&limit=3").2);
    assert!(cut["outside"].as_array().unwrap().len() == 3 && cut["outside_is_cut"] == true, "{cut}");
    let (_, _, page) = stage.get("/");
    assert!(page.contains("More than 6 anomalies were detected in the last hour"), "{page}");
    assert_eq!(page.matches("data-key=").count(), 1, "the table has the row that the headline counts");
    let (_, _, list) = stage.get("/anomalies?span=1h");
    assert!(list.contains("7 anomalies were detected in the last hour and have event times outside of it"), "{list}");
    assert!(!list.contains("in \u{2212}") && list.contains(" years ahead") && list.contains("56 years ago"), "{list}");
}

#[test]
fn one_critical_row_of_any_time_is_never_quiet_or_waiting() {
    for seconds in [600, 25 * 3_600, -56 * 31_556_952, 80 * 31_556_952, -2 * 3_600, -5 * 3_600, -75 * 60] {
        let stage = Stage::new();
        // The detector reports, and no event has a time of this hour.
        stage.report();
        stage.client().batch_execute("truncate coverage; truncate activity").unwrap();
        detected_now(&stage, &[seconds]);
        let (_, _, page) = stage.get("/");
        let sentence = page.split("class=\"sentence\">").nth(1).unwrap().split("</h1>").next().unwrap().to_owned();
        assert!(sentence.contains("1 anomaly detected"), "{seconds}: {sentence}");
    }
}

#[test]
fn the_headline_counts_the_rows_below_it_and_news_are_counted_from_all_that_was_detected() {
    let stage = Stage::new();
    stage.report();
    (0..8).for_each(|i| stage.insert(&anomaly("pump-0042", i, ago(300 + i), 24.6)));
    stage.insert(&anomaly("pump-0042", 8, ago(2 * 3_600), 24.6));
    let (_, _, page) = stage.get("/");
    assert!(page.contains("<strong>8 anomalies</strong>"), "{page}");
    assert_eq!(page.matches("data-key=").count(), 8);
    let rows = (100..140).map(|i| anomaly("press-0009", i, ago(i % 7), 24.6)).collect::<Vec<_>>();
    stage.insert_all(&rows);
    std::thread::sleep(std::time::Duration::from_millis(900));
    let (_, _, page) = stage.get("/");
    assert!(page.contains("40 new in the last 30 s") && page.matches("data-key=").count() == 12, "{page}");
}

#[test]
fn rejected_records_go_from_the_detector_to_their_page_a_few_of_each_class() {
    let stage = Stage::new();
    let health = Health::default();
    let part = health.component("worker-0");
    let settings = ("h", serde_json::json!({}));
    let mut heartbeat = Heartbeat::new(&stage.settings().postgres, "g", "raw_events", "a", settings);
    let sample = |offset: i64, class| RejectedSample {
        generation: 0,
        partition: 3,
        offset,
        class,
        message: "`device_id` is missing\0".into(),
        key: Some(Cut::of(b"\xff\x00")),
        value: Some(Cut::of(format!("{{\"<b>\":\"\u{202e}{}\"}}", "x".repeat(5_000)).as_bytes())),
        at: Timestamp::now(),
    };
    for round in 0..10 {
        let mut samples = RejectedSamples::default();
        (0..20).for_each(|i| samples.push(sample(round * 20 + i, RejectClass::DeviceId)));
        part.note_rejected(samples);
        heartbeat.write(&health.components()).unwrap();
    }
    let mut samples = RejectedSamples::default();
    samples.push(sample(1_000, RejectClass::Utf8));
    part.note_rejected(samples);
    heartbeat.write(&health.components()).unwrap();
    let (status, _, page) = stage.get("/dead-letters");
    assert_eq!(status, 200, "{page}");
    assert_eq!(page.matches("<tr><td><time").count(), 21, "{page}");
    for text in [
        "`device_id` is missing",
        "[3] 199",
        "[3] 1000",
        "\\xff\\u{0}",
        "{&quot;&lt;b&gt;&quot;:&quot;\\u{202e}xxx",
        "bytes)",
    ] {
        assert!(page.contains(text), "no {text} in {page}");
    }
}

#[test]
fn a_device_in_a_detectors_memory_is_known_without_any_anomaly() {
    let stage = Stage::new();
    let (status, _, page) = stage.get("/devices/pump-0042");
    assert!(status == 200 && page.contains("It is not known whether it sends"), "{page}");
    let health = Health::default();
    let part = health.component("worker-0");
    let settings = ("h", serde_json::json!({}));
    let mut heartbeat = Heartbeat::new(&stage.settings().postgres, "g", "raw_events", "a", settings);
    part.note_devices(["pump-0042", "pump-0043", "pump-0042"]);
    heartbeat.write(&health.components()).unwrap();
    let sql = "update seen_devices set seen_at = now() - interval '40 days' where device_id = 'pump-0043'";
    stage.client().batch_execute(sql).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(900));
    let (status, _, page) = stage.get("/devices/pump-0042");
    assert!(status == 200 && page.contains("A record of this device was noted at"), "{page}");
    let (status, _, page) = stage.get("/devices/nobody");
    assert!(status == 404 && page.contains("There is no such device."), "{page}");
    // Those that have not sent for long leave.
    part.note_devices(["pump-0044"]);
    heartbeat.write(&health.components()).unwrap();
    assert_eq!(stage.get("/devices/pump-0043").0, 404);
}

#[test]
fn the_nearest_are_around_the_same_time_however_many_come_in_the_next_minutes() {
    let stage = Stage::new();
    stage.insert(&anomaly("pump-0042", 0, ago(400), 24.6));
    let rows = (1..200).map(|i| anomaly(&format!("press-{i}"), i, ago(400 - i), 24.6)).collect::<Vec<_>>();
    stage.insert_all(&rows);
    let (_, _, page) = stage.get("/anomalies/raw_events/0/0");
    let around = page.split("h-around").nth(2).unwrap().split("</section>").next().unwrap();
    for i in 1..=4 {
        assert!(around.contains(&format!(">press-{i}<")), "{around}");
    }
    assert!(!around.contains(">press-5<"), "{around}");
}

#[test]
fn a_time_in_the_future_hides_no_newest_anomaly() {
    let stage = Stage::new();
    stage.report();
    let far = (0..60).map(|i| anomaly("clock-2106", i, ago(-80 * 31_556_952), 24.6)).collect::<Vec<_>>();
    stage.insert_all(&far);
    stage.client().batch_execute("update anomalies set detected_at = now() - interval '2 days'").unwrap();
    stage.insert(&anomaly("pump-0042", 100, ago(60), 24.6));
    for url in ["/", "/anomalies"] {
        let (_, _, page) = stage.get(url);
        assert!(page.contains("data-key=\"raw_events/0/0/100/0/point\""), "{url}: {page}");
        assert!(!page.contains("last 80 years"), "{url}");
    }
    let (_, _, page) = stage.get("/anomalies");
    assert!(page.contains("20 or more anomalies have times that have not come yet"), "{page}");
    assert_eq!(json(&stage.get("/api/v1/anomalies").2)["anomalies"][0]["device_id"], "clock-2106");
}

#[test]
fn rows_that_the_table_refuses_are_counted_on_the_overview_and_the_detection() {
    let stage = Stage::new();
    stage.report();
    stage
        .client()
        .batch_execute(
            "insert into sink_rejects (topic, partition, record_offset, reason, message)
             select 'anomalies', 0, n, '22P05', 'no such character' from generate_series(1, 3) n",
        )
        .unwrap();
    assert!(stage.get("/").2.contains("3 rows refused"));
    assert!(stage.get("/detection").2.contains("3 rows refused by the table"));
}

#[test]
fn a_detector_that_rejects_everything_or_judges_other_times_says_so_on_its_pages_and_names_its_devices() {
    let case = Case::new("arrival");
    let _detector = case.detector("a", &[("DETECTOR__SNAPSHOT_INTERVAL", "1s")]);
    let listen = format!("127.0.0.1:{}", free_port());
    let _dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen)]);
    let patience = Duration::from_secs(90);
    wait_for("the pages", patience, || std::net::TcpStream::connect(&listen).is_ok());
    let page = |path: &str| get(listen.parse().unwrap(), path);
    let nameless = |i: i32| format!("{{\"metric_value\":{i},\"note\":\"\u{202e}<b>\"}}").into_bytes();
    case.produce((0..300).map(|i| Sent { value: Some(nameless(i)), ..Sent::default() }));
    wait_for("the headline of rejected records", patience, || {
        let body = page("/").2;
        body.contains("Events arrive, all rejected:") && body.contains("(300 of 300)")
    });
    let dead_letters = page("/dead-letters").2;
    assert!(dead_letters.contains("device_id") && dead_letters.contains("\\u{202e}&lt;b&gt;"), "{dead_letters}");
    assert!(!dead_letters.contains('\u{202e}'), "{dead_letters}");
    // Two hours behind: thirty to learn from, ten normal ones, one that is not.
    let values = (0..40).map(|i| 20.0 + f64::from(i % 3)).chain([99.0]);
    case.produce(values.map(|value| {
        let json =
            serde_json::json!({"device_id": "pump-0042", "metric_value": value, "timestamp": ago(7_200).to_string()});
        Sent { key: Some("pump-0042".into()), value: Some(json.to_string().into_bytes()), ..Sent::default() }
    }));
    wait_for("the headline of other times", patience, || {
        let body = page("/").2;
        body.contains("1 anomaly detected") && body.contains("2 h behind")
    });
    let answer = json(&page("/api/v1/anomalies?span=1h").2);
    assert_eq!((answer["anomalies"].as_array().unwrap().len(), answer["outside"].as_array().unwrap().len()), (0, 1));
    case.produce([event("healthy", 1.0)]);
    wait_for("the device without anomalies", patience, || {
        page("/devices/healthy").2.contains("A record of this device was noted at")
    });
    assert_eq!(page("/devices/nobody").0, 404);
}

#[test]
fn what_a_clock_that_was_ahead_dated_in_the_future_is_not_counted_as_recent() {
    let stage = Stage::new();
    stage.report();
    stage.insert(&anomaly("pump", 1, ago(18_000), 99.0));
    let sql = "update anomalies set detected_at = now() + interval '400 days';
               insert into activity values (date_trunc('minute', now()) + interval '400 days', 'raw_events', 0, 777777, 0, 0,
                  0, 777777, 777777::bigint * 34560000, 0, 0)";
    stage.client().batch_execute(sql).unwrap();
    for url in ["/?span=15m", "/anomalies?span=15m"] {
        let (_, _, page) = stage.get(url);
        for text in ["400 d", "777,777", "has an event time outside of it", "1 new in"] {
            assert!(!page.contains(text), "{url} has {text}: {page}");
        }
    }
    // While the detector's clock is ahead, its reports of today have such times.
    let sql = "update detector_status set updated_at = now(), reported_at = now() + interval '400 days'";
    stage.client().batch_execute(sql).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let page = stage.get("/anomalies?span=15m").2;
    assert!(page.contains("1 anomaly was detected in the last 15 minutes"), "{page}");
}
