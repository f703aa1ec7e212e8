//! `anomaly dlq`: dead letters are listed, shown, and sent again exactly once, also when the command is killed.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::{Case, Sent, wait};
use crate::pipeline::wait_done;

/// Malformed for the usual paths, well-formed for those that [`mend`] sets.
fn nested(device: &str, value: f64) -> Sent {
    let json = serde_json::json!({"device_id": device, "metric_name": "m", "data": {"v": value}});
    Sent {
        key: Some(device.into()),
        value: Some(json.to_string().into_bytes()),
        label: Some("spike"),
        ..Sent::default()
    }
}

fn stop(case: &Case, name: &str, settings: &[(&str, &str)], n: i64) {
    let detector = case.detector(name, settings);
    wait_done(case, n);
    assert!(detector.terminate(Duration::from_secs(10)).success());
}

#[test]
fn dead_letters_are_listed_by_class_and_shown_byte_for_byte() {
    let case = Case::new("letters");
    let garbage = b"\xffnot \"JSON\"\n".to_vec();
    let bad = Sent { key: Some(b"k\0".to_vec()), value: Some(garbage.clone()), partition: Some(2), ..Sent::default() };
    case.produce([bad, nested("d", 1.0)]);
    stop(&case, "a", &[], 2);
    let all = case.run(&["dlq", "list"]);
    let (out, told) = (String::from_utf8(all.stdout).unwrap(), String::from_utf8(all.stderr).unwrap());
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(told.contains("2 dead letters: 1 metric_value, 1 utf8; 0 of them were sent again"), "{told}");
    let one = case.ok(&["dlq", "list", "--class", "utf8"]);
    assert!(one.contains("raw[2]@0") && one.lines().count() == 2, "{one}");
    let place = one.lines().nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(case.run(&["dlq", "show", place, "--value"]).stdout, garbage);
    let shown = case.ok(&["dlq", "show", place]);
    assert!(shown.contains(r#"value        \xffnot \"JSON\"\n"#) && shown.contains(r"key          k\x00"), "{shown}");
    assert_eq!(case.run(&["dlq", "show", "0:99"]).status.code(), Some(66));
    assert_eq!(case.run(&["dlq", "list", "--class", "no such"]).status.code(), Some(64));
    let later = case.run(&["dlq", "list", "--from", "2099-01-01T00:00:00Z"]);
    assert_eq!(String::from_utf8(later.stderr).unwrap().trim(), "no dead letters");
}

#[test]
fn a_replay_sends_each_letter_once_as_it_came_and_says_what_it_left_alone() {
    let case = Case::new("replayed");
    let at = 1_764_000_000_000;
    case.produce((0..40).map(|i| Sent { timestamp: Some(at + i), ..nested("d", (i % 5) as f64) }));
    stop(&case, "a", &[], 40);
    assert_eq!(case.ok(&["dlq", "replay", "--dry-run"]), "40 dead letters would be sent again\n");
    assert_eq!(case.ok(&["dlq", "replay", "--class", "metric_value"]), "40 dead letters were sent again\n");
    assert_eq!(
        case.ok(&["dlq", "replay"]),
        "0 dead letters were sent again\n40 had been sent again before, and were left alone\n"
    );
    let records = case.read(&case.raw());
    assert_eq!(records.len(), 80);
    let (first, again) = (&records[0], &records[40]);
    assert_eq!((&first.key, &first.value, first.partition), (&again.key, &again.value, again.partition));
    assert!(again.header("anomaly.replayed-from").unwrap().ends_with("]@0"));
    assert_eq!(again.header("anomaly-label").as_deref(), Some("spike"));
    // With the right path they are events, of the time when they were published.
    case.produce([nested("d", 99.0)]);
    let _detector = case.detector("a", &[("FIELDS__VALUE", "data.v")]);
    wait("the anomaly", || case.read(&case.anomalies()).len() == 1);
    // The letters themselves joined no window, although they would be events now.
    assert_eq!(case.read(&case.anomalies())[0].json()["window_count"], 40);
    assert!(case.ok(&["dlq", "list"]).lines().skip(1).all(|line| !line.contains(" - ")));
}

#[test]
fn a_replay_that_is_killed_goes_on_without_loss_or_double() {
    let case = Case::new("killed_replay");
    case.produce((0..20_000).map(|i| nested(&format!("d{}", i % 50), f64::from(i % 7))));
    stop(&case, "a", &[], 20_000);
    for round in 1..4 {
        let mut child = case.command(&["dlq", "replay"]).stdout(Stdio::null()).spawn().unwrap();
        let receipts = || case.read(&case.dlq()).len() - 20_000;
        wait("some to be sent", || receipts() > (round - 1) * 2_000 || child.try_wait().unwrap().is_some());
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        child.wait().unwrap();
    }
    case.ok(&["dlq", "replay"]);
    let mut origins =
        case.read(&case.raw()).iter().filter_map(|got| got.header("anomaly.replayed-from")).collect::<Vec<_>>();
    assert_eq!(origins.len(), 20_000);
    origins.sort();
    origins.dedup();
    assert_eq!(origins.len(), 20_000);
}
