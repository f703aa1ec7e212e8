//! Tests of the windows in topic `anomaly_state`: they survive kills, missing input and changed settings. State that cannot
//! be trusted is reported with the remedy, and never reset silently.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;

use crate::common::{Case, Got, PROGRAM, Parts, Process, Sent, event, wait, wait_for};
use crate::pipeline::{events, verify, verify_methods, wait_done};

/// Setting that starts a sweep every 100 ms.
pub const OFTEN: (&str, &str) = ("DETECTOR__SNAPSHOT_INTERVAL", "100ms");

/// Creates a case whose detectors can restore only from the state topic, once there is a checkpoint.
pub fn case(name: &str) -> Case {
    let mut case = Case::new(name);
    case.set("DETECTOR__WORKERS", 2);
    // A change of the offsets waits for the session of a detector that was killed.
    case.set("DETECTOR__SESSION_TIMEOUT", "6s");
    case
}

pub fn state(case: &Case) -> String {
    format!("{}.state", case.name)
}

/// Returns the newest checkpoint of each partition.
pub fn floors(case: &Case) -> Vec<i64> {
    let mut floors = vec![-1; 4];
    for got in case.read(&state(case)) {
        if got.key.as_deref() == Some(b"f") {
            // Behind version and checksum.
            let json: serde_json::Value = serde_json::from_slice(&got.value.unwrap()[5..]).unwrap();
            floors[got.partition as usize] = json["offset"].as_i64().unwrap();
        }
    }
    floors
}

pub fn admin(case: &Case) -> (tokio::runtime::Runtime, AdminClient<DefaultClientContext>) {
    let admin = ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    (tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(), admin)
}

/// Deletes the input before these offsets, as retention does.
fn trim(case: &Case, before: &[i64]) {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(before) {
        list.add_partition_offset(&case.raw(), partition, Offset::Offset(*offset)).unwrap();
    }
    let (runtime, admin) = admin(case);
    runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
}

/// Puts a format's version and the checksum before a body.
fn seal(version: u8, key: &[u8], body: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(&[key, body].concat());
    [&[version], &sum.to_le_bytes()[..], body].concat()
}

/// Sends one record into the state topic.
fn forge(case: &Case, partition: i32, key: &[u8], value: &[u8]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    producer.send(BaseRecord::to(&state(case)).partition(partition).key(key).payload(value)).ok().unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
}

/// Checks that the detector stops for good, and reports why.
pub fn refused(case: &Case, why: &str) {
    let mut detector = case.detector("a", &[]);
    assert_eq!(detector.exit(Duration::from_secs(30)).code(), Some(65), "{}", detector.log());
    assert!(detector.log().contains(why), "{why} in\n{}", detector.log());
}

pub fn kill(mut process: Process) {
    process.child.kill().unwrap();
    process.child.wait().unwrap();
}

/// Writes some windows into the topic, and stops the detector.
pub fn swept(name: &str) -> Case {
    let case = case(name);
    sweep(&case);
    case
}

fn sweep(case: &Case) {
    case.produce(events(30, 40, 8_000, 500));
    let detector = case.detector("a", &[OFTEN]);
    wait_done(case, 8_000);
    wait("a floor", || floors(case).iter().sum::<i64>() == 8_000);
    kill(detector);
}

#[test]
fn windows_and_states_survive_a_kill_although_all_input_before_the_checkpoint_is_deleted() {
    for method in ["sigma", "ewma"] {
        survive_a_kill(method);
    }
}

fn survive_a_kill(method: &'static str) {
    let mut case = case(&format!("trimmed_{method}"));
    case.set("DETECTOR__METHOD", method);
    sweep(&case);
    let mut records = case.read(&case.raw());
    trim(&case, &floors(&case));
    assert_eq!(case.read(&case.raw()).len(), 0);
    case.produce(events(31, 40, 8_000, 500));
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 16_000);
    records.extend(case.read(&case.raw()));
    // No series learned again: the windows were full.
    assert_eq!(detector.metric("anomaly_events_total{kind=\"learning\"} "), 0.0);
    verify_methods(&case, records, |_, _| (method, 100));
}

/// Returns a value of a device in a minute: noise, and rarely a spike.
fn reading(minute: u64, device: u64) -> Sent {
    let random = (minute * 1_000 + device).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let spike = if minute > 150 && random.is_multiple_of(97) { 40.0 } else { 0.0 };
    let (name, value) = (format!("device-{device:04}"), (random % 1_000) as f64 / 1_000.0 + spike);
    let time = 1_700_000_000_000 + minute * 60_000;
    let text = json!({"device_id": name, "metric_name": "m", "metric_value": value, "timestamp": time}).to_string();
    Sent { key: Some(name.into()), value: Some(text.into()), ..Sent::default() }
}

#[test]
fn what_adaptive_remembers_survives_a_kill_bit_for_bit() {
    let mut case = case("adaptive");
    case.set("DETECTOR__METHOD", "adaptive");
    let readings =
        |minutes: std::ops::Range<u64>| minutes.flat_map(|minute| (0..20).map(move |device| reading(minute, device)));
    case.produce(readings(0..400));
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 8_000);
    wait("a checkpoint", || floors(&case).iter().sum::<i64>() == 8_000);
    kill(detector);
    case.produce(readings(400..800));
    let _detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 16_000);
    // Without restarts, the same records have the same anomalies.
    let file = case.dir.path().join("readings.jsonl");
    let mut records = case.read(&case.raw());
    records.sort_by_key(|got| (got.partition, got.offset));
    let lines = records.iter().map(|got| got.value.clone().unwrap()).collect::<Vec<_>>();
    std::fs::write(&file, lines.join(&b"\n"[..])).unwrap();
    let output =
        Command::new(PROGRAM).args(["score", "--method", "adaptive", file.to_str().unwrap()]).output().unwrap();
    let comparable = |mut anomaly: serde_json::Value| {
        anomaly.as_object_mut().unwrap().remove("source");
        (anomaly["device_id"].to_string(), anomaly["timestamp"].to_string(), anomaly.to_string())
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = text.lines().map(|line| comparable(serde_json::from_str(line).unwrap())).collect::<BTreeSet<_>>();
    let found = case.read(&case.anomalies()).iter().map(|got| comparable(got.json())).collect::<BTreeSet<_>>();
    assert!(found.len() > 50 && found.iter().any(|(_, time, _)| time > &json!("2023-11-15T05:00:00.000Z").to_string()));
    assert_eq!(found, expected);
}

#[test]
fn a_rolling_upgrade_between_snapshot_versions_loses_and_doubles_nothing_and_a_downgrade_is_refused() {
    let case = case("rolling");
    let newer = [OFTEN, ("ANOMALY_SNAPSHOT_VERSION", "3")];
    let stop = |process: Process| assert!(process.terminate(Duration::from_secs(10)).success());
    case.produce(events(32, 40, 8_000, 500));
    let [a, b] = ["a", "b"].map(|name| case.detector(name, &[OFTEN]));
    wait_done(&case, 8_000);
    wait("a floor", || floors(&case).iter().sum::<i64>() == 8_000);
    // One after the other, while events come.
    stop(a);
    let a = case.detector("a", &newer);
    case.produce(events(33, 40, 8_000, 500));
    wait_done(&case, 16_000);
    stop(b);
    let b = case.detector("b", &newer);
    case.produce(events(34, 40, 8_000, 500));
    wait_done(&case, 24_000);
    wait("the newer version everywhere", || {
        let mut newest = std::collections::BTreeMap::new();
        for got in case.read(&state(&case)).into_iter().filter(|got| got.value.is_some()) {
            newest.insert((got.partition, got.key), got.value.unwrap()[0]);
        }
        newest.values().filter(|version| **version == 3).count() >= 4
    });
    stop(a);
    stop(b);
    refused(&case, "is newer than this program's, 2");
    let _again = case.detector("a", &newer);
    case.produce(events(35, 40, 8_000, 500));
    wait_done(&case, 32_000);
    verify(&case);
}

#[test]
#[ignore = "a minute; `make test-all`"]
fn kills_at_any_moment_of_sweeps_lose_and_double_nothing() {
    let case = case("killed");
    for round in 0..6 {
        case.produce(events(50 + round, 300, 20_000, 500));
        let before = case.committed();
        let detector = case.detector("a", &[OFTEN, ("DETECTOR__COMMIT_EVENTS", "500")]);
        wait("some progress", || case.committed() > before);
        std::thread::sleep(Duration::from_millis(150 * round));
        kill(detector);
    }
    let _last = case.detector("a", &[]);
    wait_done(&case, 120_000);
    verify(&case);
}

#[test]
fn changed_settings_take_effect_at_a_recorded_offset_and_replay_finishes_with_the_old_ones() {
    let case = case("resized");
    let mut records: Vec<Got> = Vec::new();
    // Where each method and window begin to hold, by partition.
    let mut epochs = Vec::new();
    let settings =
        [("sigma", 100), ("sigma", 40), ("sigma", 60), ("ewma", 50), ("ewma", 60), ("sigma", 60), ("ewma", 60)];
    for (round, (method, window)) in settings.into_iter().enumerate() {
        let ends = [0, 1, 2, 3].map(|p| records.iter().filter(|got| got.partition == p).count() as i64);
        epochs.push((ends, (method, window)));
        case.produce(events(40 + round as u64, 40, 12_000, 0));
        records = case.read(&case.raw());
        let size = window.to_string();
        // No sweep in this run: the next one replays from before the change.
        let rarely = ("DETECTOR__SNAPSHOT_INTERVAL", "1h");
        let detector = case.detector("a", &[("DETECTOR__WINDOW", &size), ("DETECTOR__METHOD", method), rarely]);
        wait_done(&case, 12_000 * (round as i64 + 1));
        kill(detector);
    }
    assert_eq!(floors(&case), [0; 4]);
    let settings = |partition: i32, offset: i64| {
        epochs.iter().rfind(|(from, _)| from[partition as usize] <= offset).map_or(("sigma", 100), |(_, held)| *held)
    };
    let (anomalies, _) = verify_methods(&case, records, settings);
    assert!(anomalies > 50);
}

#[test]
fn a_damaged_record_and_a_newer_format_stop_the_detector_with_the_remedy() {
    let mut case = swept("damaged");
    // One worker reads them in order.
    case.set("DETECTOR__WORKERS", 1);
    forge(&case, 2, b"sdevice-0001\0m", b"\x01not a window");
    refused(&case, "it is damaged: its checksum does not fit");
    forge(&case, 1, b"f", b"\x09whatever comes");
    refused(&case, "its format 9 is newer than this program's, 2");
}

#[test]
fn an_unknown_version_of_a_method_and_an_older_format_stop_the_detector_with_both_versions() {
    let mut case = swept("versions");
    case.set("DETECTOR__WORKERS", 1);
    let floor =
        case.read(&state(&case)).into_iter().rfind(|got| got.partition == 2 && got.key.as_deref() == Some(b"f"));
    let mut json: serde_json::Value = serde_json::from_slice(&floor.unwrap().value.unwrap()[5..]).unwrap();
    json["epochs"][0]["methods"][0]["version"] = 7.into();
    forge(&case, 2, b"f", &seal(2, b"f", json.to_string().as_bytes()));
    refused(
        &case,
        "contains states of version 7 of method sigma, and this program has version 1 of it. Start the program",
    );
    let older = seal(1, b"sdevice-0001\0m", b"whatever it had");
    forge(&case, 1, b"sdevice-0001\0m", &older);
    refused(
        &case,
        "its format 1 is older than this program reads; it reads format 2. Start the program that wrote it, or",
    );
}

/// Deletes a topic and creates it again.
pub fn recreate(case: &Case, topic: &str) {
    let (runtime, admin) = admin(case);
    let options = AdminOptions::new();
    runtime.block_on(admin.delete_topics(&[topic], &options)).unwrap();
    let replicas = case.parts.get("TOPICS__REPLICATION").parse().unwrap();
    let fresh = NewTopic::new(topic, 4, TopicReplication::Fixed(replicas));
    wait("the topic to be created again", || {
        let results = runtime.block_on(admin.create_topics([&fresh], &options)).unwrap();
        results.iter().all(Result::is_ok)
    });
}

#[test]
fn a_recreated_topic_with_as_many_records_is_noticed() {
    let case = swept("recreated");
    recreate(&case, &case.raw());
    case.produce(events(33, 40, 20_000, 500));
    refused(&case, "was recreated");
}

/// Returns the sums of the columns COMMITTED and JUDGED of `anomaly status` over the partitions.
fn committed_and_judged(case: &Case) -> (i64, i64) {
    let text = case.ok(&["status"]);
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|columns| columns.get(1) == Some(&case.raw().as_str())).collect::<Vec<_>>();
    let sum = |column: usize| rows.iter().map(|columns| columns[column].parse::<i64>().unwrap_or(0)).sum::<i64>();
    (sum(3), sum(5))
}

#[test]
fn a_stop_because_of_a_recreated_topic_keeps_the_last_counts() {
    let case = swept("last_counts");
    let detector = case.detector("a", &[OFTEN]);
    wait("a heartbeat", || committed_and_judged(&case).0 == 8_000);
    kill(detector);
    let known = committed_and_judged(&case);
    recreate(&case, &case.raw());
    refused(&case, "run `anomaly offsets set all earliest`");
    assert_eq!(committed_and_judged(&case), known, "the last known figures stay");
}

#[test]
fn windows_of_another_group_are_not_used() {
    let mut case = swept("group");
    case.set("DETECTOR__GROUP", "another");
    refused(&case, "give each group a topics.state of its own");
}

#[test]
fn retention_that_passed_the_checkpoint_is_reported_with_what_is_missing() {
    let case = case("gap");
    case.produce(events(34, 40, 8_000, 0));
    let first = case.detector("a", &[("DETECTOR__SNAPSHOT_INTERVAL", "1h")]);
    wait_done(&case, 8_000);
    kill(first);
    trim(&case, &[100, 0, 0, 0]);
    case.produce(events(35, 40, 1_000, 0));
    let second = case.detector("a", &[]);
    wait_done(&case, 9_000);
    let log = second.log();
    assert!(log.contains("events that windows need were deleted") && log.contains("missing=100"), "{log}");
}

#[test]
fn series_beyond_the_limits_are_evicted_and_stay_evicted_after_a_restart() {
    let mut case = case("bounded");
    case.set("DETECTOR__MAX_SERIES", 20);
    // 200 devices over 4 partitions, 20 series each: whoever comes back has been forgotten.
    let round = |n: i32| (0..200).map(move |device| event(&format!("device-{device:04}"), f64::from(n)));
    (0..40).for_each(|n| case.produce(round(n)));
    let first = case.detector("a", &[OFTEN]);
    wait_done(&case, 8_000);
    assert_eq!(first.metric("anomaly_events_total{kind=\"learning\"} "), 8_000.0);
    assert!(first.metric("anomaly_evictions_total{kind=\"full\"} ") >= 7_900.0);
    kill(first);
    (0..40).for_each(|n| case.produce(round(n)));
    let second = case.detector("a", &[OFTEN]);
    wait_done(&case, 16_000);
    assert_eq!(second.metric("anomaly_events_total{kind=\"learning\"} "), 8_000.0);
    assert!(second.log().contains("series were evicted"), "{}", second.log());
}

#[test]
fn a_restart_restores_a_hundred_partitions_together() {
    let mut case = Case::bare("many", Parts::shared());
    case.set("TOPICS__PARTITIONS", 100);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    case.set("DETECTOR__WORKERS", 1);
    let events = (0..2_000).map(|n| Sent { partition: Some(n % 100), ..event(&format!("device-{n:04}"), 1.0) });
    case.produce(events);
    let mut last = case.detector("a", &[OFTEN]);
    wait_done(&case, 2_000);
    // One after the other they took a tenth of a second each. On a busy machine one of three restarts suffices.
    let mut times = Vec::new();
    while !times.iter().any(|time| *time < Duration::from_secs(5)) {
        assert!(times.len() < 3, "{times:?}\n{}", last.log());
        kill(last);
        last = case.detector("a", &[]);
        wait("the partitions", || last.log().contains("taking over 100 partitions"));
        let began = Instant::now();
        wait("all of them", || last.log().matches("windows restored").count() == 100);
        times.push(began.elapsed());
    }
}

/// Sends values of 40 devices, one of which has a wrong clock, at intervals of one second. The last value of each
/// device is an anomaly.
fn with_a_wrong_clock(wrong: i64) -> impl Iterator<Item = Sent> {
    (0..101).flat_map(move |second: i64| {
        (0..40).map(move |device: i64| {
            let value = if second == 100 { 1_000.0 } else { ((second * 7 + device) % 13) as f64 };
            let right = 1_764_000_000_000 + second * 1_000;
            let time = if device == 0 { wrong } else { right };
            let sent = event(&format!("device-{device:04}"), value);
            Sent { timestamp: Some(time), partition: Some(0), ..sent }
        })
    })
}

#[test]
fn a_wrong_record_time_of_one_device_affects_no_other_device() {
    // 1 ms, microseconds, and the year 2200.
    for (name, wrong) in [("early", 1), ("micros", 1_764_000_000_000_000), ("late", 7_258_118_400_000)] {
        let mut case = case(name);
        case.set("DETECTOR__IDLE_AFTER", "1m");
        case.produce(with_a_wrong_clock(wrong));
        let detector = case.detector("a", &[OFTEN]);
        wait_done(&case, 4_040);
        assert_eq!(detector.metric("anomaly_events_total{kind=\"learning\"} "), 40.0 * 30.0, "{name}");
        assert_eq!(case.read(&case.anomalies()).len(), 40, "{name}");
    }
}

#[test]
fn evictions_near_the_number_of_events_make_the_detector_degraded_with_the_bound() {
    let mut case = case("evicting");
    case.set("DETECTOR__MAX_SERIES", 20);
    let round = |n: i32| (0..200).map(move |device| event(&format!("device-{device:04}"), f64::from(n)));
    (0..5).for_each(|n| case.produce(round(n)));
    let detector = case.detector("a", &[]);
    wait("the condition", || {
        detector.get("/readyz").is_some_and(|(_, text)| text.contains("detector.max_series (20)"))
    });
    assert!(detector.log().contains("eviction_rate"), "{}", detector.log());
}

#[test]
fn a_compacted_input_is_noticed_by_the_records_that_a_restart_does_not_find() {
    let case = case("compacted");
    let compact = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "16384"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "100"),
    ];
    let topic = case.raw();
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic));
    let config = compact.iter().fold(config, |config, (key, value)| config.set(key, value));
    case.produce(events(36, 40, 8_000, 0));
    let first = case.detector("a", &[("DETECTOR__SNAPSHOT_INTERVAL", "1h")]);
    wait_done(&case, 8_000);
    kill(first);
    let (runtime, admin) = admin(&case);
    runtime.block_on(admin.alter_configs([&config], &AdminOptions::new())).unwrap();
    // Later records close the segments, which are then compacted.
    case.produce(events(37, 40, 400, 0));
    wait_for("the compaction of the input", Duration::from_secs(120), || case.read(&topic).len() < 7_000);
    let second = case.detector("a", &[]);
    wait("the shortfall", || second.log().contains("records that were judged are no longer in the topic"));
    wait("the condition", || {
        second.get("/metrics").is_some_and(|(_, text)| text.contains("code=\"replay_shortfall\""))
    });
}

#[test]
#[ignore = "ten million events; `make test-all`"]
fn ten_million_ids_with_a_limit_of_a_million_series_need_bounded_memory() {
    let case = case("flood");
    let ids = |from: u64| {
        (from..from + 2_500_000).map(|id| {
            let value = format!("{{\"device_id\":\"device-{id:08}\",\"metric_value\":{}}}", id % 7);
            Sent { key: Some(format!("device-{id:08}").into()), value: Some(value.into_bytes()), ..Sent::default() }
        })
    };
    // Of each of the four partitions.
    let detector = case.detector("a", &[("DETECTOR__MAX_SERIES", "250000"), ("DETECTOR__SNAPSHOT_INTERVAL", "10s")]);
    let mut memory = Vec::new();
    for round in 0..4 {
        case.produce(ids(round * 2_500_000));
        let n = (round as i64 + 1) * 2_500_000;
        wait_for("all of them to be judged", Duration::from_secs(600), || case.committed() == n);
        memory.push(detector.mebibytes("VmRSS:"));
        eprintln!("{n} ids: {} MiB", memory[round as usize]);
    }
    let series = "select sum(series)::bigint from detector_status";
    wait("the bound in the heartbeat", || {
        let series: i64 = case.sql().query_one(series, &[]).unwrap().get(0);
        (900_000..=1_000_000).contains(&series)
    });
    let evicted = detector.metric("anomaly_evictions_total{kind=\"full\"} ");
    assert!(evicted >= 9_000_000.0, "{evicted} evictions");
    // Full after the first round. A quarter more is what allocators and sweeps may keep; buffers are returned after the last
    // sweep.
    wait("memory of a full table", || detector.mebibytes("VmRSS:") * 4 <= memory[1] * 5);
    // MemoryMax of the unit is 2 GiB.
    let peak = detector.mebibytes("VmHWM:");
    assert!(peak < 2_048, "{memory:?}, peak {peak}");
}

/// Sets the largest batch that the state topic takes.
fn limit_state(case: &Case, bytes: usize) {
    let (runtime, admin) = admin(case);
    let (name, bytes) = (state(case), bytes.to_string());
    let settings = AlterConfig::new(ResourceSpecifier::Topic(&name))
        .set("cleanup.policy", "compact")
        .set("max.message.bytes", &bytes);
    let altered = runtime.block_on(admin.alter_configs([&settings], &AdminOptions::new())).unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
}

#[test]
fn a_snapshot_that_its_topic_refuses_is_named_stops_nothing_and_is_replayed_by_a_restart() {
    let mut case = Case::new("oversize");
    for (key, value) in [("DETECTOR__WINDOW", "1000"), ("DETECTOR__CONTEXT", "1000"), ("DETECTOR__MIN_SAMPLES", "10")] {
        case.set(key, value);
    }
    limit_state(&case, 4_000);
    // The digits of a logistic map, which no compression shortens much.
    let mut x = 0.3;
    let mut values = |n: usize| {
        let next = |_| {
            x = 3.99 * x * (1.0 - x);
            x
        };
        (0..n).map(next).collect::<Vec<f64>>()
    };
    let (big, small) = (values(1_500), values(60));
    let publish = |device: &str, values: &[f64]| {
        let place = |value: &f64| Sent { partition: Some(1), ..event(device, *value) };
        case.produce(values.iter().map(place));
    };
    publish("small", &small);
    publish("big", &big);
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 1_560);
    let is_reported = |process: &Process| {
        let (status, text) = process.get("/readyz").unwrap_or_default();
        let words = ["the snapshots of 1 series, the largest of big m with", "Set max.message.bytes of"];
        status == 503 && words.iter().all(|words| text.contains(words))
    };
    let last = std::sync::atomic::AtomicUsize::new(0);
    let next = |device: &str| {
        let i = last.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        publish(device, &[0.5]);
        wait_done(&case, 1_561 + i as i64);
    };
    // Each of these wakes the loop, so that a sweep follows.
    wait_for("the condition", Duration::from_secs(120), || {
        next("small");
        is_reported(&detector)
    });
    assert_eq!(floors(&case).iter().max(), Some(&0), "the checkpoint stays");
    let has_snapshot =
        |device: &str| case.read(&state(&case)).iter().any(|got| got.key == Some(format!("s{device}\0m").into()));
    assert!(has_snapshot("small") && !has_snapshot("big"));
    kill(detector);
    let detector = case.detector("a", &[OFTEN]);
    publish("big", &[1e6]);
    wait("the anomaly", || case.read(&case.anomalies()).iter().any(|got| got.json()["metric_value"] == 1e6));
    let found = case.read(&case.anomalies()).into_iter().map(|got| got.json()).find(|json| json["metric_value"] == 1e6);
    let window = found.unwrap()["window"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(window, big[500..], "the restart replayed the window exactly");
    drop(detector);
    // A restart tries again at once.
    limit_state(&case, 1_048_588);
    let detector = case.detector("a", &[OFTEN]);
    wait_for("the snapshot", Duration::from_secs(120), || {
        publish("small", &[0.5]);
        has_snapshot("big")
    });
    wait("the detector to be ready", || detector.get("/readyz").is_some_and(|(status, _)| status == 200));
    assert!(floors(&case)[1] > 0, "the checkpoint has moved");
}

#[test]
fn new_series_beyond_the_memory_are_refused_and_a_restart_repeats_it() {
    let mut case = Case::new("memory");
    // The series have 256 KiB, which is about 1,300 short windows.
    for (key, value) in [("DETECTOR__MAX_MEMORY", "1"), ("DETECTOR__WORKERS", "1"), ("DETECTOR__COMMIT_EVENTS", "50")] {
        case.set(key, value);
    }
    let usual = |device: &str| (0..40).map(|i| event(device, f64::from(i % 5))).collect::<Vec<_>>();
    let mut total = 0;
    let mut publish = |records: Vec<Sent>| {
        total += records.len() as i64;
        case.produce(records);
        wait_done(&case, total);
    };
    let mut detector = case.detector("a", &[OFTEN]);
    publish(usual("first"));
    let refused = |detector: &Process| detector.metric("anomaly_refused_values_total ");
    let mut devices = 1_000;
    publish((0..devices).map(|i| event(&format!("d{i}"), 1.0)).collect());
    while refused(&detector) == 0.0 {
        assert!(devices < 5_000, "no device was refused");
        publish((devices..devices + 50).map(|i| event(&format!("d{i}"), 1.0)).collect());
        devices += 50;
    }
    println!("{devices} devices in 256 KiB");
    publish(usual("late"));
    assert!(refused(&detector) >= 40.0 && devices > 400);
    wait("the condition", || {
        let (status, text) = detector.get("/readyz").unwrap_or_default();
        status == 503 && text.contains("the 0 MiB that detector.max_memory leaves for them")
    });
    assert_eq!(detector.metric("anomaly_evictions_total{kind=\"memory\"} "), 0.0, "existing series stay");
    for max_memory in ["1", "1000"] {
        kill(detector);
        detector = case.detector("a", &[OFTEN, ("DETECTOR__MAX_MEMORY", max_memory)]);
        wait("the restart", || detector.log().contains("windows restored"));
    }
    // A record lets the detector accept new series again.
    publish(vec![event("first", 1.0)]);
    publish([event("late", 1e6), event("first", 1e6)].to_vec());
    let anomalies = case.read(&case.anomalies()).iter().map(Got::json).collect::<Vec<_>>();
    assert_eq!(anomalies.len(), 1, "the refused values of `late` are in no window: {anomalies:?}");
    assert_eq!((&anomalies[0]["device_id"], &anomalies[0]["window_count"]), (&"first".into(), &41.into()));
    wait("the detector to be ready", || detector.get("/readyz").is_some_and(|(status, _)| status == 200));
}
