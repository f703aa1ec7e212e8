//! `anomaly demo` shows anomalies within seconds, ends on request, and leaves no files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::common::{Ended, Process, free_port, get, program, wait_for};

/// Timeout from the signal to the exit.
const END: Duration = Duration::from_secs(20);
/// Timeout from the start to the first anomalies.
const START: Duration = Duration::from_secs(120);

struct Demo {
    process: Process,
    _dir: tempfile::TempDir,
}

impl Demo {
    /// Starts the demo in its own process group, as a shell does.
    fn start() -> Demo {
        Demo::of(&["--rate", "1000", "--devices", "20"], &[])
    }

    fn of(arguments: &[&str], variables: &[(&str, &str)]) -> Demo {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let address = format!("127.0.0.1:{port}");
        let mut command = program(&["demo", "--listen", &address]);
        command.args(arguments).envs(variables.iter().copied()).process_group(0);
        Demo { process: Process::start(&mut command, dir.path().join("demo.log"), port), _dir: dir }
    }

    /// Returns the lines that report an anomaly; they begin with a time of day.
    fn anomalies(&self) -> Vec<String> {
        let is_timed = |line: &&str| line.as_bytes().get(2) == Some(&b':') && line.contains(" is outside ");
        self.process.log().lines().filter(is_timed).map(str::to_owned).collect()
    }

    /// Returns the directory that contains all files, according to the demo.
    fn directory(&self) -> PathBuf {
        let log = self.process.log();
        let after = log.split_once("private, in ").unwrap_or_else(|| panic!("no directory in:\n{log}")).1;
        PathBuf::from(after.split_once(": removed at the end").unwrap().0)
    }

    fn get(&self, path: &str) -> String {
        let (status, body) = get(self.process.port, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Sends a signal to every process of the group, as Ctrl-C does.
    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.process.child.id() as i32).unwrap();
        kill_process_group(group, signal).unwrap();
    }

    fn wait_for_anomalies(&self) {
        wait_for("anomalies on standard output", START, || !self.anomalies().is_empty());
    }

    /// Checks that the demo ends in time with exit code 0, and leaves neither process nor file.
    fn ends_cleanly_on(mut self, signal: Signal) {
        let directory = self.directory();
        assert!(directory.file_name().unwrap().to_str().unwrap().starts_with("anomaly-demo-"));
        let running = processes_in(&directory);
        assert!(running.len() > 1, "its PostgreSQL was not found: {running:?}");
        self.signal(signal);
        let status = self.process.exit(END);
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
        assert_eq!(processes_in(&directory), Vec::<String>::new());
        assert!(!directory.exists(), "{} is left", directory.display());
        let log = self.process.log();
        // A notice says what is worth knowing, such as that the times of a file are long ago.
        let is_complaint =
            |line: &&str| (line.contains(" WARN ") && !line.contains(" WARN notice: ")) || line.contains("ERROR");
        let complaints = log.lines().filter(is_complaint).collect::<Vec<_>>();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// Returns the command lines of processes that work in a directory.
fn processes_in(directory: &Path) -> Vec<String> {
    let works_there =
        |entry: &PathBuf| std::fs::read_link(entry.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let there = entries.filter(works_there);
    there.map(|entry| std::fs::read_to_string(entry.join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
}

#[test]
fn it_shows_anomalies_on_output_pages_and_api_and_an_interrupt_removes_everything() {
    let demo = Demo::start();
    demo.wait_for_anomalies();
    let log = demo.process.log();
    assert!(log.contains("in memory") && log.contains("it forgets everything"), "{log}");
    assert!(log.contains(&format!("http://127.0.0.1:{}/", demo.process.port)), "{log}");
    wait_for("an anomaly that is marked as injected", START, || {
        demo.anomalies().iter().any(|line| line.contains("  [injected: "))
    });
    let line = demo.anomalies().remove(0);
    let device = line.split_whitespace().nth(2).unwrap().to_owned();
    wait_for("the anomaly in the API", START, || {
        let api = serde_json::from_str::<serde_json::Value>(&demo.get("/api/v1/anomalies?limit=100")).unwrap();
        api["anomalies"].as_array().unwrap().iter().any(|anomaly| anomaly["device_id"] == device.as_str())
    });
    assert!(demo.get("/anomalies").contains(&device), "the list does not show {device}");
    wait_for("the overview to tell of anomalies", START, || demo.get("/").contains("Detecting."));
    demo.ends_cleanly_on(Signal::INT);
}

#[test]
fn a_termination_removes_everything_too() {
    let demo = Demo::start();
    demo.wait_for_anomalies();
    demo.ends_cleanly_on(Signal::TERM);
}

#[test]
fn a_hurried_second_interrupt_and_a_lost_terminal_remove_everything_too() {
    let demo = Demo::start();
    demo.wait_for_anomalies();
    let directory = demo.directory();
    demo.signal(Signal::INT);
    demo.signal(Signal::INT);
    let mut process = demo.process;
    assert_eq!(process.exit(END).code(), Some(0), "{}", process.log());
    assert!(!directory.exists(), "{} is left", directory.display());
    let demo = Demo::start();
    demo.wait_for_anomalies();
    demo.ends_cleanly_on(Signal::HUP);
}

#[test]
fn it_ends_by_itself_when_its_output_is_closed() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = program(&["demo", "--listen", &address, "--rate", "1000", "--devices", "20"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let directory = lines.find_map(|line| {
        let rest = line.split_once("private, in ")?.1.to_owned();
        Some(PathBuf::from(rest.split_once(": removed at the end")?.0))
    });
    let directory = directory.unwrap();
    drop(lines);
    let mut code = None;
    wait_for("the demo to end", START, || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(code.unwrap().code(), Some(0), "{err}");
    assert!(!err.contains("panicked") && !directory.exists(), "{err}");
}

#[test]
fn a_port_in_use_is_reported_before_anything_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let demo = Ended::of(&mut program(&["demo", "--listen", &address]));
    assert_eq!(demo.code, Some(69), "{}", demo.err);
    assert!(demo.err.contains(&address), "{}", demo.err);
    assert_eq!(demo.out, "");
}

/// Returns fifty usual values of two ovens, then a high one of the second, a minute apart, long ago.
fn readings() -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    writeln!(file, "at,oven,celsius").unwrap();
    for i in 0..50 {
        for oven in ["north", "south"] {
            let celsius = if (i, oven) == (49, "south") { 999.0 } else { 200.0 + f64::from(i % 5) };
            writeln!(file, "2014-04-01 00:{i:02}:00,{oven},{celsius}").unwrap();
        }
    }
    file
}

const COLUMNS: [&str; 6] = ["--device-field", "oven", "--value-field", "celsius", "--time-field", "at"];

#[test]
fn a_users_file_is_judged_and_its_pages_are_named_and_stay() {
    let file = readings();
    let demo = Demo::of(&[&["--file", file.path().to_str().unwrap()], &COLUMNS[..]].concat(), &[]);
    let whole = "was sent whole: 100 events of 2 devices\n";
    wait_for("the end of the file", START, || demo.process.log().contains(whole));
    let found = "2014-04-01T00:49:00.000Z  critical south value 999 is outside ";
    wait_for("the anomaly", START, || demo.process.log().contains(found));
    let log = demo.process.log();
    let link = log.lines().find_map(|line| line.split_once("its times: http://127.0.0.1:")).unwrap().1;
    let path = &link[link.find('/').unwrap()..];
    assert_eq!(path, "/?from=2014-04-01T00:00:00.000Z&to=2014-04-01T00:50:00.000Z");
    wait_for("the anomaly on the page", START, || demo.get(path).contains("south"));
    demo.ends_cleanly_on(Signal::INT);
}

#[test]
fn variables_choose_what_the_demo_judges_unless_an_option_does() {
    let file = readings();
    let mut variables = vec![
        ("ANOMALY__PRODUCER__SOURCE", "replay"),
        ("ANOMALY__PRODUCER__FILE", file.path().to_str().unwrap()),
        ("ANOMALY__FIELDS__DEVICE", "oven"),
        ("ANOMALY__FIELDS__VALUE", "celsius"),
        ("ANOMALY__FIELDS__TIME", "at"),
        // Of another installation: the demo makes its own.
        ("ANOMALY__KAFKA__BOOTSTRAP_SERVERS", "nowhere:1"),
        ("ANOMALY__POSTGRES__PORT", "1"),
    ];
    let demo = Demo::of(&[], &variables);
    wait_for("the anomaly", START, || demo.process.log().contains("critical south value 999"));
    demo.ends_cleanly_on(Signal::INT);
    variables[0].1 = "generate";
    variables.push(("ANOMALY__PRODUCER__INTERVAL", "100ms"));
    let demo = Demo::of(&["--host"], &variables[..1]);
    let devices = || get(demo.process.port, "/devices").is_some_and(|(_, page)| page.contains("/devices/"));
    wait_for("this machine's metrics", START, devices);
    assert!(demo.process.log().contains("this machine's own metrics"), "{}", demo.process.log());
    demo.ends_cleanly_on(Signal::INT);
}

#[test]
fn a_file_that_cannot_be_judged_is_reported_with_the_options_that_help() {
    let file = readings();
    let file = file.path().to_str().unwrap();
    let lines = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(lines.path(), "{\"v\":1}\n").unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    for (arguments, code, says) in [
        (vec!["--file", "/nowhere.csv"], 66, "/nowhere.csv"),
        (vec!["--file", file], 65, "--value-field"),
        (vec!["--file", lines.path().to_str().unwrap()], 65, "--value-field"),
        (vec!["--file", file, "--host"], 64, "--host"),
        (vec!["--file", file, "--value-field", "a", "--time-field", "a"], 64, "the same field"),
    ] {
        let ended = Ended::of(program(&["demo", "--listen", &address]).args(&arguments));
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(says), "{arguments:?}: {}", ended.err);
    }
}
