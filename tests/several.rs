//! Records with several values, through Kafka to the table, the pages and the dead-letter topic, against the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Case, Process, Sent, free_port, get, wait};
use crate::oracle::Oracle;
use crate::pipeline::wait_done;

const STOP: Duration = Duration::from_secs(30);

/// A record of three devices, by its number: an object of sensors of which some have no reading, and some a wrong one.
fn sensors(random: &mut Xoshiro256PlusPlus, i: i64) -> Value {
    let mut sensors = serde_json::Map::new();
    for at in 0..random.random_range(0..6) {
        let value = match random.random_range(0..400) {
            0 => json!("broken"),
            1 => json!({}),
            2..8 => Value::Null,
            8..16 => json!(random.random_range(-90.0..90.0)),
            _ => json!(f64::from(at) + random.random_range(-1.0..1.0)),
        };
        sensors.insert(format!("s{at}"), value);
    }
    json!({"device_id": format!("d{}", i % 3), "sensors": sensors, "timestamp": 1_764_000_000 + i})
}

fn sent(value: &Value) -> Sent {
    Sent { key: value["device_id"].as_str().map(Into::into), value: Some(value.to_string().into()), ..Sent::default() }
}

/// What the contract makes of the records in the input, judged by the oracle: the outcomes of records, the anomalies by
/// partition, offset and index, and the dead letters.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    outcomes: BTreeMap<&'static str, u64>,
    anomalies: BTreeMap<(i64, i64, i64), (String, u64)>,
    dead_letters: BTreeSet<(i64, i64)>,
    values: u64,
}

fn expected(case: &Case, is_judged_partly: bool) -> Expected {
    let (mut oracle, mut expected) = (Oracle::new(100, 30, 3), Expected::default());
    for got in case.read(&case.raw()) {
        let (record, place) = (got.json(), (i64::from(got.partition), got.offset));
        let readings = record["sensors"].as_object().unwrap();
        let present = readings.iter().zip(0..).filter(|((_, value), _)| !value.is_null());
        let invalid = present.clone().filter(|((_, value), _)| !value.is_number()).count();
        let valid = present.clone().count() - invalid;
        if invalid > 0 {
            expected.dead_letters.insert(place);
        }
        let mut count = |outcome| *expected.outcomes.entry(outcome).or_default() += 1;
        if invalid > 0 && (valid == 0 || !is_judged_partly) {
            count("rejected");
            continue;
        }
        if valid == 0 {
            count("ignored");
            continue;
        }
        if invalid > 0 {
            count("partial");
        }
        let mut outcome = 0;
        for ((name, value), index) in present.filter(|((_, value), _)| value.is_number()) {
            let value = value.as_f64().unwrap();
            let series = format!("{}/{}/{name}", got.partition, record["device_id"]);
            expected.values += 1;
            outcome = outcome.max(match oracle.judge(&series, value) {
                None => 0,
                Some(judged) if judged.is_abnormal => {
                    expected.anomalies.insert((place.0, place.1, index), (name.clone(), value.to_bits()));
                    2
                }
                Some(_) => 1,
            });
        }
        *expected.outcomes.entry(["learning", "normal", "anomalous"][outcome]).or_default() += 1;
    }
    expected
}

fn anomalies(case: &Case) -> BTreeMap<(i64, i64, i64), (String, u64)> {
    let mut found = BTreeMap::new();
    for got in case.read(&case.anomalies()) {
        let anomaly = got.json();
        let number = |name: &str| anomaly["source"][name].as_i64().unwrap();
        let value =
            (anomaly["metric_name"].as_str().unwrap().to_owned(), anomaly["metric_value"].as_f64().unwrap().to_bits());
        let place = (number("partition"), number("offset"), number("index"));
        assert_eq!(found.insert(place, value), None, "{place:?} is in the topic twice");
    }
    found
}

fn dead_letters(case: &Case) -> BTreeSet<(i64, i64)> {
    let number = |value: Option<String>| value.unwrap().parse::<i64>().unwrap();
    let all = case.read(&case.dlq());
    let places = all
        .iter()
        .map(|got| (number(got.header("anomaly.error.partition")), number(got.header("anomaly.error.offset"))));
    let places = places.collect::<BTreeSet<_>>();
    assert_eq!(places.len(), all.len(), "a dead letter was written twice");
    places
}

fn outcomes(detector: &Process) -> BTreeMap<&'static str, u64> {
    let all = ["learning", "normal", "anomalous", "rejected", "ignored", "partial"];
    let all = all.map(|kind| (kind, detector.metric(&format!("anomaly_records_total{{kind=\"{kind}\"}} ")) as u64));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn objects_of_sensors_give_the_oracles_verdicts_and_counts_whatever_happens_to_the_detector() {
    for (on_partial, seed) in [("reject", 1), ("judge_valid", 2)] {
        let mut case = Case::new("several");
        case.set("FIELDS__VALUE", "sensors.*");
        case.set("FIELDS__ON_PARTIAL", on_partial);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let records = (0..6_000).map(|i| sent(&sensors(&mut random, i))).collect::<Vec<_>>();
        // The first half is judged by a detector that is killed; the second by one that counts everything.
        let (first, second) = records.split_at(3_000);
        case.produce(first.to_vec());
        let killed = case.detector("a", &[("DETECTOR__COMMIT_EVENTS", "100")]);
        wait("some progress", || case.committed() > 300);
        killed.signal(Signal::KILL);
        drop(killed);
        case.produce(second.to_vec());
        let before = case.committed();
        let detector = case.detector("a", &[]);
        wait_done(&case, 6_000);
        let expected = expected(&case, on_partial == "judge_valid");
        assert_eq!(anomalies(&case), expected.anomalies, "{on_partial}");
        assert_eq!(dead_letters(&case), expected.dead_letters, "{on_partial}");
        let counted = outcomes(&detector);
        let sum = counted.iter().filter(|(kind, _)| **kind != "partial").map(|(_, count)| count).sum::<u64>();
        assert_eq!(sum as i64, 6_000 - before, "each record counts once: {counted:?}");
        let many = ["normal", "anomalous", "ignored", if on_partial == "reject" { "rejected" } else { "partial" }];
        assert!(many.iter().all(|kind| expected.outcomes[kind] > 20), "{:?}", expected.outcomes);
        assert!(detector.terminate(STOP).success());
        // One detector judges all of it once more, by another group.
        case.set("DETECTOR__GROUP", format!("{}-again", case.raw()));
        case.set("TOPICS__STATE", format!("{}.again", case.raw()));
        case.set("TOPICS__ANOMALIES", format!("{}.others", case.raw()));
        case.ok(&["topics"]);
        let again = case.detector("b", &[]);
        let total = |kind: &str| again.metric(&format!("anomaly_events_total{{kind=\"{kind}\"}} ")) as u64;
        wait("all values to be judged again", || {
            ["learning", "normal", "anomalous"].map(total).iter().sum::<u64>() == expected.values
        });
        wait("all records to be counted", || outcomes(&again) == expected.outcomes);
    }
}

#[test]
fn two_anomalies_of_one_array_are_two_rows_with_pages_of_their_own() {
    let mut case = Case::new("array");
    for (field, path) in [
        ("DEVICE", "{tags.host}"),
        ("METRIC", "metrics[*].name"),
        ("VALUE", "metrics[*].value"),
        ("TIME", "metrics[*].at"),
    ] {
        case.set(&format!("FIELDS__{field}"), path);
    }
    case.set("FIELDS__ON_PARTIAL", "judge_valid");
    let batch = |i: i64, cpu: Value, disk: f64| {
        let at = 1_764_000_000 + i;
        let metrics =
            [json!({"name": "cpu", "value": cpu, "at": at}), json!({"at": at, "name": "disk", "value": disk})];
        let value = json!({"tags": {"host": "web-1"}, "metrics": metrics});
        Sent { key: Some(b"web-1".to_vec()), value: Some(value.to_string().into()), ..Sent::default() }
    };
    let usual = (0..40).map(|i| batch(i, json!((i % 5) as f64), (i % 7) as f64));
    case.produce(usual.chain([batch(40, json!(90.0), 80.0), batch(41, json!("much"), 3.0)]));
    let listen = format!("127.0.0.1:{}", free_port());
    let port = listen.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let _dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen)]);
    let detector = case.detector("a", &[]);
    wait_done(&case, 42);
    let sql = "select source_partition, source_offset, source_index, metric_name from anomalies order by source_index";
    let rows = case.sql().query(sql, &[]).unwrap();
    let rows = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)));
    let rows = rows.collect::<Vec<(i32, i64, i32, String)>>();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (row, (index, metric)) in rows.iter().zip([(0, "cpu"), (1, "disk")]) {
        assert_eq!((row.2, row.3.as_str()), (index, metric));
        let path = format!("/anomalies/{}/{}/{}/{index}/point", case.raw(), row.0, row.1);
        wait("the page", || get(port, &path).is_some_and(|(status, page)| status == 200 && page.contains(metric)));
    }
    let all = case.read(&case.dlq());
    assert_eq!(all.len(), 1);
    let header = |name: &str| all[0].header(&format!("anomaly.error.{name}"));
    assert_eq!((header("judged").as_deref(), header("class").as_deref()), (Some("1"), Some("metric_value")));
    assert!(header("message").unwrap().starts_with("`metrics[0].value` is not a number"), "{:?}", header("message"));
    wait("the counts", || {
        outcomes(&detector) == BTreeMap::from([("anomalous", 1), ("learning", 30), ("normal", 11), ("partial", 1)])
    });
    // Its valid value would be judged twice.
    let replayed = case.ok(&["dlq", "replay"]);
    assert!(replayed.starts_with("0 dead letters were sent again\n1 were judged by their valid values"), "{replayed}");
}
