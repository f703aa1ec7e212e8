//! Tests of `anomaly score`: its verdicts over files equal the oracle's.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
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

/// The 58 series of the Numenta Anomaly Benchmark are next to the repository on development machines.
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
        eprintln!("skipped: the benchmark's data is not next to this repository");
        return;
    }
    assert_eq!(files.len(), 58);
    let (mut judged_points, mut edges, mut abnormal) = (0, 0, 0);
    for (path, method) in files.iter().flat_map(|path| [(path, "sigma"), (path, "ewma")]) {
        let path_text = path.to_str().unwrap();
        let fields = ["--value-field", "value", "--time-field", "timestamp"];
        let output = score(&[&["--all", "--method", method][..], &fields, &[path_text]].concat());
        let values = column(path);
        let found = lines(&output);
        assert_eq!(found.len(), values.len(), "{path_text}");
        let mut oracle = Oracle::of(method, 100, 30, 3);
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
    assert!(judged_points > 720_000 && abnormal > 2_000 && edges < 100);
}

/// Reads the second column without any code of `src/`.
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
        ("schema_version", Value::from(2)),
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
        ("evidence", serde_json::json!({})),
        ("expected", anomaly["mean"].clone()),
        (
            "source",
            serde_json::json!({"topic": "oven.jsonl", "generation": 0, "partition": 0, "offset": 50, "index": 0}),
        ),
    ] {
        assert_eq!(anomaly[key], value, "{key}");
    }
    assert_eq!(anomaly["window"].as_array().unwrap().len(), 50);
    let all = lines(&score(&["--all", path]));
    let flagged = all.iter().filter(|line| line["is_anomaly"] == true).collect::<Vec<_>>();
    assert_eq!((all.len(), flagged.len()), (60, 1));
    assert_eq!(flagged[0]["z_score"], anomaly["z_score"]);
    assert_eq!(flagged[0]["upper"], anomaly["upper"]);
    // The numbers of the weighted mean repeat its arithmetic.
    let weighted = &lines(&score(&["--method", "ewma", path]))[0];
    let number = |name: &str| weighted["evidence"][name].as_f64().unwrap();
    assert_eq!((number("alpha"), number("count")), (2.0 / 101.0, 50.0));
    assert_eq!(weighted["std_dev"], number("variance").sqrt());
    assert_eq!((&weighted["method"], &weighted["expected"]), (&Value::from("ewma"), &weighted["mean"]));
}

#[test]
fn rejects_are_reported_with_line_and_reason_and_written_exactly() {
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
fn rejects_never_overwrite_the_input_under_any_name() {
    let (dir, path) = file("in.csv", "metric_value\n1\nx\n");
    let [link, hard] = ["link", "hard"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    std::os::unix::fs::symlink(&path, &link).unwrap();
    std::fs::hard_link(&path, &hard).unwrap();
    for rejects in [&path, &link, &hard] {
        for input in [&path, "-"] {
            let mut command = Command::new(PROGRAM);
            let stdin = std::fs::File::open(&path).unwrap();
            let output = command.args(["score", input, "--rejects", rejects]).stdin(stdin).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.code() == Some(64) && errors.contains("names the input itself"),
                "{rejects}: {errors}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "metric_value\n1\nx\n", "{rejects}");
        }
    }
}

#[test]
fn rejects_are_never_mixed_with_the_results() {
    let dir = tempfile::tempdir().unwrap();
    let (input, results) = (dir.path().join("in.csv"), dir.path().join("out"));
    std::fs::write(&input, "metric_value\n1\nx\n").unwrap();
    let stdout = std::fs::File::create(&results).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["score", input.to_str().unwrap(), "--all", "--rejects", results.to_str().unwrap()]);
    let output = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && errors.contains("--rejects names the file of standard"), "{errors}");
    assert_eq!(std::fs::read(&results).unwrap(), b"");
}

#[test]
fn options_for_tables_are_refused_for_json() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, "{\"device_id\":\"d\",\"metric_value\":1}\n").unwrap();
    for options in [&["--wide"][..], &["--decimal-comma"], &["--delimiter", ";"]] {
        let output = score(&[options, &[input.to_str().unwrap()]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{errors}");
        assert!(errors.contains(options[0]) && errors.contains("is JSON"), "{errors}");
    }
}

#[test]
fn variables_that_have_an_option_are_said_to_be_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.csv");
    std::fs::write(&input, "metric_value\n1\n").unwrap();
    let mut command = Command::new(PROGRAM);
    command.env("ANOMALY__DETECTOR__WINDOW", "40").env("ANOMALY__FIELDS__VALUE", "v");
    let output = command.args(["score", input.to_str().unwrap()]).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    for named in ["ANOMALY__DETECTOR__WINDOW (use --window)", "ANOMALY__FIELDS__VALUE (use --value-field)"] {
        assert_eq!(errors.matches(named).count(), 1, "{errors}");
    }
}

#[test]
fn rejects_are_complete_when_the_reader_closes_the_output_early() {
    const ROWS: usize = 60_000;
    let rows = (0..ROWS).map(|row| if row % 10 == 9 { format!("x{row}\n") } else { format!("{row}\n") });
    let (dir, path) = file("in.csv", format!("metric_value\n{}", rows.collect::<String>()));
    let rejects = dir.path().join("rejects");
    let mut child = Command::new(PROGRAM)
        .args(["score", "--all", "--rejects", rejects.to_str().unwrap(), &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let rejects = std::fs::read_to_string(rejects).unwrap();
    assert_eq!((rejects.lines().count(), rejects.lines().last()), (ROWS / 10, Some("x59999")));
}

#[test]
fn rows_of_empty_cells_are_not_said_to_match_a_pattern() {
    let text = "timestamp,a,b\n2026-11-23T17:00:00Z,1,2\n2026-11-23T17:01:00Z,,\n2026-11-23T17:02:00Z,,\n";
    let (code, _, errors) = ended("a.csv", text, &[]);
    assert!(code == 0 && errors.contains("2 records without a value were skipped"), "{errors}");
    let (_, _, errors) = ended("a.csv", text, &["--ignore", "a=1"]);
    assert!(errors.contains("3 records that match --ignore or are without a value were skipped"), "{errors}");
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
        (vec!["--window", "many", table.to_str().unwrap()], 64, "expected a whole number from 2 to 100000"),
        (vec!["--delimiter", "ab", table.to_str().unwrap()], 64, "one ASCII character"),
    ] {
        let output = score(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_settings_directory_that_is_not_read_is_noted() {
    let file = root().join("tests/score.rs");
    let output = score(&["--config", "/nonexistent", "--format", "csv", file.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("note: score takes its settings from its options; --config is not read"), "{error}");
}

/// Creates a file in its own directory.
fn file(name: &str, text: impl AsRef<[u8]>) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

/// Scores a file; returns exit code, standard output and standard error.
fn ended(name: &str, text: impl AsRef<[u8]>, arguments: &[&str]) -> (i32, String, String) {
    let (_dir, path) = file(name, text);
    let output = score(&[arguments, &[&path]].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Returns sixty readings, of which the 51st is abnormal.
fn readings() -> impl Iterator<Item = (String, f64)> {
    (0..60).map(|i| {
        let value = if i == 50 { 90.5 } else { 20.0 + f64::from(i % 3) / 4.0 };
        (format!("2026-11-23T17:{i:02}:00Z"), value)
    })
}

fn table(header: &str, row: impl Fn(&str, f64) -> String) -> String {
    readings().fold(format!("{header}\n"), |text, (time, value)| text + &row(&time, value) + "\n")
}

fn gz(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn the_same_readings_in_any_form_have_the_same_verdicts() {
    let plain = table("device_id,timestamp,metric_value", |time, value| format!("pump,{time},{value}"));
    let objects = readings()
        .map(|(time, value)| format!(r#"{{"device_id":"pump","timestamp":"{time}","metric_value":{value}}}"#))
        .collect::<Vec<_>>();
    let german = |value: f64| value.to_string().replace('.', ",");
    let forms: [(&str, Vec<u8>, &[&str]); 14] = [
        ("a.csv", plain.clone().into(), &[]),
        ("a.csv", plain.replace('\n', "\r\n").into(), &[]),
        ("a.csv", plain.replace('\n', "\r").into(), &[]),
        ("a.csv", format!("\u{feff}# a logger's\n{plain}# the end\n").into(), &[]),
        ("a.csv.gz", gz(&plain), &[]),
        ("a.csv", [gz(&plain[..700]), gz(&plain[700..])].concat(), &[]),
        ("a.tsv", plain.replace(',', "\t").into(), &[]),
        ("a.dat", plain.replace(',', "|").into(), &[]),
        ("a.csv", format!("sep=;\n{}", plain.replace(',', ";")).into(), &["--delimiter", ";"]),
        (
            "a.csv",
            table("device_id;timestamp;metric_value", |time, value| format!("pump;{time};{}", german(value))).into(),
            &["--decimal-comma"],
        ),
        (
            "a.csv",
            table("\"timestamp\",\"metric_value\",device_id", |time, value| {
                format!("\"{time}\",\"{}\",\"pump\"", german(value))
            })
            .into(),
            &["--decimal-comma"],
        ),
        ("a.json", format!("[{}]", objects.join(",")).into(), &[]),
        ("a.json.gz", gz(&format!("[\n{},\n]\n", objects.join(",\n"))), &[]),
        ("a", objects.join("\n").replace(',', ",\n  ").into(), &[]),
    ];
    for (name, text, arguments) in forms {
        let shown = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
        let (_dir, path) = file(name, &text);
        let output = score(&[&["--all"], arguments, &[&path]].concat());
        let found = lines(&output);
        assert_eq!(found.len(), 60, "{shown}: {}", String::from_utf8_lossy(&output.stderr));
        for (line, (time, value)) in found.iter().zip(readings()) {
            assert_eq!(line["device_id"], "pump", "{shown}");
            assert_eq!(line["metric_value"].as_f64(), Some(value), "{shown}");
            assert_eq!(line["timestamp"], time.replace('Z', ".000Z"), "{shown}");
            assert_eq!(line["is_anomaly"], value > 90.0, "{shown}");
        }
    }
}

#[test]
fn a_named_field_that_no_record_has_is_an_error_that_lists_the_existing_fields() {
    let csv = table("site,at,temp,unit", |time, value| format!("pump,{time},{value},"));
    let json = readings()
        .map(|(time, value)| format!("{{\"device_id\":\"pump\",\"at\":\"{time}\",\"v\":{{\"temp\":{value}}}}}\n"))
        .collect::<String>();
    let cases: [(&str, &String, &[&str], &[&str]); 9] = [
        ("a.csv", &csv, &["--value-field", "temp", "--device-field", "host"], &["`host`", "site, at, temp, unit"]),
        ("a.csv", &csv, &["--value-field", "temp", "--device-field", "device_id"], &["`device_id`", "site, at, temp"]),
        ("a.csv", &csv, &["--value-field", "temp", "--metric-field", "metric"], &["`metric`", "site, at, temp"]),
        ("a.csv", &csv, &["--value-field", "temp", "--time-field", "At"], &["did you mean `at`"]),
        ("a.csv", &csv, &["--value-field", "temp", "--metric-field", "unit"], &["`unit`", "none of the 60 events"]),
        ("a.jsonl", &json, &["--value-field", "temp"], &["none of the 60 records", "at, device_id, v.temp"]),
        (
            "a.jsonl",
            &json,
            &["--value-field", "v.temp", "--device-field", "host"],
            &["`host`", "at, device_id, v.temp"],
        ),
        ("a.jsonl", &json, &["--value-field", "v.temp", "--metric-field", "m"], &["`m`", "at, device_id, v.temp"]),
        ("a.jsonl", &json, &["--value-field", "v.temp", "--time-field", "time"], &["`time`", "at, device_id, v.temp"]),
    ];
    for (name, text, arguments, says) in cases {
        let (code, out, errors) = ended(name, text, arguments);
        assert_eq!((code, out.as_str()), (65, ""), "{arguments:?}: {errors}");
        for says in says {
            assert!(errors.contains(says), "{arguments:?}: {errors}");
        }
    }
    // What was not named may be absent.
    let (code, _, errors) = ended("a.csv", &csv, &["--value-field", "temp"]);
    assert!(code == 0 && errors.contains("all its rows are the device `a`"), "{errors}");
}

#[test]
fn a_field_of_ignore_that_no_record_has_is_an_error() {
    let table = "device_id,kind,metric_value\na,x,1\na,y,2\n";
    let json =
        "{\"device_id\":\"a\",\"metric_value\":1,\"m\":{\"kind\":\"x\"}}\n{\"device_id\":\"a\",\"metric_value\":2}\n";
    for (name, text, pattern, existing) in [
        ("a.csv", table, "nosuch=1", "kind"),
        ("a.csv", table, "nosuch", "kind"),
        ("a.jsonl", json, "nosuch=1", "m.kind"),
        ("a.jsonl", json, "m.nosuch=1", "m.kind"),
    ] {
        let (code, out, errors) = ended(name, text, &["--all", "--ignore", pattern]);
        assert!(code == 65 && out.is_empty(), "{name} {pattern}: {errors}");
        assert!(errors.contains("which --ignore names, is in none of the 2 records"), "{name} {pattern}: {errors}");
        assert!(errors.contains(existing), "{name} {pattern}: {errors}");
    }
    for (name, text, pattern, left) in [
        ("a.csv", table, "kind=x", 1),
        ("a.csv", table, "kind=z", 2),
        ("a.jsonl", json, "m.kind=x", 1),
        ("a.jsonl", json, "m.kind=z", 2),
        // JSON records need not have what is to be present or absent.
        ("a.jsonl", json, "error", 2),
        ("a.jsonl", json, "m.kind", 1),
    ] {
        let (code, out, errors) = ended(name, text, &["--all", "--ignore", pattern]);
        assert!(code == 0 && out.lines().count() == left, "{name} {pattern}: {errors}");
    }
    // A column of a wide table that is no metric.
    let wide = "device_id,metric_name,b\na,x,1\na,y,2\n";
    assert_eq!(ended("a.csv", wide, &["--wide", "--ignore", "device_id=b"]).0, 0);
}

#[test]
fn a_named_field_that_few_records_have_is_a_warning_with_counts() {
    let json = readings()
        .enumerate()
        .map(|(i, (time, value))| {
            let metric = if i < 3 { "\"m\":\"t\"," } else { "" };
            format!("{{\"device_id\":\"pump\",{metric}\"at\":\"{time}\",\"metric_value\":{value}}}\n")
        })
        .collect::<String>();
    let (code, _, errors) = ended("a.jsonl", &json, &["--metric-field", "m", "--time-field", "at"]);
    assert!(code == 0 && errors.contains("`m`, which --metric-field names, is in 3 of the 60 events"), "{errors}");
    assert!(!errors.contains("--time-field"), "{errors}");
}

#[test]
fn a_file_without_an_event_is_an_error() {
    let values = "metric_value\n".to_owned() + &"x\n".repeat(60);
    for (name, text, says) in [
        ("a.csv", "", "a.csv is empty"),
        ("a.jsonl", "", "no record"),
        ("a.json", "[]", "no record"),
        ("a.csv", "metric_value\n", "a header line, and no row"),
        ("a.csv", "# a\n", "comments only"),
        ("a.csv", values.as_str(), "none of the 60 records"),
        ("a.jsonl", "[1,2]\n{}\n", "none of the 3 records"),
        ("a.jsonl", "one\ntwo\n", "none of the 2 records"),
    ] {
        let (code, out, errors) = ended(name, text, &[]);
        assert_eq!((code, out.as_str()), (65, ""), "{text:?}: {errors}");
        assert!(errors.contains(says) && errors.lines().count() < 10, "{text:?}: {errors}");
    }
    let few = "metric_value\n1\n2\n3\n";
    let (code, _, errors) = ended("a.csv", few, &[]);
    assert!(code == 0 && errors.contains("no value was judged"), "{errors}");
}

#[test]
fn rejected_records_are_reported_once_per_reason_with_count_and_first_line() {
    let mut text = table("timestamp,metric_value", |time, value| format!("{time},{value}"));
    for i in 0..20_000 {
        text += &format!("{i},\u{1b}[31m{}\n", "x".repeat(i % 50));
    }
    text += &format!("1,\u{1b}[31m{}\n", "y".repeat(3_000_000));
    text += "1,2,3\n";
    let (code, _, errors) = ended("a.csv", &text, &[]);
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("a.csv:62: metric_value") && errors.contains("(20001 records like this)"), "{errors}");
    assert!(errors.contains("a.csv:20063: shape: the row has 3 cells"), "{errors}");
    assert!(errors.contains("60 events accepted (30 while learning), 1 anomalies, 20002 records rejected"), "{errors}");
    assert!(errors.len() < 2_000 && !errors.contains('\u{1b}'), "{errors:?}");
    let comma =
        table("metric_value;timestamp", |time, value| format!("{};{time}", value.to_string().replace('.', ",")));
    let (code, _, errors) = ended("a.csv", &comma, &[]);
    assert!(code == 0 && errors.contains("--decimal-comma"), "{errors}");
}

#[test]
fn an_open_quote_is_an_error_and_hides_no_rows() {
    let text = table("timestamp,metric_value", |time, value| format!("{time},{value}"));
    let broken = text.replacen("2026-11-23T17:10", "\"2026-11-23T17:10", 1);
    let (code, _, errors) = ended("a.csv", &broken, &[]);
    assert!(code == 65 && errors.contains("a.csv:12: a quote is opened"), "{errors}");
    assert!(errors.contains("10 events accepted"), "{errors}");
    let long = broken + &"1,2\n".repeat(1_000) + "\"\n";
    let (code, _, errors) = ended("a.csv", &long, &[]);
    assert!(code == 65 && errors.contains("a.csv:12: a quote is opened"), "{errors}");
}

#[test]
fn times_that_run_backwards_are_warned_about_and_sort_judges_by_time() {
    let mut rows = table("device_id,timestamp,metric_value", |time, value| format!("b,{time},{value}"))
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let header = rows.remove(0);
    let sorted = [std::slice::from_ref(&header), &rows[..]].concat().join("\n");
    let (_, expected, errors) = ended("a.csv", &sorted, &["--all"]);
    assert!(!errors.contains("earlier"), "{errors}");
    // Two devices one after the other do not run backwards.
    let other = rows.iter().map(|row| row.replace("b,", "a,")).collect::<Vec<_>>();
    let both = [std::slice::from_ref(&header), &rows[..], &other[..]].concat().join("\n");
    assert!(!ended("a.csv", &both, &[]).2.contains("earlier"));
    rows.reverse();
    let reversed = [&[header], &rows[..]].concat().join("\n");
    let (code, _, errors) = ended("a.csv", &reversed, &["--all"]);
    assert_eq!(code, 0);
    assert!(errors.contains("a.csv:3: 59 times are earlier") && errors.contains("--sort"), "{errors}");
    let (code, by_time, errors) = ended("a.csv", &reversed, &["--all", "--sort"]);
    assert!(code == 0 && !errors.contains("earlier"), "{errors}");
    let verdicts = |text: &str| {
        let figures = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            (line["timestamp"].clone(), line["z_score"].clone(), line["is_anomaly"].clone())
        };
        text.lines().map(figures).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&by_time), verdicts(&expected));
    assert!(by_time.lines().next().unwrap().contains("\"offset\":59"), "a record keeps its number");
}

/// Writes endless data to standard input; returns the largest memory use so far in MiB.
fn memory(child: &mut Child, begin: &[u8], repeated: &[u8], bytes: usize) -> u64 {
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(begin);
    for _ in 0..bytes / repeated.len() {
        // It may have ended with an error, which is what bounds its memory.
        if input.write_all(repeated).is_err() {
            break;
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.map_or(0, |peak| peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap());
    peak / 1024
}

#[test]
fn memory_stays_bounded_whatever_the_length_of_lines_arrays_and_quotes() {
    let long = vec![b'x'; 1 << 16];
    let member = [br#"{"device_id":"d","metric_value":1.5,"note":""#, &long[..], br#""},"#].concat();
    for (arguments, begin, repeated, says) in [
        (["--format", "auto"], &b"["[..], &member, "ends within the array"),
        (["--format", "jsonl"], b"{\"device_id\":\"", &long, "standard input:1: the line that begins here"),
        (["--format", "csv"], b"metric_value\n1\n\"", &long, "standard input:3: the row that begins here"),
        (["--format", "json"], b"[{\"a\":\"", &long, "standard input:1: the JSON value that begins here"),
    ] {
        let mut child = Command::new(PROGRAM)
            .arg("score")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let peak = memory(&mut child, begin, repeated, 140 << 20);
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(65) && errors.contains(says), "{arguments:?}: {errors}");
        assert!(peak < 100, "{arguments:?}: {peak} MiB");
    }
}

#[test]
fn every_setting_that_decides_a_verdict_is_an_option() {
    let help = score(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    for option in [
        "--window",
        "--threshold",
        "--min-samples",
        "--min-std-dev",
        "--min-relative-std-dev",
        "--method",
        "--context",
        "--device-field",
        "--time-field",
    ] {
        assert!(help.contains(&format!("{option} <")), "{option}: {help}");
    }
    let text = table("timestamp,metric_value", |time, value| format!("{time},{value}"));
    let anomalies = |arguments: &[&str]| ended("a.csv", &text, arguments).1.lines().count();
    assert_eq!(anomalies(&[]), 1);
    for none in [["--min-std-dev", "50"], ["--min-relative-std-dev", "2"], ["--threshold", "1e5"]] {
        assert_eq!(anomalies(&none), 0, "{none:?}");
    }
    let (_, out, _) = ended("a.csv", &text, &["--context", "5", "--window", "40"]);
    let anomaly: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((anomaly["window"].as_array().unwrap().len(), &anomaly["window_count"]), (5, &Value::from(40)));
}

#[test]
fn people_get_a_table_and_programs_json_lines() {
    let text = table("device_id,timestamp,metric_value", |time, value| format!("pump \u{1b}[31m1,{time},{value}"));
    let (_, out, _) = ended("a.csv", &text, &["--output", "table"]);
    let shown = out.lines().collect::<Vec<_>>();
    assert_eq!(shown.len(), 2, "{out}");
    assert!(
        shown[0].starts_with("TIME ") && shown[1].starts_with("2026-11-23T17:50:00.000Z  pump \\u{1b}[31m1 "),
        "{out}"
    );
    assert!(shown[1].ends_with("critical") && shown[1].contains(" 90.5 "), "{out}");
    let (_, all, _) = ended("a.csv", &text, &["--output", "table", "--all"]);
    let of = |verdict: &str| all.lines().filter(|line| line.ends_with(verdict)).count();
    assert_eq!((of("  learning"), of("  normal"), of("  abnormal")), (30, 29, 1), "{all}");
    // On a terminal, which `script` makes.
    let (_dir, path) = file("a.csv", &text);
    let command = format!("{PROGRAM} score {path}");
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    // The progress is removed before the table begins.
    let (before, _) = shown.split_once("TIME    ").unwrap_or_else(|| panic!("{output:?}"));
    assert!(before.is_empty() || before.ends_with("\r\u{1b}[K"), "{output:?}");
    let (_, json, _) = ended("a.csv", &text, &[]);
    assert!(json.starts_with("{\"schema_version\""), "{json}");
}

/// The same values as a wide table, as an object and as an array of each record, and as one record each.
#[test]
fn several_values_of_a_record_are_judged_as_those_of_several_records() {
    let value = |i: i64, metric: i64| if i == 50 + metric { 90.0 } else { ((i * 7 + metric * 3) % 11) as f64 };
    let lines = |line: &dyn Fn(i64) -> String| (0..70).map(line).collect::<String>();
    let wide = format!("timestamp,state,a,b\n{}", lines(&|i| format!("{i},on,{},{}\n", value(i, 0), value(i, 1))));
    let narrow = |i: i64| format!("{i},a,{}\n{i},b,{}\n", value(i, 0), value(i, 1));
    let narrow = format!("timestamp,metric_name,metric_value\n{}", lines(&narrow));
    let object = lines(&|i| {
        format!("{{\"device_id\":\"f\",\"timestamp\":{i},\"s\":{{\"a\":{},\"b\":{}}}}}\n", value(i, 0), value(i, 1))
    });
    let array = lines(&|i| {
        let [a, b] = [("a", 0), ("b", 1)].map(|(name, at)| format!("{{\"n\":\"{name}\",\"v\":{}}}", value(i, at)));
        format!("{{\"device_id\":\"f\",\"timestamp\":{i},\"s\":[{a},{b}]}}\n")
    });
    let verdicts = |name: &str, text: &str, arguments: &[&str]| {
        let (code, out, errors) = ended(name, text, &[arguments, &["--all"]].concat());
        assert!(code == 0 && errors.contains("140 events accepted"), "{errors}");
        let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut sources = Vec::new();
        let verdicts = lines.map(|mut line| {
            let source = line["source"].take();
            sources.push((source["offset"].as_i64().unwrap(), source["index"].as_i64().unwrap()));
            line
        });
        (verdicts.collect::<Vec<_>>(), sources, errors)
    };
    let (expected, sources, _) = verdicts("f.csv", &narrow, &[]);
    assert!(sources == (0..140).map(|i| (i, 0)).collect::<Vec<_>>());
    assert_eq!(expected.iter().filter(|line| line["is_anomaly"] == true).count(), 2);
    let places = (0..140).map(|i| (i / 2, i % 2)).collect::<Vec<_>>();
    for (name, text, arguments) in [
        ("f.csv", &wide, &[][..]),
        ("f.jsonl", &object, &["--value-field", "s.*"]),
        ("f.jsonl", &array, &["--value-field", "s[*].v", "--metric-field", "s[*].n"]),
    ] {
        let (found, sources, errors) = verdicts(name, text, arguments);
        assert!(found == expected && sources == places, "{name} {arguments:?}");
        if name == "f.csv" {
            assert!(
                errors.contains("is a metric: a, b; columns without a number in the first row are skipped: state"),
                "{errors}"
            );
        }
    }
    let (code, _, errors) = ended("f.csv", &wide, &["--wide", "--value-field", "a"]);
    assert!(code == 64 && errors.contains("--wide"), "{errors}");
}
