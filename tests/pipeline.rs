//! Events through a real Kafka: every record gets exactly one verdict or one dead letter; verdicts are the oracle's; topic
//! `anomalies`, read committed, equals the table.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rustix::process::Signal;

use crate::common::{Case, Got, Sent, event, wait};
use crate::oracle::Oracle;

/// Time for a stop, as the issue has it.
const STOP: Duration = Duration::from_secs(30);

/// Seeded noise with spikes; one record in `bad` is malformed.
pub fn events(seed: u64, devices: u64, n: u64, bad: u64) -> impl Iterator<Item = Sent> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let malformed: [&[u8]; 6] = [
        b"not json",
        b"{\"device_id\":\"x\"}",
        b"{\"device_id\":\"\",\"metric_value\":1}",
        b"{\"device_id\":\"d\",\"metric_value\":\"one\"}",
        b"\xff\xfe",
        b"[1,2]",
    ];
    (0..n).map(move |i| {
        if bad > 0 && i % bad == bad - 1 {
            let value = malformed[(i / bad) as usize % malformed.len()];
            return Sent { key: Some(format!("bad-{i}").into()), value: Some(value.to_vec()), ..Sent::default() };
        }
        let device = random.random_range(0..devices);
        let spike = if random.random_range(0..500) == 0 { random.random_range(-40.0..40.0) } else { 0.0 };
        event(&format!("device-{device:04}"), device as f64 + random.random_range(-1.0..1.0) + spike)
    })
}

/// Reads everything back and holds it against the oracle; returns the numbers of anomalies and dead letters.
pub fn verify(case: &Case) -> (usize, usize) {
    verify_against(case, case.read(&case.raw()), |_, _| 100)
}

/// The same of records that were read before, some of which may be gone by now; `window` is that of a partition's offset.
pub fn verify_against(case: &Case, records: Vec<Got>, window: impl Fn(i32, i64) -> usize) -> (usize, usize) {
    verify_methods(case, records, |partition, offset| ("sigma", window(partition, offset)))
}

/// The same of methods other than `sigma`; `settings` are method and window at a partition's offset.
pub fn verify_methods(
    case: &Case,
    records: Vec<Got>,
    settings: impl Fn(i32, i64) -> (&'static str, usize),
) -> (usize, usize) {
    let mut oracle = Oracle::new(100, 30, 3);
    let (mut expected, mut edges, mut dead_letters) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for got in records {
        let place = (got.partition, got.offset);
        let (method, window) = settings(got.partition, got.offset);
        oracle.set(method, window);
        let json = serde_json::from_slice::<serde_json::Value>(got.value.as_deref().unwrap_or_default());
        let event = json.ok().and_then(|json| {
            let device = json.get("device_id")?.as_str().filter(|d| !d.is_empty())?.to_owned();
            Some((device, json.get("metric_value")?.as_f64()?))
        });
        let Some((device, value)) = event else {
            dead_letters.insert(place, (got.key, got.value));
            continue;
        };
        // A series belongs to its partition.
        match oracle.judge(&format!("{}/{device}", got.partition), value) {
            Some(judged) if judged.is_edge => edges.push(place),
            Some(judged) if judged.is_abnormal => {
                expected.insert(place, (device, value, judged.mean.to_bits(), judged.std_dev.to_bits()));
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    for got in case.read(&case.anomalies()) {
        let a = got.json();
        let place = (a["source"]["partition"].as_i64().unwrap() as i32, a["source"]["offset"].as_i64().unwrap());
        let bits = |key: &str| a[key].as_f64().unwrap().to_bits();
        let figures = (
            a["device_id"].as_str().unwrap().to_owned(),
            a["metric_value"].as_f64().unwrap(),
            bits("mean"),
            bits("std_dev"),
        );
        assert_eq!(got.key.as_deref(), Some(figures.0.as_bytes()));
        assert_eq!(found.insert(place, figures), None, "{place:?} is in the topic twice");
    }
    let mut rows = BTreeMap::new();
    for row in case
        .sql()
        .query("select source_partition, source_offset, device_id, metric_value, mean, std_dev from anomalies", &[])
        .unwrap()
    {
        let (mean, std_dev): (f64, f64) = (row.get(4), row.get(5));
        rows.insert((row.get(0), row.get(1)), (row.get(2), row.get(3), mean.to_bits(), std_dev.to_bits()));
    }
    assert_eq!(difference(&found, &rows), Vec::<String>::new(), "the table and the topic differ");
    edges.iter().for_each(|place| {
        found.remove(place);
    });
    assert!(edges.len() < 5, "{} events at the edge of the threshold", edges.len());
    assert_eq!(difference(&expected, &found), Vec::<String>::new(), "the oracle and the topic differ");

    let mut dead = BTreeMap::new();
    for got in case.read(&case.dlq()) {
        let number = |name: &str| got.header(name).unwrap().parse::<i64>().unwrap();
        let place = (number("anomaly.error.partition") as i32, number("anomaly.error.offset"));
        assert_eq!(got.header("anomaly.error.topic"), Some(case.raw()));
        assert_eq!(dead.insert(place, (got.key, got.value)), None, "{place:?} is a dead letter twice");
    }
    assert!(dead == dead_letters, "{} dead letters, expected {}", dead.len(), dead_letters.len());
    (expected.len(), dead_letters.len())
}

/// The first few entries that are in one of the two only, or differ.
fn difference<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Vec<String> {
    let missing = expected.iter().filter(|(k, v)| found.get(k) != Some(*v));
    let extra = found.keys().filter(|k| !expected.contains_key(k));
    let missing = missing.map(|(k, v)| format!("{k:?}: expected {v:?}, found {:?}", found.get(k)));
    missing.chain(extra.map(|k| format!("{k:?} is too many"))).take(5).collect()
}

/// All `n` records have their outcome, and the table has caught up with the topic.
pub fn wait_done(case: &Case, n: i64) {
    wait("all events to be judged", || case.committed() == n);
    let published = case.read(&case.anomalies()).len() as i64;
    wait("all anomalies to be in the table", || case.count("anomalies") == published);
}

#[test]
fn a_million_events_give_exactly_the_oracles_anomalies_in_kafka_and_in_postgresql() {
    let case = Case::new("million");
    case.produce(events(1, 1_000, 1_000_000, 5_000));
    let detector = case.detector("a", &[]);
    wait_done(&case, 1_000_000);
    let total = |kind: &str| detector.metric(&format!("anomaly_events_total{{kind=\"{kind}\"}} "));
    let judged = total("learning") + total("normal") + total("anomalous");
    assert_eq!(judged, 999_800.0);
    assert!(detector.terminate(STOP).success());
    let (anomalies, dead_letters) = verify(&case);
    println!("{anomalies} anomalies, {dead_letters} dead letters");
    assert!(anomalies > 1_000 && dead_letters == 200);
}

#[test]
fn sigterm_in_the_middle_of_a_batch_at_full_speed_loses_and_doubles_nothing() {
    let case = Case::new("sigterm");
    let (mut before, mut produced, mut in_the_middle) = (0, 0, 0);
    for round in 0..4 {
        // However quick it is, there is something left to do.
        case.produce(events(20 + round, 200, 150_000, 500));
        produced += 150_000;
        let detector = case.detector("a", &[("DETECTOR__COMMIT_EVENTS", "3000")]);
        wait("some progress", || case.committed() > before);
        assert!(detector.terminate(STOP).success());
        before = case.committed();
        in_the_middle += i32::from(before < produced);
    }
    assert!(in_the_middle > 0, "stopped too late to show anything");
    let _last = case.detector("a", &[]);
    wait_done(&case, produced);
    verify(&case);
}

#[test]
fn a_killed_detector_begins_again_with_its_windows_where_it_had_committed() {
    let case = Case::new("killed");
    case.produce(events(3, 200, 200_000, 1_000));
    let (mut before, mut produced, mut in_the_middle) = (0, 200_000, 0);
    for round in 0..3 {
        // However quick it is, there is something left to do.
        case.produce(events(30 + round, 200, 100_000, 1_000));
        produced += 100_000;
        let detector = case.detector("a", &[("DETECTOR__COMMIT_EVENTS", "3000")]);
        wait("some progress", || case.committed() > before);
        detector.signal(Signal::KILL);
        drop(detector);
        before = case.committed();
        in_the_middle += i32::from(before < produced);
    }
    assert!(in_the_middle > 0, "killed too late to show anything");
    let _last = case.detector("a", &[]);
    wait_done(&case, produced);
    verify(&case);
}

#[test]
fn instances_that_join_and_leave_a_group_share_the_work_without_loss() {
    let case = Case::new("group");
    let settings = [("DETECTOR__WORKERS", "1"), ("DETECTOR__STOP_LEAVES", "true"), ("DETECTOR__COMMIT_EVENTS", "2000")];
    let first = case.detector("one", &settings);
    first.wait_ready();
    case.produce(events(4, 200, 150_000, 1_000));
    let second = case.detector("two", &settings);
    wait("the second instance to have partitions", || {
        second.metric("anomaly_series{worker=\"worker-0\",partition=\"3\"} ") > 0.0
    });
    case.produce(events(5, 200, 150_000, 1_000));
    assert!(first.terminate(STOP).success());
    case.produce(events(6, 200, 50_000, 1_000));
    wait_done(&case, 350_000);
    verify(&case);
}

#[test]
fn without_transactions_and_without_faults_the_result_is_the_same() {
    let mut case = Case::new("alo");
    case.set("DETECTOR__DELIVERY", "at_least_once");
    case.set("DETECTOR__STATE", "history");
    case.produce(events(7, 100, 50_000, 500));
    let detector = case.detector("a", &[]);
    wait_done(&case, 50_000);
    assert!(detector.terminate(STOP).success());
    verify(&case);
}

/// What must be rejected, with its class, and what must not.
fn odd_records() -> Vec<(Sent, Option<&'static str>)> {
    let json = |text: &str| Sent { key: Some(b"k".to_vec()), value: Some(text.into()), ..Sent::default() };
    let value = |text: &str| json(&format!(r#"{{"device_id":"d","metric_value":{text}}}"#));
    let at = |text: &str| json(&format!(r#"{{"device_id":"d","metric_value":1,"timestamp":{text}}}"#));
    let device = |text: &str| json(&format!(r#"{{"device_id":"{text}","metric_value":1}}"#));
    let deep = format!(r#"{{"x":{}1{},"device_id":"d","metric_value":1}}"#, "[".repeat(200), "]".repeat(200));
    let raw = |bytes: &[u8]| Sent { key: None, value: Some(bytes.to_vec()), ..Sent::default() };
    vec![
        (json("not json"), Some("json")),
        (json("[]"), Some("shape")),
        (json("{}"), Some("device_id")),
        (device(""), Some("device_id")),
        (device(&"x".repeat(257)), Some("device_id")),
        (device(&"x".repeat(256)), None),
        (device(r"a\u0000b"), Some("device_id")),
        (device(r"\ud800"), Some("device_id")),
        (value(r#""1""#), None),
        (value(r#""one""#), Some("metric_value")),
        (value("null"), Some("metric_value")),
        (value("true"), Some("metric_value")),
        (value("1e999"), Some("metric_value")),
        (value("NaN"), Some("json")),
        (raw(b"{\"device_id\":\"\xff\",\"metric_value\":1}"), Some("utf8")),
        (raw(b""), Some("empty")),
        (json(r#"{"device_id":"d","device_id":"d","metric_value":1}"#), Some("duplicate_field")),
        (json(&deep), None),
        (at(r#""yesterday""#), Some("timestamp")),
        (at(r#""9999-12-31T23:59:59Z""#), None),
        (at(r#""1903-12-17T10:35:00Z""#), None),
        (at("-62135596800"), None),
        // As large as the topic takes.
        (raw(&vec![b'x'; 1_048_400]), Some("json")),
        (json(&format!(r#"{{"x":"{}","device_id":"d","metric_value":1}}"#, "y".repeat(1_048_000))), None),
    ]
}

#[test]
fn every_malformed_record_becomes_a_dead_letter_byte_for_byte_and_stops_nothing() {
    let case = Case::new("odd");
    let odd = odd_records();
    case.produce(odd.iter().map(|(sent, _)| Sent { partition: Some(0), ..sent.clone() }));
    let detector = case.detector("a", &[]);
    wait("all records to have an outcome", || case.committed() == odd.len() as i64);
    let dead_letters = case.read(&case.dlq());
    let expected = odd.iter().enumerate().filter_map(|(offset, (sent, class))| Some((offset, sent, (*class)?)));
    let mut count = 0;
    for (offset, sent, class) in expected {
        count += 1;
        let dead_letter = dead_letters
            .iter()
            .find(|got| got.header("anomaly.error.offset") == Some(offset.to_string()))
            .unwrap_or_else(|| panic!("no dead letter of record {offset}"));
        assert_eq!((&dead_letter.key, &dead_letter.value), (&sent.key, &sent.value), "record {offset}");
        assert_eq!(dead_letter.header("anomaly.error.class").as_deref(), Some(class), "record {offset}");
        assert_eq!(dead_letter.header("anomaly.error.stage").as_deref(), Some("decode"));
        assert!(!dead_letter.header("anomaly.error.message").unwrap().is_empty());
        assert_eq!(dead_letter.header("anomaly.error.truncated"), None);
    }
    assert_eq!(dead_letters.len(), count);
    assert_eq!(detector.metric("anomaly_rejects_total{kind=\"device_id\"} "), 5.0);
    let sum = |column: &str| -> Option<i64> {
        case.sql().query_one(&format!("select sum({column})::int8 from coverage"), &[]).unwrap().get(0)
    };
    wait("the coverage to be written", || sum("rejected") == Some(count as i64));
    assert_eq!(sum("learning"), Some(odd.len() as i64 - count as i64));
}

#[test]
fn a_dead_letter_that_its_topic_refuses_is_truncated_and_marked_so() {
    let case = Case::bare("cut", crate::common::Parts::shared());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    let dlq = case.dlq();
    let small = NewTopic::new(&dlq, 4, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.create_topics(&[small], &AdminOptions::new())).unwrap();
    let printed = case.ok(&["topics"]);
    assert!(printed.contains("max.message.bytes is 20000"), "{printed}");
    case.ok(&["migrate"]);
    let large = Sent {
        value: Some((0..200_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()),
        ..Sent::default()
    };
    let with_large_key = Sent { key: large.value.clone(), value: Some(b"bad".to_vec()), ..Sent::default() };
    let records = [event("a", 1.0), large.clone(), with_large_key, event("a", 2.0)];
    case.produce(records.map(|sent| Sent { partition: Some(1), ..sent }));
    let _detector = case.detector("a", &[]);
    wait("all records to have an outcome", || case.committed() == 4);
    let dead_letters = case.read(&dlq);
    assert_eq!(dead_letters.len(), 2);
    let (by_key, dead_letters) = dead_letters
        .into_iter()
        .partition::<Vec<_>, _>(|dead_letter| dead_letter.header("anomaly.error.key_truncated").is_some());
    assert_eq!(by_key[0].header("anomaly.error.key_truncated").as_deref(), Some("200000"));
    assert_eq!(by_key[0].value.as_deref(), Some(&b"bad"[..]));
    assert_eq!(dead_letters[0].header("anomaly.error.truncated").as_deref(), Some("200000"));
    assert_eq!(dead_letters[0].header("anomaly.error.sha256").map(|hash| hash.len()), Some(64));
    let kept = dead_letters[0].value.as_deref().unwrap();
    assert!(kept.len() > 5_000 && large.value.unwrap().starts_with(kept), "{} bytes kept", kept.len());
    let printed = case.ok(&["dlq", "replay"]);
    assert!(printed.ends_with("2 were truncated when they were rejected, and cannot be sent again\n"), "{printed}");
}

#[test]
fn an_anomaly_that_its_topic_refuses_gets_a_shorter_window_and_stops_nothing() {
    let case = Case::bare("shorter", crate::common::Parts::shared());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    let anomalies = case.anomalies();
    let small = NewTopic::new(&anomalies, 4, TopicReplication::Fixed(1)).set("max.message.bytes", "4000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.create_topics(&[small], &AdminOptions::new())).unwrap();
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    // Digits that no compression shortens much.
    let mut x = 0.3;
    let mut next = || {
        x = 3.99 * x * (1.0 - x);
        x
    };
    let place = |value: f64| Sent { partition: Some(1), ..event("a", value) };
    let values = (0..1_000).map(|_| next()).chain([1e6, 0.5]).collect::<Vec<f64>>();
    case.produce(values.iter().map(|value| place(*value)));
    let _detector = case.detector("a", &[("DETECTOR__WINDOW", "1000"), ("DETECTOR__CONTEXT", "1000")]);
    wait("all records to have an outcome", || case.committed() == values.len() as i64);
    wait("the row", || case.count("anomalies where metric_value = 1e6") == 1);
    let window = "select window_count, cardinality(\"window\") from anomalies where metric_value = 1e6";
    let row = case.sql().query_one(window, &[]).unwrap();
    let (count, kept): (i32, i32) = (row.get(0), row.get(1));
    assert!(count == 1_000 && (50..500).contains(&kept), "{kept} of {count} values");
}

#[test]
fn policy_fail_stops_with_65_before_the_record_and_policy_drop_continues() {
    let case = Case::new("policy");
    let records = [event("a", 1.0), Sent { value: Some(b"bad".to_vec()), ..Sent::default() }, event("a", 2.0)];
    case.produce(records.map(|sent| Sent { partition: Some(2), ..sent }));
    // At the second start it is the first record that is read, and the end of the partition comes with it.
    for _ in 0..2 {
        let mut failing = case.detector("a", &[("DETECTOR__ON_REJECT", "fail")]);
        assert_eq!(failing.exit(Duration::from_secs(60)).code(), Some(65));
        assert!(failing.log().contains("[2] offset 1: json"), "{}", failing.log());
        assert_eq!(case.committed(), 1);
    }
    let dropping = case.detector("a", &[("DETECTOR__ON_REJECT", "drop")]);
    wait("the rest to be judged", || case.committed() == 3);
    assert!(dropping.terminate(STOP).success());
    assert_eq!(case.read(&case.dlq()).len(), 0);
}

#[test]
fn labels_times_and_windows_reach_the_record_and_the_row() {
    let case = Case::new("record");
    let mut records = (0..40).map(|i| event("a", f64::from(i % 5))).collect::<Vec<_>>();
    records.push(Sent { label: Some("spike"), timestamp: Some(1_764_000_000_250), ..event("a", 99.0) });
    case.produce(records);
    let detector = case.detector("a", &[("LOG__ANOMALIES_PER_SECOND", "5")]);
    wait_done(&case, 41);
    let found = case.read(&case.anomalies());
    assert_eq!(found.len(), 1);
    let a = found[0].json();
    assert_eq!((&a["label"], &a["timestamp"]), (&"spike".into(), &"2025-11-24T16:00:00.250Z".into()));
    let window = (0..40).map(|i| f64::from(i % 5)).collect::<Vec<_>>();
    assert_eq!(a["window"], serde_json::json!(window));
    let row =
        case.sql().query_one("select label, \"window\", event_time::text, severity, kind from anomalies", &[]).unwrap();
    assert_eq!(row.get::<_, Option<String>>(0).as_deref(), Some("spike"));
    assert_eq!(row.get::<_, Vec<f64>>(1), window);
    assert_eq!(row.get::<_, String>(2), "2025-11-24 16:00:00.25+00");
    assert_eq!((row.get::<_, String>(3), row.get::<_, String>(4)), ("critical".into(), "point".into()));
    wait("the anomaly in the log", || detector.log().contains("critical a m 99 is outside"));
}

#[test]
fn anomalies_of_the_farthest_times_reach_the_record_and_the_row() {
    let case = Case::new("times");
    let times = ["9999-12-31T23:59:59.999Z", "1931-05-06T07:08:09.010Z", "0001-01-01T00:00:00.000Z"];
    let json = |time: &str, value: f64| {
        let text = serde_json::json!({"device_id": "d", "metric_name": "m", "metric_value": value, "timestamp": time});
        Sent { key: Some(b"d".to_vec()), value: Some(text.to_string().into()), ..Sent::default() }
    };
    let quiet = (0..40).map(|i| json("2026-01-01T00:00:00Z", f64::from(i % 5)));
    case.produce(quiet.chain(times.map(|time| json(time, 1e6))).take(41));
    case.produce(times[1..].iter().map(|time| json(time, 1e9)));
    let _detector = case.detector("a", &[]);
    wait_done(&case, 43);
    let found = case.read(&case.anomalies());
    let found = found.iter().map(|got| got.json()["timestamp"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(found[..2], times[..2]);
    let rows = case.sql().query("select event_time::text from anomalies order by source_offset", &[]).unwrap();
    let rows = rows.iter().map(|row| row.get(0)).collect::<Vec<String>>();
    assert_eq!(rows[..2], ["9999-12-31 23:59:59.999+00", "1931-05-06 07:08:09.01+00"]);
}

/// The wall clock does not stand in for it.
#[test]
fn a_record_whose_own_time_is_none_gives_an_anomaly_without_a_time_and_a_row() {
    let case = Case::new("no_time");
    // Microseconds since 1970.
    let sent = Sent { timestamp: Some(1_764_000_000_250_000), ..event("a", 99.0) };
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([sent]));
    let _detector = case.detector("a", &[]);
    wait_done(&case, 41);
    let found = case.read(&case.anomalies());
    assert_eq!(found.len(), 1);
    assert!(found[0].json()["timestamp"].is_null(), "{}", found[0].json());
    wait("the row", || case.count("anomalies where event_time = detected_at") == 1);
}

#[test]
fn a_new_group_that_starts_at_the_latest_judges_only_what_comes_after() {
    let mut case = Case::new("latest");
    case.set("DETECTOR__START", "latest");
    case.produce((0..50).map(|i| event("a", f64::from(i))));
    let first = case.detector("a", &[]);
    wait("the beginning to be committed", || case.committed() == 50);
    let notice = "The 50 earlier records are not judged";
    wait("the notice", || matches!(first.get("/readyz"), Some((200, text)) if text.contains(notice)));
    assert_eq!(first.log().matches(notice).count(), 1, "{}", first.log());
    assert!(first.log().contains("started_at_end"), "{}", first.log());
    assert!(first.terminate(STOP).success());
    // A restart goes on where the first one began, not at the latest again.
    case.produce((0..10).map(|i| event("a", f64::from(i))));
    let second = case.detector("a", &[]);
    wait("the new events", || case.committed() == 60);
    let of = |kind: &str| second.metric(&format!("anomaly_events_total{{kind=\"{kind}\"}} "));
    // The windows were read back, so nothing is learned again.
    assert_eq!((of("learning"), of("normal") + of("anomalous")), (0.0, 10.0));
    assert!(!second.log().contains("started_at_end"), "{}", second.log());
}

#[test]
fn partitions_that_are_added_to_the_topic_are_judged_from_their_first_event() {
    let mut case = Case::new("added");
    case.set("DETECTOR__START", "latest");
    let detector = case.detector("a", &[("KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS", "500")]);
    detector.wait_ready();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (topic, options) = (case.raw(), AdminOptions::new());
    runtime.block_on(admin.create_partitions(&[NewPartitions::new(&topic, 8)], &options)).unwrap();
    // At once, before the detector knows of them; half of these land in the new ones.
    case.produce(events(10, 100, 40_000, 500));
    // The windows of the new ones have no place yet.
    wait(
        "/readyz to say the remedy",
        || matches!(detector.get("/readyz"), Some((503, text)) if text.contains("run `anomaly topics`")),
    );
    let printed = case.ok(&["topics"]);
    assert!(printed.contains("it had 4 partitions, and now has 8"), "{printed}");
    wait_done(&case, 40_000);
    assert!(detector.terminate(STOP).success());
    verify(&case);
}

#[test]
fn users_own_field_names_are_read_without_a_converter() {
    let mut case = Case::new("fields");
    for (key, path) in [("DEVICE", "tags.host"), ("METRIC", "name"), ("VALUE", "fields.value"), ("TIME", "at")] {
        case.set(&format!("FIELDS__{key}"), path);
    }
    let json = |value: f64| {
        format!(r#"{{"name":"cpu","fields":{{"value":{value},"n":1}},"tags":{{"host":"web"}},"at":1764000000}}"#)
    };
    let values = (0..40).map(|i| f64::from(i % 7)).chain([500.0]);
    case.produce(values.map(|v| Sent { key: Some(b"web".to_vec()), value: Some(json(v).into()), ..Sent::default() }));
    let _detector = case.detector("a", &[]);
    wait_done(&case, 41);
    let found = case.read(&case.anomalies());
    assert_eq!(found.len(), 1);
    let a = found[0].json();
    assert_eq!((&a["device_id"], &a["metric_name"], &a["metric_value"]), (&"web".into(), &"cpu".into(), &500.0.into()));
}

#[test]
fn rows_that_the_table_refuses_are_stored_in_sink_rejects_and_nothing_stops() {
    let case = Case::new("refused");
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", 99.0)]));
    let detector = case.detector("a", &[]);
    wait_done(&case, 41);
    let good = case.read(&case.anomalies())[0].json();
    let mut other = good.clone();
    other["metric_value"] = 98.0.into();
    let mut nul = good.clone();
    (nul["label"], nul["source"]["offset"]) = ("a\0b".into(), 1_000_000.into());
    let mut fine = good.clone();
    fine["source"]["offset"] = 1_000_001.into();
    let (mut unexpected, mut evident) = (good.clone(), good.clone());
    unexpected["expected"] = 2.5.into();
    evident["evidence"] = serde_json::json!({"deviation": 1.0});
    // As earlier builds wrote them.
    let mut old = good.clone();
    (old["schema_version"], old["source"]["offset"]) = (1.into(), 1_000_002.into());
    for absent in ["expected", "evidence"] {
        old.as_object_mut().unwrap().remove(absent).unwrap();
    }
    let forged = [&good, &other, &good, &nul, &fine, &unexpected, &evident, &old, &old]
        .map(|json| json.to_string().into_bytes());
    let mut forged = forged.to_vec();
    forged[2] = b"no anomaly".to_vec();
    forge(&case, &forged);
    wait("the good ones after the bad ones", || case.count("anomalies") == 3);
    wait("the rejects", || case.count("sink_rejects") == 5);
    let rows = case.sql().query("select reason, value from sink_rejects order by reason, record_offset", &[]).unwrap();
    let found = rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, Vec<u8>)>>();
    assert_eq!(
        found,
        [
            ("22021".to_owned(), forged[3].clone()),
            ("conflict".to_owned(), forged[1].clone()),
            ("conflict".to_owned(), forged[5].clone()),
            ("conflict".to_owned(), forged[6].clone()),
            ("undecodable".to_owned(), forged[2].clone())
        ]
    );
    // The same again, and the old one again.
    assert_eq!(detector.metric("anomaly_sink_rows_total{kind=\"present\"} "), 2.0);
    let sql = "select expected = mean, evidence::text from anomalies where schema_version = 1";
    let row = case.sql().query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (true, "{}"));
}

/// Sends values into topic `anomalies`, all into one partition.
pub fn forge(case: &Case, values: &[Vec<u8>]) {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    let topic = case.anomalies();
    for value in values {
        producer.send(BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(value)).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

#[test]
fn two_workers_and_one_give_the_same_anomalies() {
    let (mut results, records) = (Vec::new(), events(8, 50, 20_000, 0).collect::<Vec<_>>());
    for workers in ["1", "2"] {
        let case = Case::new("workers");
        case.produce(records.iter().cloned());
        let _detector = case.detector("a", &[("DETECTOR__WORKERS", workers)]);
        wait_done(&case, 20_000);
        let places = case.read(&case.anomalies());
        let mut places = places.iter().map(|got| got.json()["source"].clone()).collect::<Vec<_>>();
        places.iter_mut().for_each(|source| source["topic"] = "".into());
        places.sort_by_key(ToString::to_string);
        results.push(places);
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn if_two_detectors_use_one_instance_name_one_stops_and_the_other_loses_nothing() {
    let case = Case::new("twins");
    // Two, so that each could take a place from the other.
    let settings = [("DETECTOR__WORKERS", "2"), ("DETECTOR__COMMIT_EVENTS", "2000")];
    case.produce(events(8, 100, 100_000, 1_000));
    let mut twins = [case.detector("same", &settings), case.detector("same", &settings)];
    let mut stopped = None;
    wait("one of them to stop", || {
        stopped = twins.iter_mut().position(|twin| twin.child.try_wait().unwrap().is_some());
        stopped.is_some()
    });
    let stopped = stopped.unwrap();
    // 78: systemd does not start it again.
    assert_eq!(twins[stopped].exit(STOP).code(), Some(78), "{}", twins[stopped].log());
    let log = twins[stopped].log();
    assert!(log.contains("another detector has joined group") && log.contains("same-"), "{log}");
    assert!(log.lines().count() < 100, "a quiet end: {log}");
    case.produce(events(9, 100, 100_000, 1_000));
    wait_done(&case, 200_000);
    assert!(twins[1 - stopped].child.try_wait().unwrap().is_none());
    verify(&case);
}
