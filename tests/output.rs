//! Tests of every command's output when its reader disappears, when the disk is full, and when neither output can be
//! written. The result is a sentence and an exit code, never a panic.

use std::fs::OpenOptions;
use std::io::{Read, pipe};
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::common::{Case, Ended, Process, event, free_port, program, wait};

/// Returns a device that refuses each write, as a full disk does.
fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// Returns a pipe whose reader has closed it.
fn without_reader() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Returns every command that prints something and ends by itself, over a case that has data to print.
fn commands(case: &Case) -> Vec<Command> {
    let file = case.dir.path().join("readings.csv");
    let rows = (0..200).map(|i| format!("{i}\n")).collect::<String>();
    std::fs::write(&file, format!("metric_value\n{rows}")).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let users = case.dir.path().join("users").to_str().unwrap().to_owned();
    let all: [&[&str]; 15] = [
        &["--help"],
        &["--version"],
        &["score", "--help"],
        &["generate", "man"],
        &["generate", "bash"],
        &["score", "--all", &file],
        &["check"],
        &["check", "--connect"],
        &["check", "--role", "detector", "--configured"],
        &["migrate"],
        &["topics"],
        &["status"],
        &["dlq", "replay", "--dry-run"],
        &["offsets"],
        &["passwd", "ada", "--file", &users],
    ];
    all.map(|arguments| {
        let mut command = match arguments[0] {
            // It prints a note if it gets a settings directory.
            "score" => program(arguments),
            _ => case.command(arguments),
        };
        if arguments[0] == "passwd" {
            let (reader, mut writer) = pipe().unwrap();
            std::io::Write::write_all(&mut writer, b"correct horse battery\n").unwrap();
            command.stdin(reader);
        }
        command
    })
    .into()
}

fn run(mut command: Command, out: Stdio, err: Stdio) -> (String, Ended) {
    let child = command.stdout(out).stderr(err).spawn().unwrap();
    (format!("{:?}", command.get_args().collect::<Vec<_>>()), Ended::from(child.wait_with_output().unwrap()))
}

#[test]
fn a_closed_output_ends_every_command_quietly() {
    let case = Case::new("no_reader");
    for command in commands(&case) {
        let (what, ended) = run(command, without_reader(), Stdio::piped());
        assert_eq!(ended.code, Some(0), "{what}: {}", ended.err);
        assert_eq!(ended.err, "", "{what}");
    }
}

#[test]
fn every_command_reports_a_full_disk_in_a_sentence() {
    let case = Case::new("full_disk");
    for command in commands(&case) {
        let (what, ended) = run(command, full_disk(), Stdio::piped());
        assert_eq!(ended.code, Some(74), "{what}: {}", ended.err);
        assert!(
            ended.err.contains("cannot write to standard output: No space left on device"),
            "{what}: {}",
            ended.err
        );
        assert_eq!(ended.err.lines().count(), 1, "{what}: {}", ended.err);
    }
}

#[test]
fn the_exit_code_is_right_when_standard_error_cannot_be_written() {
    let case = Case::new("mute");
    for command in commands(&case) {
        let (what, ended) = run(command, Stdio::null(), full_disk());
        assert_eq!(ended.code, Some(0), "{what}");
    }
    let wrong: [(&[&str], i32); 4] = [
        (&["--nonsense"], 64),
        (&["score", "/nowhere/readings.csv"], 66),
        (&["dlq", "show", "0:1"], 66),
        (&["check", "--config", "/nowhere"], 78),
    ];
    for (arguments, code) in wrong {
        for err in [full_disk(), without_reader()] {
            let command = if arguments.contains(&"--config") { program(arguments) } else { case.command(arguments) };
            let (what, ended) = run(command, Stdio::null(), err);
            assert_eq!(ended.code, Some(code), "{what}");
        }
    }
}

#[test]
fn a_role_whose_log_cannot_be_written_continues() {
    let case = Case::new("mute_role");
    let port = free_port();
    let mut command = case.command(&["--role", "detector"]);
    command.env("ANOMALY__METRICS__LISTEN", format!("127.0.0.1:{port}")).env("ANOMALY__LOG__LEVEL", "debug");
    let child = command.stdout(full_disk()).stderr(full_disk()).spawn().unwrap();
    let role = Process { child, log: case.dir.path().join("none"), port };
    wait("the detector to be ready", || role.get("/readyz").is_some_and(|(status, _)| status == 200));
    assert!(role.terminate(Duration::from_secs(20)).success());
}

#[test]
fn failed_checks_are_counted_when_the_output_is_closed() {
    let mut case = Case::new("unread");
    case.set("POSTGRES__SCHEMA", "nowhere_at_all");
    let mut child =
        case.command(&["check", "--connect"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(69), "{}", ended.err);
}

/// A foreign name that tries to begin a line, clear the screen, and turn the text.
const HOSTILE: &str = "pump\n2026-11-29T00:00:00.000000Z ERROR forged\u{1b}[2J\u{202e}";

#[test]
fn a_name_with_a_newline_forges_no_line_of_the_log() {
    let case = Case::new("one_line");
    let values = (0..40).map(f64::from).chain([1e6]);
    case.produce(values.map(|value| event(HOSTILE, value)));
    let detector = case.detector("a", &[("LOG__ANOMALIES_PER_SECOND", "10")]);
    wait("the anomaly in the log", || detector.log().contains("forged"));
    let log = detector.log();
    let lines = log.lines().filter(|line| line.contains("forged")).collect::<Vec<_>>();
    for line in &lines {
        assert!(!line.starts_with("2026-11-29T00:00:00.000000Z"), "{line}");
        assert!(line.contains(r"pump\n2026") && line.contains(r"\u{1b}[2J\u{202e}"), "{line}");
    }
    assert_eq!(lines.len(), 1, "{log}");
    assert!(!log.contains(['\u{1b}', '\u{202e}']), "{log}");
}

/// Checks that no line of an output begins with the forged text, and that nothing reaches the terminal unescaped.
#[track_caller]
fn is_guarded(what: &str, output: &str) {
    assert!(output.contains("forged"), "{what} does not name it:\n{output}");
    for line in output.lines() {
        assert!(!line.trim_start().starts_with("2026-11-29T00:00:00.000000Z"), "{what}:\n{output}");
    }
    assert!(!output.contains(['\u{1b}', '\u{202e}']), "{what}:\n{output}");
}

#[test]
fn a_name_in_an_error_of_any_command_stays_in_its_line() {
    let file = format!("/nowhere/{HOSTILE}");
    let braces = format!("{{{HOSTILE}");
    let commands: [&[&str]; 13] = [
        &["score", &file],
        // Errors of the parser of the command line.
        &[HOSTILE],
        &["score", "-", HOSTILE],
        &["score", &format!("--{HOSTILE}")],
        &["score", "--window", HOSTILE],
        &["score", "--format", HOSTILE],
        &["dlq", "list", "--class", HOSTILE],
        // Other errors of usage.
        &["score", "--time-zone", HOSTILE],
        &["score", "--device-field", &braces],
        &["check", "--user", HOSTILE],
        &["check", "--config", &file],
        &["passwd", "ada", "--remove", "--file", &file],
        &["passwd", HOSTILE, "--remove", "--file", "/dev/null"],
    ];
    for arguments in commands {
        let ended = Ended::of(&mut program(arguments));
        assert!([Some(64), Some(66), Some(78)].contains(&ended.code), "{arguments:?}: {}", ended.err);
        if ended.err.contains("forged") {
            is_guarded(&format!("{arguments:?}"), &ended.err);
        }
    }
    let ended = Ended::of(program(&["check"]).env(format!("ANOMALY__{HOSTILE}"), "1"));
    assert_eq!(ended.code, Some(78), "{}", ended.err);
    is_guarded("a variable", &ended.err);
    // A value with control characters is refused, and not repeated.
    for name in ["ANOMALY__POSTGRES__PASSWORD_FILE", "ANOMALY__POSTGRES__HOST"] {
        let ended = Ended::of(program(&["check"]).env(name, &file));
        assert_eq!(ended.code, Some(78), "{name}: {}", ended.err);
        assert!(ended.err.contains("without control characters") && !ended.err.contains("forged"), "{}", ended.err);
    }
    let ended = Ended::of(program(&["check"]).env("ANOMALY__POSTGRES__HOST", "gnp.\u{202e}exe"));
    assert!(ended.out.contains("gnp.\\u{202e}exe"), "{}", ended.out);
}

#[test]
fn foreign_names_stay_in_their_cells_of_every_table() {
    let mut case = Case::new("cells");
    // The settings refuse control characters. Direction controls are none.
    case.set("DETECTOR__GROUP", HOSTILE.replace(char::is_control, " "));
    let detector = case.detector("a", &[]);
    detector.wait_ready();
    wait("the heartbeat", || case.count("detector_status") > 0);
    is_guarded("status", &case.ok(&["status"]));
    drop(detector);
    case.dead_letter(&[("anomaly.error.class", HOSTILE), ("anomaly.error.message", HOSTILE), (HOSTILE, HOSTILE)]);
    is_guarded("dlq list", &case.ok(&["dlq", "list"]));
    let place = (0..4).map(|partition| format!("{partition}:0"));
    let shown = place.map(|place| case.run(&["dlq", "show", &place])).find(|shown| shown.status.success()).unwrap();
    is_guarded("dlq show", &String::from_utf8(shown.stdout).unwrap());
}

impl Case {
    /// Sends a dead letter with these headers, as another program could write it.
    fn dead_letter(&self, headers: &[(&str, &str)]) {
        let producer: BaseProducer = self.client().create().unwrap();
        let add = |all: OwnedHeaders, (key, value): &(&str, &str)| all.insert(Header { key, value: Some(*value) });
        let all = headers.iter().fold(OwnedHeaders::new(), add);
        let topic = self.dlq();
        producer.send(BaseRecord::<str, str>::to(&topic).key(HOSTILE).payload(HOSTILE).headers(all)).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
    }
}
