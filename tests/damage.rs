//! Topics with a damaged batch. Each reader reports the offset, processes everything before it, and continues once the
//! batch can be read.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{Case, Process, Sent, event, wait_for};

/// A damaged partition is read again after at most 30 s.
const REREAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Returns the first segment of a partition in the broker's directory.
pub fn segment(case: &Case, topic: &str, partition: i32) -> PathBuf {
    let box_dir = Path::new(case.parts.get("POSTGRES__PASSWORD_FILE")).parent().unwrap();
    box_dir.join(format!("kafka/{topic}-{partition}/00000000000000000000.log"))
}

/// Returns the first offset, the last offset and the end in the file of each batch, and whether it has data.
pub fn batches(file: &Path) -> Vec<(i64, i64, u64, bool)> {
    let mut bytes = Vec::new();
    File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    let (mut at, mut batches) = (0, Vec::new());
    let number = |at: usize, length: usize| bytes[at..at + length].iter().fold(0, |n, byte| n << 8 | i64::from(*byte));
    // The broker may have reserved space, which is empty, after the last batch.
    while at + 61 <= bytes.len() && number(at + 8, 4) > 0 {
        let (first, end) = (number(at, 8), at + 12 + number(at + 8, 4) as usize);
        let is_control = number(at + 21, 2) & 0x20 != 0;
        batches.push((first, first + number(at + 23, 4), end as u64, !is_control));
        at = end;
    }
    batches
}

/// Flips one bit of the batch that contains this offset. A second call repairs it. Returns the batch's first and last
/// offset.
fn flip(case: &Case, topic: &str, partition: i32, offset: i64) -> (i64, i64) {
    let segment = segment(case, topic, partition);
    let all = batches(&segment);
    let (first, last, end, _) = *all.iter().find(|(first, last, ..)| (*first..=*last).contains(&offset)).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(end - 1)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(end - 1)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    (first, last)
}

fn usual(n: usize, partition: i32) -> impl Iterator<Item = Sent> {
    (0..n).map(move |i| Sent { partition: Some(partition), ..event(&format!("d{}", i % 4), (i % 7) as f64) })
}

/// Waits until `/readyz` is degraded with these words.
fn wait_degraded(detector: &Process, words: &str) {
    wait_for(&format!("/readyz to say {words:?}"), REREAD_TIMEOUT, || {
        detector.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains(words))
    });
}

/// Waits until `/readyz` is ready.
fn wait_served(detector: &Process) {
    wait_for("the detector to be ready again", REREAD_TIMEOUT, || {
        detector.get("/readyz").is_some_and(|(status, _)| status == 200)
    });
}

/// Waits until this number of records has an outcome.
fn wait_committed(case: &Case, records: i64) {
    wait_for(&format!("{records} records to be judged"), REREAD_TIMEOUT, || case.committed() == records);
}

#[test]
fn a_damaged_batch_of_the_input_is_reported_and_records_before_it_and_in_other_partitions_are_judged() {
    let mut case = Case::bare("damaged_input", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 2);
    case.set("SINK__ENABLED", false);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    for n in [150, 50, 10, 40] {
        case.produce(usual(n, 0));
    }
    case.produce(usual(30, 1));
    let raw = case.raw();
    let (first, _) = flip(&case, &raw, 0, 205);
    assert!((150..=205).contains(&first));
    let detector = case.detector("a", &[]);
    let place = format!("{raw} [0] cannot be read at offset {first}: ");
    wait_degraded(&detector, &place);
    wait_committed(&case, first + 30);
    let metrics = detector.get("/metrics").unwrap().1;
    assert!(metrics.lines().any(|line| line.contains("code=\"unreadable\"") && line.contains("degraded")), "{metrics}");
    // The other partition is judged while this one waits, and records behind the damage are not.
    case.produce(usual(20, 1));
    wait_committed(&case, first + 50);
    assert!(detector.get("/readyz").unwrap().1.contains(&place));
    let reports = detector.log().lines().filter(|line| line.contains(&place)).count();
    assert!((1..=3).contains(&reports), "{reports} lines in the log");
    // A restart finds the same.
    assert!(detector.terminate(Duration::from_secs(30)).success());
    let detector = case.detector("a", &[]);
    wait_degraded(&detector, &place);
    assert_eq!(case.committed(), first + 50);
    flip(&case, &raw, 0, 205);
    wait_served(&detector);
    wait_committed(&case, 300);
}

/// Runs a detector without its sink, until topic `anomalies` has at least three batches of data.
fn with_three_batches(name: &str) -> Case {
    let mut case = Case::bare(name, crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 1);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    let detector = case.detector("a", &[("SINK__ENABLED", "false")]);
    detector.wait_ready();
    case.produce((0..40).map(|i| event("d", f64::from(i % 2))));
    for n in 1..=3 {
        case.produce((0..5).map(|_| event("d", 1e6 * f64::from(n * n))));
        wait_committed(&case, 40 + 5 * i64::from(n));
    }
    assert!(detector.terminate(Duration::from_secs(30)).success());
    case
}

#[test]
fn a_damaged_batch_of_the_anomalies_stops_the_sink_at_its_place_until_it_is_repaired_or_skipped() {
    let case = with_three_batches("damaged_anomalies");
    let anomalies = case.anomalies();
    let data = batches(&segment(&case, &anomalies, 0)).into_iter().filter(|(.., has_data)| *has_data);
    let data = data.collect::<Vec<_>>();
    let total = data.iter().map(|(first, last, ..)| last - first + 1).sum::<i64>();
    let before = data[0].1 - data[0].0 + 1;
    assert!(data.len() >= 3 && total > before, "{data:?}");
    let (first, _) = flip(&case, &anomalies, 0, data[1].0);
    let (newest, end) = flip(&case, &anomalies, 0, data[data.len() - 1].0);
    let detector = case.detector("a", &[]);
    wait_degraded(&detector, &format!("{anomalies} [0] cannot be read at offset {first}: "));
    wait_for("the anomalies before it to be stored", REREAD_TIMEOUT, || case.count("anomalies") == before);
    flip(&case, &anomalies, 0, first);
    wait_degraded(&detector, &format!("{anomalies} [0] cannot be read at offset {newest}: "));
    let stored = total - (end - newest + 1);
    wait_for("the anomalies before the second one to be stored", REREAD_TIMEOUT, || case.count("anomalies") == stored);
    // A person skips the second one while the detector runs.
    let output = case.run(&["dlq", "skip", &anomalies, "0", &newest.to_string()]);
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = format!("{} records of {anomalies} [0] were skipped: offsets {newest} to {end}", end - newest + 1);
    assert!(output.status.success() && text.contains(&expected), "{text} {}", String::from_utf8_lossy(&output.stderr));
    wait_served(&detector);
    case.produce((0..5).map(|_| event("d", 1e9)));
    wait_for("new anomalies to be stored", REREAD_TIMEOUT, || case.count("anomalies") > stored);
}

#[test]
fn damaged_batches_of_the_anomalies_and_of_the_state_are_skipped_and_counted_if_the_settings_say_so() {
    let case = with_three_batches("skipped_outputs");
    let (anomalies, state) = (case.anomalies(), format!("{}.state", case.name));
    let data = |topic: &str| {
        batches(&segment(&case, topic, 0)).into_iter().filter(|(.., has_data)| *has_data).collect::<Vec<_>>()
    };
    let total = data(&anomalies).iter().map(|(first, last, ..)| last - first + 1).sum::<i64>();
    let skipped = |topic: &str, offset| {
        let (first, last) = flip(&case, topic, 0, offset);
        let count = last - first + 1;
        let words =
            format!("{count} records of {topic} [0] cannot be read, and were skipped (offsets {first} to {last})");
        (count, words)
    };
    let (count, words) = skipped(&anomalies, data(&anomalies)[1].0);
    let (windows, others) = skipped(&state, data(&state)[0].0);
    let detector = case.detector("a", &[("DETECTOR__ON_DAMAGE", "skip")]);
    wait_for("the report of the skipped records", REREAD_TIMEOUT, || {
        detector
            .get("/readyz")
            .is_some_and(|(status, text)| status == 200 && text.contains(&words) && text.contains(&others))
    });
    wait_for("the other anomalies to be stored", REREAD_TIMEOUT, || case.count("anomalies") == total - count);
    assert_eq!(detector.metric("anomaly_lost_records_total{kind=\"skipped\"} ") as i64, count + windows);
    case.produce(usual(5, 0));
    wait_committed(&case, 60);
}

#[test]
fn a_damaged_batch_of_the_state_and_of_the_dead_letters_is_reported() {
    let mut case = Case::bare("damaged_state", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 1);
    case.set("SINK__ENABLED", false);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    let detector = case.detector("a", &[]);
    detector.wait_ready();
    case.produce(usual(40, 0));
    case.produce([Sent { value: Some(b"no event".to_vec()), ..event("d", 0.0) }]);
    wait_committed(&case, 41);
    assert!(detector.terminate(Duration::from_secs(30)).success());
    let state = format!("{}.state", case.name);
    let at = batches(&segment(&case, &state, 0)).into_iter().rfind(|(.., has_data)| *has_data).unwrap().0;
    flip(&case, &state, 0, at);
    let detector = case.detector("a", &[]);
    wait_degraded(&detector, &format!("{state} [0] cannot be read at offset {at}: "));
    flip(&case, &state, 0, at);
    wait_served(&detector);
    let dlq = case.dlq();
    flip(&case, &dlq, 0, 0);
    let output = case.run(&["dlq", "list"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(text.contains(&format!("{dlq} [0] cannot be read at offset 0: ")), "{text}");
}

#[test]
fn a_damaged_batch_is_skipped_and_counted_if_the_settings_or_a_person_say_so() {
    let mut case = Case::bare("skipped_damage", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 1);
    case.set("SINK__ENABLED", false);
    case.set("DETECTOR__SESSION_TIMEOUT", "6s");
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    for n in [150, 50, 10, 40] {
        case.produce(usual(n, 0));
    }
    let raw = case.raw();
    let (first, last) = flip(&case, &raw, 0, 205);
    let count = last - first + 1;
    let detector = case.detector("a", &[("DETECTOR__ON_DAMAGE", "skip")]);
    wait_committed(&case, 250);
    let words = format!("{count} records of {raw} [0] cannot be read, and were skipped (offsets {first} to {last})");
    wait_for("the report of the skipped records", REREAD_TIMEOUT, || {
        detector.get("/readyz").is_some_and(|(status, text)| status == 200 && text.contains(&words))
    });
    let skipped = |detector: &Process| detector.metric("anomaly_records_total{kind=\"skipped\"} ") as i64;
    assert_eq!(skipped(&detector), count);
    // A restart reads the input again from the checkpoint on, and does not miss the skipped records.
    assert!(detector.terminate(Duration::from_secs(30)).success());
    let detector = case.detector("a", &[]);
    wait_served(&detector);
    assert!(!detector.get("/metrics").unwrap().1.contains("code=\"replay_shortfall\""));
    // A second damaged batch is skipped by a person.
    case.produce(usual(5, 0));
    wait_committed(&case, 255);
    assert!(detector.terminate(Duration::from_secs(30)).success());
    case.produce(usual(1, 0));
    case.produce(usual(3, 0));
    let (first, last) = flip(&case, &raw, 0, 255);
    let skip = ["dlq", "skip", raw.as_str(), "0", "255"];
    wait_for("the command to skip", REREAD_TIMEOUT, || {
        let output = case.run(&skip);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // Until the session of the stopped detector ends, the group refuses.
        assert!(matches!(output.status.code(), Some(0 | 69)), "{text}");
        let done = String::from_utf8_lossy(&output.stdout).into_owned();
        done.contains(&format!("{} records of {raw} [0] were skipped: offsets {first} to {last}", last - first + 1))
    });
    let output = case.run(&skip);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(65) && text.contains("can be read at offset 256"), "{text}");
    let detector = case.detector("a", &[]);
    wait_served(&detector);
    wait_committed(&case, 259);
}
