//! `anomaly score`: files in, verdicts out, equal to the oracle's.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::{PROGRAM, root};
use crate::oracle::Oracle;

fn score(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("score").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The 58 series of the Numenta Anomaly Benchmark lie beside the repository where it is developed.
fn benchmark() -> Vec<PathBuf> {
    let data = root().join("../shared/nab/data");
    let Ok(groups) = std::fs::read_dir(data) else { return Vec::new() };
    let files = |group: std::fs::DirEntry| std::fs::read_dir(group.path()).unwrap().map(|file| file.unwrap().path());
    groups.flat_map(|group| files(group.unwrap())).filter(|path| path.extension().is_some_and(|e| e == "csv")).collect()
}

#[test]
fn every_figure_and_verdict_over_the_benchmark_equals_the_oracles() {
    let files = benchmark();
    if files.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "CI has the benchmark's data in ../shared/nab");
        eprintln!("skipped: the benchmark's data is not beside this repository");
        return;
    }
    assert_eq!(files.len(), 58);
    let (mut judged_points, mut edges, mut abnormal) = (0, 0, 0);
    for path in &files {
        let path_text = path.to_str().unwrap();
        let output = score(&["--all", "--value-field", "value", "--time-field", "timestamp", path_text]);
        let values = column(path);
        let found = lines(&output);
        assert_eq!(found.len(), values.len(), "{path_text}");
        let mut oracle = Oracle::new(100, 30, 3);
        for (line, value) in found.iter().zip(&values) {
            assert_eq!(line["metric_value"].as_f64(), Some(*value));
            let Some(judged) = oracle.judge("s", *value) else {
                assert!(line["mean"].is_null() && line["is_anomaly"] == false, "{line}");
                continue;
            };
            judged_points += 1;
            assert_eq!(line["mean"].as_f64(), Some(judged.mean), "{path_text}: {line}");
            assert_eq!(line["std_dev"].as_f64(), Some(judged.std_dev), "{path_text}: {line}");
            if judged.is_edge {
                edges += 1;
            } else {
                assert_eq!(line["is_anomaly"], judged.is_abnormal, "{path_text}: {line}");
            }
            abnormal += u32::from(judged.is_abnormal);
        }
    }
    println!("{judged_points} points judged, {abnormal} abnormal, {edges} at the edge");
    assert!(judged_points > 360_000 && abnormal > 1_000 && edges < 100);
}

/// The second column, read without any code of ours.
fn column(path: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().trim().parse().unwrap()).collect()
}

#[test]
fn anomalies_come_as_the_contracts_record_and_all_adds_no_other_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oven.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    for i in 0..60 {
        let value = if i == 50 { 90.0 } else { 20.0 + f64::from(i % 3) };
        writeln!(file, r#"{{"device_id":"oven-1","metric_name":"t","metric_value":{value},"timestamp":{}}}"#, 1000 + i)
            .unwrap();
    }
    let path = path.to_str().unwrap();
    let found = lines(&score(&[path]));
    assert_eq!(found.len(), 1, "{found:?}");
    let anomaly = &found[0];
    for (key, value) in [
        ("schema_version", Value::from(1)),
        ("kind", "point".into()),
        ("device_id", "oven-1".into()),
        ("metric_name", "t".into()),
        ("metric_value", 90.0.into()),
        ("timestamp", "1970-01-01T00:17:30.000Z".into()),
        ("threshold", 3.0.into()),
        ("window_count", 50.into()),
        ("method", "sigma".into()),
        ("direction", "high".into()),
        ("severity", "critical".into()),
        ("label", Value::Null),
        ("source", serde_json::json!({"topic": "oven.jsonl", "partition": 0, "offset": 50, "index": 0})),
    ] {
        assert_eq!(anomaly[key], value, "{key}");
    }
    assert_eq!(anomaly["window"].as_array().unwrap().len(), 50);
    let all = lines(&score(&["--all", path]));
    let flagged = all.iter().filter(|line| line["is_anomaly"] == true).collect::<Vec<_>>();
    assert_eq!((all.len(), flagged.len()), (60, 1));
    assert_eq!(flagged[0]["z_score"], anomaly["z_score"]);
}

#[test]
fn rejects_are_told_with_line_and_reason_and_kept_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let (input, rejects) = (dir.path().join("in.jsonl"), dir.path().join("rejects"));
    std::fs::write(
        &input,
        b"{\"device_id\":\"d\",\"metric_value\":1}\n\nnonsense \xff\n{\"device_id\":\"\",\"metric_value\":2}\n",
    )
    .unwrap();
    let output = score(&["--rejects", rejects.to_str().unwrap(), input.to_str().unwrap()]);
    assert!(output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("in.jsonl:3: utf8") && errors.contains("in.jsonl:4: device_id"), "{errors}");
    assert!(errors.contains("1 events accepted (1 while learning), 0 anomalies, 2 records rejected"), "{errors}");
    assert_eq!(std::fs::read(rejects).unwrap(), b"nonsense \xff\n{\"device_id\":\"\",\"metric_value\":2}\n");
}

#[test]
fn standard_input_and_dotted_paths_work_and_absent_times_are_null() {
    let mut child = Command::new(PROGRAM)
        .args(["score", "--all", "--device-field", "meta.id", "--value-field", "v", "--format", "jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"meta\":{\"id\":\"a\"},\"v\":2}\n").unwrap();
    let found = lines(&child.wait_with_output().unwrap());
    assert_eq!((&found[0]["device_id"], &found[0]["timestamp"]), (&Value::from("a"), &Value::Null));
    assert_eq!(found[0]["source"]["topic"], "stdin");
}

#[test]
fn a_missing_file_a_missing_column_and_a_contradiction_have_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("t.csv");
    std::fs::write(&table, "a,b\n1,2\n").unwrap();
    for (arguments, code, says) in [
        (vec!["/nowhere/x.jsonl"], 66, "/nowhere/x.jsonl"),
        (vec![dir.path().to_str().unwrap()], 66, "directory"),
        (vec![table.to_str().unwrap()], 65, "--value-field"),
        (vec!["--window", "5", table.to_str().unwrap()], 64, "--min-samples"),
        (vec!["--threshold", "0", table.to_str().unwrap()], 64, "threshold"),
    ] {
        let output = score(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
}
