//! Tests of `anomaly dlq`: dead letters are listed, shown, and replayed exactly once, also when the command is killed.

use std::process::Stdio;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use crate::check::set_policy;
use crate::common::{Case, Parts, Sent, wait};
use crate::pipeline::wait_done;

/// Returns a record that is malformed with the default paths, and valid with those that [`mend`] sets.
fn nested(device: &str, value: f64) -> Sent {
    let json = serde_json::json!({"device_id": device, "metric_name": "m", "data": {"v": value}});
    Sent {
        key: Some(device.into()),
        value: Some(json.to_string().into_bytes()),
        label: Some("spike"),
        ..Sent::default()
    }
}

/// Writes a dead letter with these headers.
fn send_letter(case: &Case, key: &[u8], value: Option<&[u8]>, headers: &[(&str, String)]) {
    let producer: BaseProducer = case.client().create().unwrap();
    let all = headers.iter();
    let headers = all.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    let topic = case.dlq();
    let mut record = BaseRecord::<[u8], [u8]>::to(&topic).key(key).headers(headers);
    record.payload = value;
    producer.send(record).map_err(|(e, _)| e).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
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
    let (out, noted) = (String::from_utf8(all.stdout).unwrap(), String::from_utf8(all.stderr).unwrap());
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(noted.contains("2 dead letters: 1 metric_value, 1 utf8; 0 of them were sent again"), "{noted}");
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
fn a_replay_sends_each_dead_letter_once_unchanged_and_reports_what_it_skipped() {
    let case = Case::new("replayed");
    let at = 1_764_000_000_000;
    case.produce((0..40).map(|i| Sent { timestamp: Some(at + i), ..nested("d", (i % 5) as f64) }));
    stop(&case, "a", &[], 40);
    assert_eq!(case.ok(&["dlq", "replay", "--dry-run"]), "40 dead letters would be sent again\n");
    assert_eq!(case.ok(&["dlq", "replay", "--class", "metric_value"]), "40 dead letters were sent again\n");
    assert_eq!(
        case.ok(&["dlq", "replay"]),
        "0 dead letters were sent again\n40 were skipped: they had been sent again before\n"
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
    // The dead letters themselves joined no window, although they would be events now.
    assert_eq!(case.read(&case.anomalies())[0].json()["window_count"], 40);
    assert!(case.ok(&["dlq", "list"]).lines().skip(1).all(|line| !line.contains(" - ")));
}

#[test]
fn a_replay_into_a_compacted_topic_prints_a_warning() {
    let case = Case::new("compacted_replay");
    case.produce([nested("d", 1.0), nested("d", 2.0)]);
    stop(&case, "a", &[], 2);
    let noted = |arguments: &[&str]| {
        let ended = case.run(arguments);
        assert!(ended.status.success());
        String::from_utf8(ended.stderr).unwrap()
    };
    assert_eq!(noted(&["dlq", "replay", "--dry-run"]), "");
    set_policy(&case, &case.raw(), "compact,delete");
    let raw = case.raw();
    let warning = format!(
        "warning: the cleanup.policy of {raw} is compact,delete: after compaction an older record that is sent again replaces \
         the newer ones of its key. Set cleanup.policy=delete on {raw} first\n"
    );
    for arguments in [&["dlq", "replay", "--dry-run"][..], &["dlq", "replay"]] {
        assert_eq!(noted(arguments), warning, "{arguments:?}");
    }
    // Nothing is left to send.
    assert_eq!(noted(&["dlq", "replay"]), "");
}

#[test]
fn a_replay_that_was_killed_continues_without_loss_or_duplicates() {
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

/// All of the record's own headers survive rejection and replay, and none of the detector's headers remains.
#[test]
fn a_records_own_headers_survive_rejection_and_replay_in_order_and_ours_are_dropped_again() {
    let case = Case::new("letter_headers");
    let own: Vec<(&str, Option<&[u8]>)> = vec![
        ("trace", Some(b"one")),
        ("trace", Some(b"\xff\x00")),
        ("empty", Some(b"")),
        ("null", None),
        // Of another's dead letter, and of a receipt: names that are ours.
        ("anomaly.error.truncated", Some(b"5")),
        ("anomaly.replay.partition", Some(b"0")),
        ("anomaly.replay.offset", Some(b"0")),
        ("anomaly.replay.at", Some(b"never")),
    ];
    let sent = Sent { headers: own.clone(), ..nested("d", 1.0) };
    case.produce([sent]);
    stop(&case, "a", &[], 1);
    let dead_letter = &case.read(&case.dlq())[0];
    let label = ("anomaly-label".to_owned(), Some(b"spike".to_vec()));
    let named = |(key, value): &(&str, Option<&[u8]>)| ((*key).to_owned(), value.map(<[u8]>::to_vec));
    let all = own.iter().map(named).chain([label.clone()]).collect::<Vec<_>>();
    assert_eq!(dead_letter.headers[dead_letter.headers.len() - all.len()..], all);
    assert_eq!(dead_letter.header("anomaly.error.headers").as_deref(), Some("9"));
    // Rejected once more, and sent once more: still the same.
    for round in 1..3_usize {
        assert!(case.ok(&["dlq", "replay"]).starts_with("1 dead letters were sent again"), "{round}");
        let records = case.read(&case.raw());
        let again = records.last().unwrap();
        let mut expected = all.clone();
        expected.retain(|(key, _)| !key.starts_with("anomaly.error."));
        let origin = again.header("anomaly.replayed-from").unwrap();
        expected.push(("anomaly.replayed-from".into(), Some(origin.into_bytes())));
        assert_eq!(again.headers, expected, "{round}");
        let detector = case.detector("a", &[]);
        let dead_letters = || case.read(&case.dlq()).iter().filter(|got| got.value.is_some()).count();
        wait("the record to be rejected again", || dead_letters() == 1 + round);
        assert!(detector.terminate(Duration::from_secs(10)).success());
    }
}

/// A replayed tombstone would delete the newer records of its key. Old detectors wrote dead letters for tombstones.
#[test]
fn null_values_are_ignored_and_counted_and_old_dead_letters_of_them_are_never_sent_again() {
    let case = Case::new("tombstones");
    let null = || Sent { key: Some(b"d".to_vec()), ..Sent::default() };
    case.produce([null(), nested("d", 1.0), null()]);
    let detector = case.detector("a", &[("DETECTOR__ON_REJECT", "dead_letter")]);
    wait_done(&case, 3);
    wait("the counters", || detector.metric("anomaly_events_total{kind=\"ignored\"}") == 2.0);
    assert!(detector.terminate(Duration::from_secs(10)).success());
    assert_eq!(case.read(&case.dlq()).len(), 1);
    // As an older detector wrote them.
    let headers: Vec<(&str, String)> = vec![
        ("anomaly.error.topic", case.raw()),
        ("anomaly.error.partition", "0".into()),
        ("anomaly.error.offset", "0".into()),
        ("anomaly.error.class", "empty".into()),
        ("anomaly.error.message", "the value is null; expected a JSON object".into()),
    ];
    send_letter(&case, b"d", None, &headers);
    let listed = case.run(&["dlq", "list"]);
    let (out, noted) = (String::from_utf8(listed.stdout).unwrap(), String::from_utf8(listed.stderr).unwrap());
    assert!(out.contains("never: null value"), "{out}");
    assert!(noted.contains("1 of them are null values (tombstones), which are never sent again"), "{noted}");
    let replayed = case.ok(&["dlq", "replay"]);
    assert!(replayed.starts_with("1 dead letters were sent again\n1 have a null value (a tombstone)"), "{replayed}");
    assert_eq!(case.read(&case.raw()).len(), 4);
    let nulls = case.read(&case.raw()).iter().filter(|record| record.value.is_none()).count();
    assert_eq!(nulls, 2, "no tombstone was added");
}

/// Dead letters of another topic, or of a partition that the input does not have, must not stop the replay of the others.
#[test]
fn letters_of_other_topics_are_passed_over_and_named_and_the_others_are_sent() {
    let case = Case::new("letters_elsewhere");
    case.produce([nested("d", 1.0), nested("d", 2.0)]);
    stop(&case, "a", &[], 2);
    let other = case.anomalies();
    let raw = case.raw();
    let places = [
        Some((other.as_str(), "0")),
        Some(("deleted", "0")),
        Some((raw.as_str(), "900")),
        Some((raw.as_str(), "-1")),
        None,
    ];
    for place in places {
        let headers = place.map(|(topic, partition)| {
            vec![("anomaly.error.topic", topic.to_owned()), ("anomaly.error.partition", partition.to_owned())]
        });
        let mut headers = headers.unwrap_or_default();
        headers.push(("anomaly.error.class", "json".to_owned()));
        send_letter(&case, b"d", Some(b"{}"), &headers);
    }
    for (arguments, verb) in [(&["dlq", "replay", "--dry-run"][..], "would be"), (&["dlq", "replay"], "were")] {
        let ended = case.run(arguments);
        let (out, noted) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        assert_eq!(ended.status.code(), Some(65), "{out}{noted}");
        let expected = format!(
            "2 dead letters {verb} sent again\n5 were skipped: their headers do not name a partition of {raw}\n"
        );
        assert_eq!(out, expected);
        for place in [format!("from {other}[0]@?"), "from deleted[0]@?".into(), format!("from {raw}[900]@?")] {
            assert!(noted.contains(&place), "{noted}");
        }
    }
    assert_eq!((case.read(&raw).len(), case.read(&other).len()), (4, 0));
    assert_eq!(case.read(&case.dlq()).iter().filter(|got| got.value.is_none()).count(), 2, "receipts");
}

/// A dead letter that the topic always refuses must not stop the replay of the others.
#[test]
fn letters_that_the_topic_refuses_are_passed_over_and_named_and_the_others_are_sent() {
    let case = Case::new("letters_refused");
    // Text that cannot be compressed much.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'0' + (state >> 60) as u8)
    };
    let noise = (0..60_000).map(|_| noise()).collect::<String>();
    let large = |value: f64| nested(&noise, value);
    case.produce((0..30).map(|i| nested("d", f64::from(i))).chain([large(1.0)]));
    case.produce((0..30).map(|i| nested("e", f64::from(i))).chain([large(2.0)]));
    stop(&case, "a", &[], 62);
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let raw = case.raw();
    let small = AlterConfig::new(ResourceSpecifier::Topic(&raw)).set("max.message.bytes", "20000");
    runtime.block_on(admin.alter_configs([&small], &AdminOptions::new())).unwrap();
    for (sent, before) in [(60, ""), (0, "60 were skipped: they had been sent again before\n")] {
        let ended = case.run(&["dlq", "replay"]);
        let (out, noted) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        assert_eq!(ended.status.code(), Some(65), "{out}{noted}");
        assert_eq!(out, format!("{sent} dead letters were sent again\n{before}"));
        assert!(noted.contains("2 dead letters were refused and not sent: "), "{noted}");
        assert_eq!(noted.matches("MessageSizeTooLarge").count(), 2, "{noted}");
    }
    assert_eq!(case.read(&raw).len(), 62 + 60);
}

#[test]
fn a_replay_that_is_stopped_prints_what_it_has_sent_and_the_next_one_sends_the_rest() {
    let case = Case::new("stopped_replay");
    case.produce((0..20_000).map(|i| nested(&format!("d{}", i % 50), f64::from(i % 7))));
    stop(&case, "a", &[], 20_000);
    let child = case.command(&["dlq", "replay"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait("some to be sent", || case.read(&case.dlq()).len() > 20_000);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    let (out, noted) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    let sent = out.split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(out.contains(" dead letters were sent again"), "{out}{noted}");
    assert_eq!(case.read(&case.raw()).len() - 20_000, sent);
    // A fast machine may have sent all of them before the signal.
    if sent < 20_000 {
        assert_eq!(ended.status.code(), Some(75), "{out}{noted}");
        assert!(noted.contains("stopped by a signal"), "{noted}");
    }
    let rest = case.ok(&["dlq", "replay"]);
    assert!(rest.starts_with(&format!("{} dead letters were sent again\n", 20_000 - sent)), "{rest}");
}

/// Headers that would make a dead letter too large are left out, and the dead letter says so.
#[test]
fn a_dead_letter_whose_headers_its_topic_refuses_is_written_without_them_and_is_not_replayed() {
    // Bytes that cannot be compressed.
    let large = (0..900_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect::<Vec<_>>();
    let large: &'static [u8] = Box::leak(large.into_boxed_slice());
    let case = Case::bare("large_headers", Parts::shared());
    let dlq = case.dlq();
    let small = NewTopic::new(&dlq, 4, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.create_topics([&small], &AdminOptions::new())).unwrap();
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    case.produce([Sent { headers: vec![("large", Some(large))], ..nested("d", 1.0) }]);
    stop(&case, "a", &[], 1);
    let dead_letter = &case.read(&case.dlq())[0];
    assert_eq!(dead_letter.header("anomaly.error.headers").as_deref(), Some("0"));
    assert!(dead_letter.header("anomaly.error.headers_truncated").is_some_and(|n| n.parse::<u64>().unwrap() > 900_000));
    assert!(dead_letter.value.as_ref().is_some_and(|value| !value.is_empty()));
    let replayed = case.ok(&["dlq", "replay"]);
    assert!(replayed.contains("1 were truncated when they were rejected"), "{replayed}");
}
