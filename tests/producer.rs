//! Tests of the producer's promises. The same settings give the same records, placed as Java places them. Files pass
//! byte for byte. Without a broker it neither grows nor hangs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::common::{Case, Got, Manager, Parts, free_port, wait_for};

const RUN: Duration = Duration::from_secs(120);
const LABELS: [&str; 6] = ["spike", "dip", "level_shift", "drift", "stuck", "noise_burst"];

/// Returns a case with topics and without tables, which the producer does not need.
fn case(name: &str, partitions: usize) -> Case {
    let mut case = Case::bare(name, Parts::shared());
    case.set("TOPICS__PARTITIONS", partitions);
    case.ok(&["topics"]);
    case
}

/// Publishes synthetic events of a fixed virtual time; later settings replace earlier ones.
fn generate(case: &Case, settings: &[(&str, &str)]) -> Vec<Got> {
    let fixed = [
        ("PRODUCER__START", "2026-11-23T17:00:00Z"),
        ("PRODUCER__STEP", "10ms"),
        ("PRODUCER__DEVICES", "50"),
        ("PRODUCER__ANOMALY_RATE", "0.02"),
        ("PRODUCER__COUNT", "5000"),
        ("PRODUCER__RATE", "0"),
    ];
    run_to_end(case, &[&fixed, settings].concat());
    case.read(&case.raw())
}

/// Runs a producer whose source ends.
fn run_to_end(case: &Case, settings: &[(&str, &str)]) -> String {
    let mut producer = case.role("producer", settings);
    let status = producer.exit(RUN);
    assert_eq!(status.code(), Some(0), "{}", producer.log());
    producer.log()
}

/// Publishes a file into a topic of one partition at full speed; returns the records in order.
fn replay(name: &str, file: &str, content: &[u8]) -> Vec<Got> {
    replay_at("0", name, file, content).0
}

/// Publishes a file at a given speed; also returns the log.
fn replay_at(speed: &str, name: &str, file: &str, content: &[u8]) -> (Vec<Got>, String) {
    let case = case(name, 1);
    let path = case.dir.path().join(file);
    std::fs::write(&path, content).unwrap();
    let file = path.to_str().unwrap();
    let log =
        run_to_end(&case, &[("PRODUCER__SOURCE", "replay"), ("PRODUCER__SPEED", speed), ("PRODUCER__FILE", file)]);
    (case.read(&case.raw()), log)
}

/// Runs a producer that cannot send a file; returns its exit and log.
fn refused(name: &str, file: &str, content: &[u8], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let case = Case::bare(name, Parts::shared());
    case.ok(&["topics"]);
    let path = case.dir.path().join(file);
    std::fs::write(&path, content).unwrap();
    let replay = [("PRODUCER__SOURCE", "replay"), ("PRODUCER__SPEED", "0"), ("PRODUCER__FILE", path.to_str().unwrap())];
    let mut producer = case.role("producer", &[&replay, settings].concat());
    (producer.exit(RUN).code(), producer.log())
}

#[test]
fn the_rows_before_a_broken_end_are_delivered_and_reported() {
    let rows = |count: i64| (0..count).map(|i| format!("d,{i}\n")).collect::<String>();
    let head = "device_id,metric_value\n";
    let quote = format!("{head}{}d,x\n\"d,1\n{}", rows(28), rows(5));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut packed, format!("{head}{}", rows(28)).as_bytes()).unwrap();
    let mut cut = packed.finish().unwrap();
    cut.truncate(cut.len() - 8);
    let member = r#"{"device_id":"d","metric_value":1},"#;
    for (name, file, content, says) in [
        ("producer_open", "a.csv", quote.into_bytes(), "a.csv:31: a quote is opened"),
        ("producer_cut", "a.csv.gz", cut, "is damaged or cut off"),
        ("producer_half", "a.json", format!("[{}", member.repeat(28)).into_bytes(), "the file ends within the array"),
    ] {
        let case = case(name, 1);
        let path = case.dir.path().join(file);
        std::fs::write(&path, content).unwrap();
        let file = ("PRODUCER__FILE", path.to_str().unwrap());
        let mut producer = case.role("producer", &[("PRODUCER__SOURCE", "replay"), ("PRODUCER__SPEED", "0"), file]);
        let (code, log) = (producer.exit(RUN).code(), producer.log());
        assert_eq!(code, Some(65), "{log}");
        assert!(log.contains(says) && log.contains("publishing ended delivered=28 failed=0 undelivered=0"), "{log}");
        assert_eq!(log.contains("1 rows were not sent, the first in line 30"), name == "producer_open", "{log}");
        assert_eq!(case.read(&case.raw()).len(), 28, "{log}");
    }
}

#[test]
fn a_table_without_a_device_and_columns_that_are_skipped_are_a_warning() {
    let (_, log) = replay_at("0", "producer_wide", "oven.csv", b"timestamp,temp,hum\n100,1,n/a\n110,2,40\n");
    let device = "has no column `device_id`: all its rows are the device `oven`; fields.device names another column";
    let skipped = "is a metric: temp; columns without a number in the first row are skipped: hum";
    assert!(log.contains(device) && log.matches(skipped).count() == 1, "{log}");
    let whole = b"device_id,timestamp,temp,hum\na,100,1,40\n";
    let (_, log) = replay_at("0", "producer_whole", "oven.csv", whole);
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_replay_that_is_stopped_logs_what_was_not_sent() {
    let case = case("producer_stopped", 1);
    let path = case.dir.path().join("slow.csv");
    std::fs::write(&path, "device_id,timestamp,metric_value\nd,100,x\nd,100,1\nd,3000,1\n").unwrap();
    let file = ("PRODUCER__FILE", path.to_str().unwrap());
    let mut producer = case.role("producer", &[("PRODUCER__SOURCE", "replay"), file]);
    wait_for("the first row", RUN, || producer.log().contains("the row is not sent"));
    producer.signal(rustix::process::Signal::TERM);
    assert!(producer.exit(RUN).success(), "{}", producer.log());
    let log = producer.log();
    assert!(log.contains("1 rows were not sent, the first in line 2") && log.contains("publishing ended"), "{log}");
}

#[test]
fn a_setting_for_tables_is_an_error_for_json() {
    let case = Case::bare("producer_json", Parts::shared());
    let path = case.dir.path().join("events.jsonl");
    std::fs::write(&path, "{\"device_id\":\"d\",\"metric_value\":1}\n").unwrap();
    for setting in ["WIDE", "DECIMAL_COMMA"] {
        let (file, setting) = (path.to_str().unwrap(), format!("PRODUCER__{setting}"));
        let settings = [("PRODUCER__SOURCE", "replay"), ("PRODUCER__FILE", file), (setting.as_str(), "true")];
        let mut producer = case.role("producer", &settings);
        assert_eq!(producer.exit(RUN).code(), Some(78), "{}", producer.log());
        assert!(producer.log().contains("is for tables, and"), "{}", producer.log());
    }
}

#[test]
fn a_pipe_without_a_writer_does_not_delay_a_stop() {
    let case = case("producer_pipe", 1);
    let pipe = case.dir.path().join("pipe.jsonl");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let file = ("PRODUCER__FILE", pipe.to_str().unwrap());
    let producer = case.role("producer", &[("PRODUCER__SOURCE", "replay"), file]);
    wait_for("the start", RUN, || producer.log().contains("producer starts"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(producer.terminate(RUN).success());
}

/// The parts of a record that a consumer sees, without its time of arrival.
type Seen = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn seen(records: Vec<Got>) -> Vec<Seen> {
    records.into_iter().map(|r| (r.partition, r.offset, r.key, r.value, r.headers)).collect()
}

/// Computes Kafka's `Utils.murmur2`.
fn murmur2(key: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ key.len() as u32;
    let chunks = key.chunks_exact(4);
    let tail = chunks.remainder();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    (h ^ (h >> 15)) as i32
}

/// Computes Kafka's `toPositive(murmur2(key)) % partitions`.
fn partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

#[test]
fn this_murmur2_gives_the_values_of_kafkas_own_test() {
    // clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java
    let known = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    for (key, hash) in known {
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
}

#[test]
fn the_same_settings_give_the_same_records_whatever_the_rate_and_another_seed_gives_others() {
    let (a, b, c) = (case("producer_a", 4), case("producer_b", 4), case("producer_c", 4));
    let (first, again, other) = std::thread::scope(|scope| {
        let first = scope.spawn(|| generate(&a, &[("PRODUCER__SEED", "7")]));
        let again = scope.spawn(|| generate(&b, &[("PRODUCER__SEED", "7"), ("PRODUCER__RATE", "20000")]));
        let other = scope.spawn(|| generate(&c, &[("PRODUCER__SEED", "8")]));
        (first.join().unwrap(), again.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(first.len(), 5_000, "producer.count");
    let other_values = seen(other);
    let first = seen(first);
    assert!(first == seen(again), "the same seed gave other records");
    let common = first.iter().zip(&other_values).filter(|(x, y)| x.3 == y.3).count();
    assert!(common < 50, "another seed gave {common} of the same values");
}

#[test]
fn records_are_placed_as_java_places_them_and_carry_labels_only_where_something_was_injected() {
    let records = generate(&case("producer_place", 7), &[]);
    for record in &records {
        let key = record.key.as_deref().unwrap();
        assert_eq!(record.json()["device_id"].as_str().unwrap().as_bytes(), key);
        assert_eq!(record.partition, partition(key, 7), "{}", String::from_utf8_lossy(key));
        assert!(record.headers.iter().all(|(name, _)| name == "anomaly-label"), "{:?}", record.headers);
    }
    let used = records.iter().map(|record| record.partition).collect::<BTreeSet<_>>();
    assert_eq!(used.len(), 7, "50 devices fill all partitions");
    let labels = records.iter().filter_map(|record| record.header("anomaly-label")).collect::<Vec<_>>();
    assert!((20..500).contains(&labels.len()), "{} of 5000 are labelled, 2 % were asked for", labels.len());
    assert!(labels.iter().all(|label| LABELS.contains(&label.as_str())), "{labels:?}");
}

#[test]
fn lines_are_replayed_byte_for_byte_whether_they_are_events_or_not() {
    let lines: [&[u8]; 7] = [
        br#"{"device_id":"pump-1","metric_value":1.50,"timestamp":"2026-11-23T17:00:00Z"}"#,
        b"this is not JSON",
        br#"  {"metric_value" : 2e0 , "device_id":"pump-2", "extra":[1,{}]}  "#,
        b"\xff\xfe\x00 not even text",
        br#"{"device_id":"pump-1","metric_value":"x"}"#,
        "{\"device_id\":\"\u{e9}t\u{e9}\",\"metric_value\":3}".as_bytes(),
        br#"{"device_id":"pump-1","metric_value":4,"timestamp":"2030-01-01T00:00:00Z"}"#,
    ];
    let records = replay("producer_lines", "events.jsonl", &lines.join(&b'\n'));
    let values = records.iter().map(|record| record.value.as_deref().unwrap()).collect::<Vec<_>>();
    assert_eq!(values, lines);
    let keys = records.iter().map(|record| record.key.as_deref()).collect::<Vec<_>>();
    let pump: Option<&[u8]> = Some(b"pump-1");
    assert_eq!(keys, [pump, None, Some(b"pump-2"), None, None, Some("\u{e9}t\u{e9}".as_bytes()), pump]);
}

#[test]
fn rows_of_a_table_become_events() {
    let text = "timestamp,device_id,metric_name,metric_value\n\
                2026-11-23 17:00:00,pump-1,temperature,21.5\n\
                2026-11-23 17:00:01,pump-2,,-3\n\
                2026-11-23 17:00:02,pump-1,temperature,no number\n";
    let records = replay("producer_table", "readings.csv", text.as_bytes());
    let events = records.iter().map(Got::json).collect::<Vec<_>>();
    let expected = [
        serde_json::json!({"device_id": "pump-1", "metric_name": "temperature", "metric_value": 21.5,
            "timestamp": "2026-11-23T17:00:00.000Z"}),
        serde_json::json!({"device_id": "pump-2", "metric_value": -3.0, "timestamp": "2026-11-23T17:00:01.000Z"}),
    ];
    assert_eq!(events, expected);
    assert_eq!(records[1].key.as_deref(), Some(&b"pump-2"[..]));
}

#[test]
fn no_wrong_time_in_a_file_stops_its_replay() {
    let mut times = (0..40).map(|i| format!("2026-11-23T17:00:{i:02}Z")).collect::<Vec<_>>();
    times.insert(0, "1970-01-01T00:00:00Z".into());
    times.insert(20, "2106-02-07T06:28:15Z".into());
    times.insert(30, "2019-01-01T00:00:00Z".into());
    times.push("2027-05-01T00:00:00Z".into());
    let event = |time: &String| format!("{{\"device_id\":\"d\",\"metric_value\":1,\"timestamp\":\"{time}\"}}\n");
    let text = times.iter().map(event).collect::<String>();
    let (records, log) = replay_at("20", "producer_times", "events.jsonl", text.as_bytes());
    let sent = records.iter().map(|record| record.json()["timestamp"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(sent, times);
    let said = log.matches("further than producer.max_pause; the replay does not wait").count();
    assert!(said == 1 && log.contains("events.jsonl:2: the time goes from 1970-01-01T00:00:00.000Z"), "{log}");
    assert!(log.contains("events have an earlier time than one before them"), "{log}");
}

#[test]
fn a_packed_array_is_replayed_member_by_member() {
    let members =
        [r#"{"device_id":"a","metric_value":1}"#, r#"{"x":"],\"["}"#, r#"{"device_id":"b", "metric_value":2}"#];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, format!("[{}\n]", members.join(",\n")).as_bytes()).unwrap();
    let records = replay("producer_array", "events.json.gz", &packed.finish().unwrap());
    let values = records.iter().map(|record| std::str::from_utf8(record.value.as_deref().unwrap()).unwrap());
    assert_eq!(values.collect::<Vec<_>>(), members);
}

#[test]
fn a_file_that_cannot_be_read_as_events_ends_the_replay_with_an_error() {
    let rows = "metric_value\n1\n".to_owned();
    let renamed = [("FIELDS__DEVICE", "host")];
    for (name, file, text, settings, says) in [
        ("producer_empty", "a.jsonl", String::new(), &[][..], "a.jsonl has no record"),
        ("producer_column", "a.csv", rows.clone(), &renamed, "no column `host`"),
        ("producer_quote", "a.csv", rows.clone() + "\"2\n3\n", &[], "a.csv:3: a quote is opened"),
        ("producer_ignored", "a.csv", rows.clone(), &[("FIELDS__IGNORE", "metric_value")], "none of the 1 rows"),
        ("producer_blank", "a.csv", "timestamp,temp\n100,\n110,\n".into(), &[], "none of the 2 rows"),
        ("producer_none", "a.csv", format!("metric_value\n{}", "x\n".repeat(500)), &[], "none of the 500 rows"),
    ] {
        let (code, log) = refused(name, file, text.as_bytes(), settings);
        assert_eq!(code, Some(65), "{log}");
        assert!(log.contains(says), "{log}");
        assert!(log.matches("is not sent").count() <= 1, "{log}");
    }
}

#[test]
fn a_missing_file_exits_with_no_input() {
    let case = Case::bare("producer_missing", Parts::shared());
    let mut producer =
        case.role("producer", &[("PRODUCER__SOURCE", "replay"), ("PRODUCER__FILE", "nowhere/to/be.jsonl")]);
    assert_eq!(producer.exit(RUN).code(), Some(66));
    assert!(producer.log().contains("cannot read nowhere/to/be.jsonl"), "{}", producer.log());
}

#[test]
fn this_machines_metrics_are_events_to_a_detector() {
    let case = case("producer_host", 1);
    let detector = case.detector("host", &[("SINK__ENABLED", "false"), ("DETECTOR__WORKERS", "1")]);
    let producer = case.role("producer", &[("PRODUCER__SOURCE", "host"), ("PRODUCER__INTERVAL", "200ms")]);
    wait_for("the detector to learn from the host", RUN, || {
        detector.metric("anomaly_events_total{kind=\"learning\"}") >= 9.0
    });
    assert!(producer.terminate(RUN).success());
    let records = case.read(&case.raw());
    let metrics = records.iter().map(|r| r.json()["metric_name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    for wanted in ["cpu_used_percent", "memory_used_percent", "load_average_1m"] {
        assert!(metrics.contains(wanted), "{wanted} is not among {metrics:?}");
    }
    wait_for("every event to be judged", RUN, || case.committed() >= records.len() as i64);
    assert!(detector.terminate(RUN).success());
    assert_eq!(case.read(&case.dlq()).len(), 0, "rejects of the host's own events");
}

#[test]
fn without_a_broker_nothing_is_taken_from_the_source_and_a_stop_ends_well() {
    let mut case = Case::bare("producer_dead", Parts::shared());
    case.set("KAFKA__BOOTSTRAP_SERVERS", format!("127.0.0.1:{}", free_port()));
    let manager = Manager::new(case.dir.path());
    let producer = case.role("producer", &[("PRODUCER__RATE", "0"), ("NOTIFY_SOCKET", manager.socket())]);
    wait_for("the outage to be reported", RUN, || {
        producer.get("/readyz").is_some_and(|(status, body)| status == 503 && body.contains("Kafka is unreachable"))
    });
    assert!(!manager.has("READY=1"), "ready before the first delivery");
    let mut producer = producer;
    producer.signal(rustix::process::Signal::TERM);
    assert_eq!(producer.exit(Duration::from_secs(15)).code(), Some(0), "{}", producer.log());
    assert!(producer.log().contains("delivered=0 failed=0 undelivered=0"), "{}", producer.log());
}
