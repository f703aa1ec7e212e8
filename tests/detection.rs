//! The command `anomaly score` with the method `adaptive`, on series whose figures were computed by another program.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{PROGRAM, root};

/// The lanes in the evidence, and their columns.
const LANES: [&str; 4] = ["spike", "season", "stuck", "regime"];
/// Greatest accepted difference of a lane's score.
const TOLERANCE: f64 = 1e-8;

/// The series with their figures are next to the repository on development machines.
fn vectors() -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(root().join("../shared/detection/vectors")) else { return Vec::new() };
    files.map(|file| file.unwrap().path()).collect()
}

/// Judges the rows of a file of vectors, and returns the rows with the lines of the result.
fn judged(path: &std::path::Path) -> Vec<(csv::StringRecord, Value)> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let rows = reader.records().map(Result::unwrap).collect::<Vec<_>>();
    let event = |row: &csv::StringRecord| {
        let seconds = row[0].parse::<f64>().unwrap();
        json!({"device_id": "d", "metric_value": row[1].parse::<f64>().unwrap(), "timestamp": (seconds * 1_000.0) as i64})
    };
    let text = rows.iter().map(|row| format!("{}\n", event(row))).collect::<String>();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["score", "--all", "--method", "adaptive", file.path().to_str().unwrap()]).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    let lines = lines.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    assert_eq!(lines.len(), rows.len());
    rows.into_iter().zip(lines).collect()
}

#[test]
fn the_lanes_of_adaptive_and_its_episodes_are_those_of_the_reference() {
    let files = vectors();
    if files.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "CI has the vectors in ../shared/detection");
        eprintln!("skipped: the vectors are not next to this repository");
        return;
    }
    let (mut compared, mut opened) = (0, 0);
    for path in files {
        for (at, (row, line)) in judged(&path).into_iter().enumerate() {
            let place = format!("{} row {at}: {line}", path.display());
            let opens = &row[6] == "1";
            assert_eq!(line["opens"].as_bool().unwrap_or_default(), opens, "{place}");
            opened += usize::from(opens);
            for (lane, column) in LANES.into_iter().zip([2, 3, 5, 4]) {
                let Some(found) = line["evidence"][lane].as_f64() else { continue };
                let expected = row[column].parse::<f64>().unwrap();
                assert!((found - expected).abs() <= TOLERANCE * expected.abs().max(1.0), "{lane} {expected} {place}");
                compared += 1;
            }
        }
    }
    assert!(compared > 180_000 && opened > 40, "{compared} figures, {opened} episodes");
}
