//! Tests of what administrators rely on: notifications of the service manager, signals, reload, exit codes, messages,
//! metrics.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anomaly::config::schema::{self, ShippedFile};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use super::common::{Case, Ended, Manager, Parts, Process, Sent, event, free_port, get, program, root, wait_for};

/// Timeout for everything that a role or a command does in these tests.
const TIMEOUT: Duration = Duration::from_secs(120);
const EVENTS: usize = 300;

/// Settings of a small detector without a database.
const SMALL: [(&str, &str); 2] = [("SINK__ENABLED", "false"), ("DETECTOR__WORKERS", "1")];

// ---- Notifications to the service manager ----

/// Starts a role that notifies a manager. It does not need the box unless `case` does.
fn notifying(case: &Case, role: &str, settings: &[(&str, &str)]) -> (Manager, Process) {
    let manager = Manager::new(case.dir.path());
    let process = case.role(role, &[settings, &[("NOTIFY_SOCKET", manager.socket())]].concat());
    (manager, process)
}

/// Returns a case without Kafka and PostgreSQL.
fn alone(name: &str) -> Case {
    let mut case = Case::bare(name, Parts::shared());
    case.set("KAFKA__BOOTSTRAP_SERVERS", format!("127.0.0.1:{}", free_port()));
    case.set("POSTGRES__PORT", free_port());
    case
}

/// Returns the last STATUS= before READY=1.
fn status_at_ready(manager: &Manager) -> String {
    let heard = manager.heard();
    let ready = heard.iter().position(|(_, text)| text.trim() == "READY=1").unwrap();
    let status = heard[..ready].iter().rev().find_map(|(_, text)| text.strip_prefix("STATUS="));
    status.unwrap_or_default().trim().to_owned()
}

/// Sends SIGTERM or SIGINT, and expects STOPPING=1 and exit code 0.
fn stops_well_on(signal: Signal, manager: &Manager, mut process: Process) {
    assert!(!manager.has("STOPPING=1"));
    process.signal(signal);
    let status = process.exit(TIMEOUT);
    assert_eq!(status.code(), Some(0), "{}", process.log());
    manager.wait("STOPPING=1");
}

#[test]
fn a_detector_is_ready_when_it_serves_feeds_the_watchdog_and_says_when_it_stops() {
    let case = Case::topics("daemon_ready");
    let watchdog = ("WATCHDOG_USEC", "2000000");
    let (manager, detector) = notifying(&case, "detector", &[&SMALL[..], &[watchdog]].concat());
    manager.wait("READY=1");
    wait_for("the answer to be as good", TIMEOUT, || detector.get("/readyz").unwrap().0 == 200);
    assert!(status_at_ready(&manager).starts_with("running: 4 partitions"), "{:?}", manager.heard());
    wait_for("the watchdog to be fed three times", TIMEOUT, || manager.count("WATCHDOG=1") >= 3);
    stops_well_on(Signal::TERM, &manager, detector);
    assert_eq!(manager.count("READY=1"), 1);
}

#[test]
fn a_detector_without_a_broker_is_ready_but_degraded_after_the_timeout_and_stops_in_time() {
    let case = alone("daemon_degraded");
    let began = Instant::now();
    let settings = [("SERVICE__READY_TIMEOUT", "2s"), ("SERVICE__DRAIN_TIMEOUT", "1s")];
    let (manager, mut detector) = notifying(&case, "detector", &[&SMALL[..], &settings].concat());
    manager.wait("READY=1");
    assert!(began.elapsed() >= Duration::from_secs(2), "ready after {:?}", began.elapsed());
    assert!(manager.count("EXTEND_TIMEOUT_USEC=10000000") >= 1, "{:?}", manager.heard());
    assert!(status_at_ready(&manager).starts_with("degraded: "), "{:?}", manager.heard());
    assert_eq!(detector.get("/healthz").unwrap().0, 200);
    wait_for("the reason", TIMEOUT, || {
        let (status, body) = detector.get("/readyz").unwrap();
        assert_eq!(status, 503);
        body.starts_with("degraded: worker-0: ") && manager.has(&format!("STATUS={}", body.trim()))
    });
    detector.signal(Signal::TERM);
    assert_eq!(detector.exit(Duration::from_secs(15)).code(), Some(0), "{}", detector.log());
    manager.wait("STOPPING=1");
}

#[test]
fn a_dashboard_is_ready_once_it_is_bound_also_without_a_database_and_an_interrupt_ends_it() {
    let case = alone("daemon_pages");
    let port = free_port();
    let (manager, dashboard) = notifying(&case, "dashboard", &[("DASHBOARD__LISTEN", &format!("127.0.0.1:{port}"))]);
    manager.wait("READY=1");
    let (status, body) = get(port, "/").expect("pages behind READY=1");
    assert!(status == 503 && body.contains("PostgreSQL"), "{status} {body}");
    assert_eq!(status_at_ready(&manager), "running");
    stops_well_on(Signal::INT, &manager, dashboard);
}

#[test]
fn a_producer_is_ready_after_the_first_delivery() {
    let case = Case::topics("daemon_producer");
    let (manager, producer) = notifying(&case, "producer", &[("PRODUCER__RATE", "20")]);
    manager.wait("READY=1");
    assert!(!case.read(&case.raw()).is_empty(), "nothing was delivered yet");
    assert_eq!(status_at_ready(&manager), "running");
    stops_well_on(Signal::TERM, &manager, producer);
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let case = alone("daemon_watchdog");
    let settings = [("WATCHDOG_USEC", "400000"), ("WATCHDOG_PID", "1"), ("DASHBOARD__LISTEN", "127.0.0.1:0")];
    let (manager, dashboard) = notifying(&case, "dashboard", &settings);
    manager.wait("READY=1");
    stops_well_on(Signal::TERM, &manager, dashboard);
    assert_eq!(manager.count("WATCHDOG=1"), 0);
}

#[test]
fn a_reload_applies_a_new_level_keeps_the_old_settings_when_the_new_are_wrong_and_notifies_the_manager() {
    let case = alone("daemon_reload");
    let port = free_port();
    let file = case.dir.path().join("dashboard.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("[log]\nlevel = \"error\"\n");
    let (manager, dashboard) = notifying(&case, "dashboard", &[("DASHBOARD__LISTEN", &format!("127.0.0.1:{port}"))]);
    manager.wait("READY=1");
    assert_eq!(dashboard.log(), "", "level error");
    let mut ready = 1;
    let mut reload = |text: &str| {
        write(text);
        dashboard.signal(Signal::HUP);
        ready += 1;
        wait_for("READY=1 after the reload", TIMEOUT, || manager.count("READY=1") == ready);
        dashboard.log()
    };

    let log = reload("[log]\nlevel = \"loud\"\n");
    assert!(log.contains("settings not reloaded") && log.contains("dashboard.toml:2:9"), "{log}");
    assert_eq!(get(port, "/healthz-of-pages").unwrap().0, 404, "it still serves");

    std::fs::write(case.dir.path().join("site.toml"), "").unwrap();
    let log = reload("[log]\nlevel = \"info\"\n");
    assert!(log.contains("INFO settings reloaded"), "the new level is not in force:\n{log}");
    assert!(log.contains("WARN") && log.contains("site.toml is not read"), "{log}");

    let log = reload("[log]\nlevel = \"info\"\n[dashboard]\nrefresh = \"9s\"\n");
    assert!(log.contains("these take effect after a restart: dashboard.refresh"), "{log}");

    let heard = manager.heard();
    let reloading = heard.iter().filter(|(_, text)| text.starts_with("RELOADING=1\nMONOTONIC_USEC=")).count();
    assert_eq!(reloading, 3, "{heard:?}");
    let order = heard.iter().map(|(_, text)| text.lines().next().unwrap_or_default());
    let order = order.filter(|line| ["RELOADING=1", "READY=1"].contains(line)).collect::<Vec<_>>();
    assert_eq!(order, ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1"]);
    stops_well_on(Signal::TERM, &manager, dashboard);
}

// ---- Exit codes and messages ----

fn run(arguments: &[&str]) -> Ended {
    Ended::of(&mut program(arguments))
}

/// Creates a settings directory with one file.
fn settings(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("common.toml"), text).unwrap();
    dir
}

fn path(dir: &tempfile::TempDir) -> &str {
    dir.path().to_str().unwrap()
}

/// Returns the message of both the role and the check about wrong settings.
fn refused(dir: &str) -> String {
    let [role, check] =
        [run(&["--role", "detector", "--config", dir]), run(&["check", "--role", "detector", "--config", dir])];
    assert_eq!((role.code, check.code), (Some(78), Some(78)), "{}\n{}", role.err, check.err);
    assert_eq!(role.err, check.err, "role and check say the same");
    assert_eq!(check.out, "", "nothing in force is printed");
    role.err
}

#[test]
fn five_wrong_settings_are_shown_at_once_with_place_caret_and_the_nearest_name() {
    let dir = settings(
        "[detector]\nwindw = 5\nwindow = \"x\"\nthreshold = -1.0\nmethod = \"magic\"\n\n[postgres]\nport = 99999\n",
    );
    let err = refused(path(&dir));
    for place in ["2:1", "3:10", "4:13", "5:10", "8:8"] {
        let place = format!("{}/common.toml:{place}\n", path(&dir));
        assert!(err.contains(&place), "{place} in:\n{err}");
    }
    let carets = err.lines().filter(|line| line.contains('^')).collect::<Vec<_>>();
    assert_eq!(carets.len(), 5, "{err}");
    assert!(err.contains("did you mean `detector.window`?") && err.contains("5 problems"), "{err}");
    // The caret stands under the value.
    let (line, caret) = err.lines().zip(err.lines().skip(1)).find(|(line, _)| line.contains("99999")).unwrap();
    assert_eq!(line.find("99999"), caret.find('^'), "{err}");
}

#[test]
fn settings_that_cannot_be_read_are_named_and_an_empty_file_is_fine() {
    let dangling = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/nowhere/common.toml", dangling.path().join("common.toml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("detector.toml")).unwrap();
    for (dir, name) in [(&dangling, "common.toml"), (&directory, "detector.toml")] {
        let err = refused(path(dir));
        assert!(err.contains(&format!("cannot read {}/{name}", path(dir))), "{err}");
    }
    assert!(refused("/nowhere/at/all").contains("/nowhere/at/all"));
    let empty = settings("");
    let check = run(&["check", "--config", path(&empty)]);
    assert_eq!(check.code, Some(0), "{}", check.err);
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    let dir = settings("");
    for arguments in [&["check", "--config", path(&dir)][..], &["--role", "producer", "--config", path(&dir)]] {
        let end = Ended::of(program(arguments).env("ANOMALY__DETECTOR__TRESHOLD", "4"));
        assert_eq!(end.code, Some(78), "{}", end.err);
        assert!(end.err.contains("ANOMALY__DETECTOR__TRESHOLD"), "{}", end.err);
        assert!(end.err.contains("did you mean ANOMALY__DETECTOR__THRESHOLD?"), "{}", end.err);
    }
}

#[test]
fn wrong_usage_exits_with_64_and_no_argument_prints_the_help() {
    let nothing = run(&[]);
    assert_eq!(nothing.code, Some(64));
    assert!(nothing.err.contains("Usage: anomaly") && nothing.err.contains("migrate"), "{}", nothing.err);
    for arguments in [&["--frobnicate"][..], &["--role", "janitor"], &["frobnicate"], &["score", "--window", "1"]] {
        let end = run(arguments);
        assert_eq!(end.code, Some(64), "{arguments:?}: {}", end.err);
        assert!(end.err.contains(arguments[arguments.len() - 1]), "{arguments:?}: {}", end.err);
    }
    let both = run(&["--role", "detector", "topics"]);
    assert_eq!(both.code, Some(64));
    assert!(both.err.contains("goes with no command"), "{}", both.err);
}

#[test]
fn a_missing_file_exits_with_66() {
    let end = run(&["score", "nowhere/to/be.csv"]);
    assert_eq!((end.code, end.out.as_str()), (Some(66), ""));
    assert!(end.err.contains("cannot read nowhere/to/be.csv"), "{}", end.err);
}

#[test]
fn version_and_help_list_the_version_and_every_command() {
    let version = run(&["--version"]);
    assert_eq!((version.code, version.out), (Some(0), format!("anomaly {}\n", env!("CARGO_PKG_VERSION"))));
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["check", "score", "migrate", "topics", "status", "demo", "offsets"] {
        let has_line = help.out.lines().any(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert!(has_line, "{command} in:\n{}", help.out);
        assert_eq!(run(&[command, "--help"]).code, Some(0));
    }
    for role in ["producer", "detector", "dashboard", "--config"] {
        assert!(help.out.contains(role), "{role} in:\n{}", help.out);
    }
}

#[test]
fn a_port_in_use_exits_with_69_and_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (role, setting) in
        [("dashboard", "DASHBOARD__LISTEN"), ("dashboard", "METRICS__LISTEN"), ("producer", "METRICS__LISTEN")]
    {
        let case = alone("daemon_port");
        let mut process = case.role(role, &[("DASHBOARD__LISTEN", "127.0.0.1:0"), (setting, &address)]);
        assert_eq!(process.exit(TIMEOUT).code(), Some(69), "{setting}: {}", process.log());
        assert!(process.log().contains(&format!("cannot listen on {address}")), "{}", process.log());
    }
}

#[test]
fn logs_go_to_standard_error_and_syslog_must_be_there_when_it_is_asked_for() {
    let case = alone("daemon_log");
    let here = [("DASHBOARD__LISTEN", "127.0.0.1:0"), ("LOG__TARGET", "stderr")];
    let (manager, dashboard) = notifying(&case, "dashboard", &here);
    manager.wait("READY=1");
    assert!(dashboard.log().contains(" INFO dashboard starts version="), "{}", dashboard.log());
    drop(dashboard);
    if Path::new("/dev/log").exists() {
        return;
    }
    let mut dashboard = case.role("dashboard", &[here[0], ("LOG__TARGET", "syslog")]);
    assert_eq!(dashboard.exit(TIMEOUT).code(), Some(78), "{}", dashboard.log());
    assert!(dashboard.log().contains("log.target is \"syslog\", which cannot be reached"), "{}", dashboard.log());
}

// ---- anomaly check ----

/// Returns the line of a setting.
fn line<'a>(out: &'a str, path: &str) -> &'a str {
    let found = out.lines().find(|line| line.starts_with(&format!("{path} = ")));
    found.unwrap_or_else(|| panic!("no {path} in:\n{out}"))
}

#[test]
fn the_shipped_files_are_accepted_unchanged_and_every_setting_is_shown_with_its_origin() {
    let etc = root().join("etc");
    let etc = etc.to_str().unwrap();
    let all = run(&["check", "--config", etc]);
    assert_eq!(all.code, Some(0), "{}", all.err);
    for key in schema::keys() {
        assert!(line(&all.out, key.path).ends_with("# default"), "{}", line(&all.out, key.path));
    }
    assert_eq!(all.out.lines().count(), schema::keys().count(), "{}", all.out);
    for (role, file) in [
        ("producer", ShippedFile::Producer),
        ("detector", ShippedFile::Detector),
        ("dashboard", ShippedFile::Dashboard),
    ] {
        let check = run(&["check", "--role", role, "--config", etc]);
        assert_eq!(check.code, Some(0), "{}", check.err);
        let used = schema::keys().filter(|key| [file, ShippedFile::Common].contains(&key.file)).count();
        assert_eq!(check.out.lines().count(), used, "{role}:\n{}", check.out);
    }
}

#[test]
fn each_setting_shows_where_it_came_from_and_secrets_are_masked() {
    let dir = settings("[detector]\nwindow = 40\n[migrate]\npassword = \"hush-in-toml\"\n");
    let file = dir.path().join("password");
    std::fs::write(&file, "hush-in-file\n").unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    std::fs::write(dir.path().join("conf.d/10.toml"), "[log]\nlevel = \"warn\"\n").unwrap();
    let mut command = program(&["check", "--config", path(&dir)]);
    command.env("ANOMALY__POSTGRES__PASSWORD_FILE", &file).env("ANOMALY__DETECTOR__THRESHOLD", "4");
    command.env("ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD", "hush-in-variable");
    let check = Ended::of(&mut command);
    assert_eq!(check.code, Some(0), "{}", check.err);
    let common = format!("# {}/common.toml", path(&dir));
    for (key, value, origin) in [
        ("detector.window", "40", format!("{common}:2:10")),
        ("detector.threshold", "4.0", "# ANOMALY__DETECTOR__THRESHOLD".into()),
        ("detector.min_samples", "30", "# default".into()),
        ("log.level", "\"warn\"", format!("# {}/conf.d/10.toml:2:9", path(&dir))),
        ("postgres.password", "\"***\"", format!("# {}", file.display())),
        ("migrate.password", "\"***\"", format!("{common}:4:12")),
        ("kafka.properties.sasl.password", "\"***\"", "# ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD".into()),
    ] {
        let line = line(&check.out, key);
        assert!(
            line.starts_with(&format!("{key} = {value} ")) && line.ends_with(&origin),
            "{line}, not {value} {origin}"
        );
    }
    assert!(!format!("{}{}", check.out, check.err).contains("hush"), "{}", check.out);
}

#[test]
fn the_check_prints_the_limits_of_a_series_and_where_each_comes_from() {
    let dir = settings("[detector]\nwindow = 40\n");
    let check = run(&["check", "--series", "pump-1/temperature", "--config", path(&dir)]);
    assert_eq!((check.code, check.out.lines().count()), (Some(0), 7), "{}{}", check.out, check.err);
    assert!(line(&check.out, "window").ends_with(&format!("# {}/common.toml:2:10", path(&dir))), "{}", check.out);
    assert_eq!(
        line(&check.out, "threshold").split_whitespace().collect::<Vec<_>>(),
        ["threshold", "=", "3", "#", "default"]
    );
    let dir = settings("[[detector.override]]\ndevice = \"pump-*\"\nthreshold = 4\n");
    let check = run(&["check", "--series", "pump-1/temperature", "--config", path(&dir)]);
    assert!(line(&check.out, "threshold").contains("= 4"), "{}", check.out);
    assert!(line(&check.out, "threshold").contains("common.toml:3:13"), "{}", check.out);
}

// ---- With Kafka and PostgreSQL ----

/// Sends `EVENTS` normal values of one device, one abnormal value, and two records that are not events.
fn some_events(case: &Case) {
    let normal = (0..EVENTS).map(|i| event("pump", 20.0 + (i % 7) as f64 / 10.0));
    let bad = ["not JSON", r#"{"device_id":"pump"}"#].map(|text| Sent { value: Some(text.into()), ..Sent::default() });
    case.produce(normal.chain([event("pump", 90.0)]).chain(bad));
}

#[test]
fn topics_and_tables_are_created_once() {
    let case = Case::bare("daemon_twice", Parts::shared());
    for (what, first) in [("created", true), ("exists", false)] {
        let out = case.ok(&["topics"]);
        assert_eq!(
            out.lines().filter(|line| line.starts_with(what) && line.ends_with("(4 partitions)")).count(),
            4,
            "{out}"
        );
        let out = case.ok(&["migrate"]);
        assert_eq!(out.contains("applied "), first, "{out}");
        assert_eq!(out.contains("up to date"), !first, "{out}");
    }
    let out = case.ok(&["check", "--connect"]);
    let tried = out.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(tried >= 8 && !out.contains("FAILED"), "{out}");
}

#[test]
fn a_wrong_clock_dates_no_record_of_the_topics_that_the_detector_writes() {
    let case = Case::new("daemon_append_time");
    let state = case.raw().replace(".raw", ".state");
    for topic in [case.anomalies(), case.dlq(), state] {
        let producer: BaseProducer = case.client().create().unwrap();
        let record = BaseRecord::to(&topic).key("k").payload("v").partition(0).timestamp(1_000);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(60)).unwrap();
        let got = case.read(&topic);
        assert!(got.len() == 1 && got[0].timestamp > Some(1_700_000_000_000), "{topic}: {got:?}");
    }
}

#[test]
fn a_missing_topic_or_table_fails_the_check_with_its_remedy() {
    let case = Case::bare("daemon_missing", Parts::shared());
    let check = Ended::from(case.run(&["check", "--connect"]));
    assert_eq!(check.code, Some(69), "{}", check.out);
    let failed = check.out.lines().filter(|line| line.starts_with("FAILED")).collect::<Vec<_>>().join("\n");
    assert!(failed.contains(&case.raw()) && failed.contains("`anomaly topics`"), "{}", check.out);
    assert!(failed.contains("run `anomaly migrate`"), "{}", check.out);
}

#[test]
fn a_wrong_password_fails_the_commands_and_the_sink_but_the_detector_keeps_judging() {
    let mut case = Case::topics("daemon_password");
    let wrong = case.dir.path().join("wrong");
    std::fs::write(&wrong, "not-the-password").unwrap();
    case.set("POSTGRES__PASSWORD_FILE", wrong.display());
    for arguments in [&["check", "--connect"][..], &["migrate"], &["status"]] {
        let end = Ended::from(case.run(arguments));
        assert_eq!(end.code, Some(69), "{arguments:?}: {}{}", end.out, end.err);
        let said = if arguments[0] == "check" {
            end.out.lines().find(|line| line.starts_with("FAILED  PostgreSQL:")).unwrap_or_default().to_owned()
        } else {
            end.err
        };
        assert!(
            said.contains("password authentication failed") && said.contains("anomaly_user"),
            "{arguments:?}: {said}"
        );
    }
    some_events(&case);
    let detector = case.detector("password", &[("DETECTOR__WORKERS", "1")]);
    wait_for("the anomaly in Kafka", TIMEOUT, || !case.read(&case.anomalies()).is_empty());
    wait_for("the sink's reason", TIMEOUT, || {
        let (status, body) = detector.get("/readyz").unwrap_or_default();
        status == 503 && body.starts_with("degraded: sink: ") && body.contains("password authentication failed")
    });
    assert!(detector.terminate(TIMEOUT).success());
}

/// Returns every sample of a Prometheus text, and checks its format.
fn samples(text: &str) -> Vec<(String, f64)> {
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let word = comment.split(' ').next().unwrap();
            assert!(["HELP", "TYPE", "UNIT", "EOF"].contains(&word), "{line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let is_name = name.starts_with("anomaly_") && (name.ends_with('}') || !name.contains('{'));
        assert!(is_name, "{line}");
        samples.push((name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}"))));
    }
    samples
}

#[test]
fn the_metrics_and_the_status_report_the_outcomes() {
    let case = Case::new("daemon_metrics");
    some_events(&case);
    let detector = case.detector("metrics", &[("DETECTOR__WORKERS", "1")]);
    wait_for("one row", TIMEOUT, || detector.metric("anomaly_sink_rows_total{kind=\"inserted\"}") == 1.0);
    wait_for("both rejects", TIMEOUT, || case.read(&case.dlq()).len() == 2);
    wait_for("lag 0 in all partitions", TIMEOUT, || {
        let (_, text) = detector.get("/metrics").unwrap();
        let lag = samples(&text).into_iter().filter(|(name, _)| name.starts_with("anomaly_lag{"));
        lag.filter(|(_, lag)| *lag == 0.0).count() == 4
    });
    let (status, text) = detector.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let samples = samples(&text);
    let value = |name: &str| samples.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    for (name, expected) in [
        ("anomaly_events_total{kind=\"learning\"}", 30.0),
        ("anomaly_events_total{kind=\"normal\"}", EVENTS as f64 - 30.0),
        ("anomaly_events_total{kind=\"anomalous\"}", 1.0),
        ("anomaly_anomalies_total{kind=\"critical\"}", 1.0),
        ("anomaly_sink_rows_total{kind=\"inserted\"}", 1.0),
        ("anomaly_refused_values_total", 0.0),
        ("anomaly_split_series_total", 0.0),
        ("anomaly_ready", 1.0),
    ] {
        assert_eq!(value(name), Some(expected), "{name} in:\n{text}");
    }
    let sum = |prefix: &str| samples.iter().filter(|(n, _)| n.starts_with(prefix)).map(|(_, v)| v).sum::<f64>();
    assert_eq!(sum("anomaly_rejects_total{"), 2.0, "{text}");
    assert_eq!(
        samples.iter().filter(|(n, _)| n.starts_with("anomaly_rejects_total{")).count(),
        2,
        "two classes:\n{text}"
    );
    assert_eq!(sum("anomaly_series{"), 1.0, "{text}");
    // Records and, in the middle of none of them, no control records: no transaction wrote into this topic.
    assert_eq!(sum("anomaly_committed_offset{"), EVENTS as f64 + 3.0, "{text}");
    let committed = value("anomaly_transactions_total{kind=\"committed\"}").unwrap();
    assert!((1.0..=100.0).contains(&committed), "{text}");
    assert!(detector.terminate(TIMEOUT).success());
    status_shows_all_partitions(&case);
}

fn status_shows_all_partitions(case: &Case) {
    let out = case.ok(&["status"]);
    let rows = out.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>();
    assert_eq!(rows.len(), 4, "{out}");
    let mut committed = 0;
    for (partition, row) in rows.iter().enumerate() {
        assert_eq!(row[..3], [format!("{}-detector", case.name), case.raw(), partition.to_string()], "{out}");
        committed += row[3].parse::<usize>().unwrap();
        assert_eq!(row[4], "0", "lag in:\n{out}");
    }
    assert_eq!(committed, EVENTS + 3, "{out}");
}

#[test]
fn a_schema_newer_than_the_program_stops_the_sink_until_it_is_upgraded_and_nothing_else() {
    let case = Case::new("daemon_newer");
    case.sql()
        .batch_execute(
            "insert into refinery_schema_history (version, name, applied_on, checksum)
             values (900, 'from_the_future', '2031-01-01T00:00:00Z', '0')",
        )
        .unwrap();
    let end = Ended::from(case.run(&["migrate"]));
    assert_eq!(end.code, Some(78), "{}", end.err);
    assert!(end.err.contains("newer than this program"), "{}", end.err);
    some_events(&case);
    let detector = case.detector("newer", &[("DETECTOR__WORKERS", "1")]);
    wait_for("the anomaly in Kafka", TIMEOUT, || !case.read(&case.anomalies()).is_empty());
    wait_for("the sink's reason", TIMEOUT, || {
        let (status, body) = detector.get("/readyz").unwrap_or_default();
        status == 503 && body.contains("schema is version 900") && body.contains("upgrade anomaly")
    });
    assert_eq!((case.count("anomalies"), case.count("detector_status")), (0, 0));
    case.sql().batch_execute("delete from refinery_schema_history where version = 900").unwrap();
    wait_for("the row", TIMEOUT, || case.count("anomalies") == 1);
    assert!(detector.terminate(TIMEOUT).success());
}

#[test]
fn a_missing_password_is_reported_with_the_file_where_it_belongs() {
    let mut case = Case::new("daemon_missing");
    case.env.retain(|(name, _)| name != "ANOMALY__POSTGRES__PASSWORD_FILE");
    let detector = case.detector("missing", &[("DETECTOR__WORKERS", "1")]);
    wait_for("the sink's reason", TIMEOUT, || {
        let (status, body) = detector.get("/readyz").unwrap_or_default();
        status == 503 && body.contains("/etc/anomaly/credentials/postgres.password")
    });
    case.set("POSTGRES__PASSWORD_FILE", "/nowhere/password");
    let end = Ended::from(case.run(&["check"]));
    assert_eq!(end.code, Some(78), "{}", end.err);
    assert!(end.err.contains("/nowhere/password"), "{}", end.err);
}

/// Tests the command that the package's post-installation runs.
#[test]
fn a_role_reports_in_one_line_which_settings_it_still_needs() {
    let dir = settings("");
    let ask = |role: &str| Ended::of(&mut program(&["check", "--role", role, "--configured", "--config", path(&dir)]));
    for (role, needs) in [
        ("producer", &["kafka.bootstrap_servers"][..]),
        ("detector", &["kafka.bootstrap_servers", "postgres.password"]),
        ("dashboard", &["postgres.password"]),
    ] {
        let end = ask(role);
        assert_eq!((end.code, end.err.lines().count()), (Some(78), 1), "{}", end.err);
        assert!(needs.iter().all(|need| end.err.contains(need)), "{}", end.err);
    }
    std::fs::write(dir.path().join("common.toml"), "[kafka]\nbootstrap_servers = \"k:9092\"\n").unwrap();
    assert_eq!(["producer", "detector", "dashboard"].map(|role| ask(role).code), [Some(0), Some(78), Some(78)]);
    std::fs::create_dir(dir.path().join("credentials")).unwrap();
    std::fs::write(dir.path().join("credentials/postgres.password"), "hush\n").unwrap();
    assert_eq!(["producer", "detector", "dashboard"].map(|role| ask(role).code), [Some(0), Some(0), Some(0)]);
}

#[test]
fn tables_of_the_migrate_role_are_granted_to_the_services_role() {
    let mut case = Case::topics("daemon_owner");
    let owner = case.name.clone();
    let admin = std::fs::read_to_string(
        Path::new(case.parts.get("POSTGRES__PASSWORD_FILE")).with_file_name("postgres.password"),
    );
    let mut superuser = postgres::Config::new()
        .host(case.parts.get("POSTGRES__HOST"))
        .port(case.parts.get("POSTGRES__PORT").parse().unwrap())
        .user("postgres")
        .password(admin.unwrap().trim())
        .dbname("anomalies_db")
        .connect(postgres::NoTls)
        .unwrap();
    superuser
        .batch_execute(&format!(
            "create role \"{owner}\" login password 'owns'; create schema {owner} authorization \"{owner}\""
        ))
        .unwrap();
    case.set("MIGRATE__USER", &owner);
    case.set("MIGRATE__PASSWORD", "owns");
    case.ok(&["migrate"]);
    let check = case.ok(&["check", "--connect"]);
    assert!(check.contains("permissions: select, insert, update, delete"), "{check}");
    some_events(&case);
    let detector = case.detector("owner", &[("DETECTOR__WORKERS", "1")]);
    wait_for("the row", TIMEOUT, || case.count("anomalies") == 1);
    assert!(detector.terminate(TIMEOUT).success());
    superuser.batch_execute(&format!("drop schema {owner} cascade; drop role \"{owner}\"")).unwrap();
}

#[test]
fn a_producer_whose_topic_is_missing_says_so_and_loses_nothing_by_waiting() {
    let case = Case::bare("daemon_no_topic", Parts::shared());
    let settings = [("PRODUCER__COUNT", "500"), ("PRODUCER__RATE", "0")];
    let mut producer = case.role("producer", &settings);
    wait_for("the reason", TIMEOUT, || {
        let (status, body) = producer.get("/readyz").unwrap_or_default();
        status == 503 && body.contains("`anomaly topics` creates it")
    });
    case.ok(&["topics"]);
    assert_eq!(producer.exit(TIMEOUT).code(), Some(0), "{}", producer.log());
    assert_eq!(case.read(&case.raw()).len(), 500);
}

#[test]
fn a_producer_whose_events_are_all_refused_is_not_ready_until_one_arrives() {
    let case = Case::new("daemon_refused");
    let producer = case.role("producer", &[("PRODUCER__RATE", "2")]);
    producer.wait_ready();
    // From now on the topic takes no record of this size.
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", case.parts.brokers()).create().unwrap();
    let topic = case.raw();
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "10");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.alter_configs([&config], &AdminOptions::new())).unwrap();
    let refused = || producer.metric("anomaly_published_total{kind=\"failed\"} ");
    wait_for("events to be refused", TIMEOUT, || refused() >= 1.0);
    let before = refused();
    // Between two refusals nothing is delivered.
    wait_for("more events to be refused", TIMEOUT, || {
        let (status, body) = producer.get("/readyz").unwrap_or_default();
        assert!(status == 503 && body.contains("refuses events"), "{status}: {body}");
        refused() >= before + 4.0
    });
    assert!(!producer.log().contains("recovered"), "{}", producer.log());
}

#[test]
fn a_reload_before_it_is_ready_does_not_make_it_ready() {
    let case = alone("daemon_early");
    let (manager, detector) = notifying(&case, "detector", &SMALL);
    manager.wait("STATUS=worker-0: starting");
    detector.signal(Signal::HUP);
    wait_for("the reload", TIMEOUT, || detector.log().contains("settings reloaded"));
    assert_eq!(manager.count("READY=1") + manager.count("RELOADING=1"), 0, "{:?}", manager.heard());
}

/// Denies access with Kafka's own tool, as an administrator does.
fn deny(case: &Case, operation: &str, topic: &str) {
    let jars = Path::new(case.parts.get("POSTGRES__PASSWORD_FILE")).with_file_name("jars/*");
    for (principal, operation) in [("--allow-principal", "All"), ("--deny-principal", operation)] {
        let output = Command::new("java")
            .args(["-cp", jars.to_str().unwrap(), "kafka.admin.AclCommand"])
            .args(["--bootstrap-server", case.parts.brokers(), "--add", principal, "User:ANONYMOUS"])
            .args(["--operation", operation, "--topic", topic])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn missing_permissions_fail_the_check_and_topics_that_differ_are_reported() {
    let case = Case::new("daemon_rights");
    let check = case.ok(&["check", "--connect"]);
    assert!(check.contains("readable") && check.contains("which may write"), "{check}");
    assert_eq!(case.read(&case.anomalies()).len(), 0, "the record of the check is visible to readers");
    deny(&case, "Read", &case.raw());
    deny(&case, "Write", &case.dlq());
    let check = Ended::from(case.run(&["check", "--connect"]));
    assert_eq!(check.code, Some(69), "{}", check.out);
    let failed = check.out.lines().filter(|line| line.starts_with("FAILED")).collect::<Vec<_>>();
    assert_eq!(failed.len(), 2, "{failed:#?}");
    assert!(failed[0].contains(&case.raw()) && failed[0].contains("no permission to read"), "{failed:#?}");
    assert!(failed[1].contains("cannot write to") && failed[1].contains(&case.dlq()), "{failed:#?}");
    let state = format!("{}.state", case.name);
    deny(&case, "DescribeConfigs", &state);
    let check = Ended::from(case.run(&["check", "--connect"])).out;
    let described = check.lines().find(|line| line.contains(&state) && line.contains("configuration cannot be read"));
    assert!(described.is_some_and(|line| line.contains("grant DescribeConfigs")), "{check}");
    assert!(!check.contains("cleanup.policy is"), "an unknown policy is not a wrong one: {check}");
}
