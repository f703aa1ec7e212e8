//! Tests of a network that drops packets, some or all, or delays them, and of a full disk. They are noticed in seconds
//! and cost only time. `tests/network` runs these tests in separate namespaces for network and mounts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::common::{Case, Process, free_port, wait_for};
use crate::pipeline::{events, verify, wait_done};

/// Rules of iptables, which are removed when it is dropped.
struct Rules(Vec<String>);

impl Rules {
    fn set(rules: Vec<String>) -> Rules {
        assert!(std::env::var_os("ANOMALY_NETWORK").is_some(), "only in a namespace of its own: run tests/network");
        rules.iter().for_each(|rule| iptables(rule, "-A"));
        Rules(rules)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        self.0.iter().for_each(|rule| iptables(rule, "-D"));
    }
}

/// Adds a rule; `rule` names the chain first.
fn iptables(rule: &str, action: &str) {
    let (table, rule) = rule.split_once(' ').unwrap();
    let arguments = ["-w", "-t", table, action].into_iter().chain(rule.split(' '));
    assert!(Command::new("iptables").args(arguments).status().unwrap().success(), "iptables {rule}");
}

/// Drops packets to and from a local port; `which` selects the packets.
fn drops(port: &str, which: &str) -> Vec<String> {
    ["--dport", "--sport"].map(|end| format!("filter INPUT -i lo -p tcp {end} {port}{which} -j DROP")).into()
}

/// Drops all packets to and from a local port until it is dropped.
fn hole(port: &str) -> Rules {
    Rules::set(drops(port, ""))
}

/// Group of processes whose connections are delayed by [`late`].
const LATE: u32 = 54_321;

/// Delays packets between processes of group [`LATE`] and a local port by 150 to 350 ms, in both directions.
fn late(port: &str) -> Rules {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap().port();
    let there = format!("127.0.0.1:{port}");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&there).unwrap());
            delay(client.try_clone().unwrap(), server.try_clone().unwrap());
            delay(server, client);
        }
    });
    Rules::set(vec![format!(
        "nat OUTPUT -p tcp --dport {port} -m owner --gid-owner {LATE} -j REDIRECT --to-ports {here}"
    )])
}

/// Forwards one direction of a connection.
fn delay(mut from: TcpStream, mut to: TcpStream) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = from.read(&mut buffer) {
            let due = Instant::now() + Duration::from_millis(rand::rng().random_range(150..=350));
            if n == 0 || sender.send((due, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
    });
}

fn broker(case: &Case) -> &str {
    case.parts.brokers().rsplit_once(':').unwrap().1
}

/// Waits until the process is degraded, within the limit; returns the time.
fn noticed(process: &Process, why: &str, limit: Duration) -> Duration {
    let began = Instant::now();
    wait_for(
        &format!("/readyz to say `{why}`"),
        limit,
        || matches!(process.get("/readyz"), Some((503, text)) if text.contains(why)),
    );
    began.elapsed()
}

#[test]
#[ignore = "drops packets: tests/network"]
fn an_unresponsive_database_and_broker_are_noticed_in_seconds_and_cost_only_time() {
    let case = Case::new("hole");
    let detector = case.detector("a", &[]);
    case.produce(events(60, 100, 20_000, 500));
    wait_done(&case, 20_000);

    let hole = hole(case.parts.get("POSTGRES__PORT"));
    case.produce(events(61, 100, 20_000, 500));
    let took = noticed(&detector, "sink: PostgreSQL is unreachable", Duration::from_secs(15));
    eprintln!("PostgreSQL in the hole was noticed after {took:?}");
    drop(hole);
    wait_done(&case, 40_000);
    verify(&case);

    case.produce(events(62, 100, 50_000, 500));
    let hole = self::hole(broker(&case));
    let took = noticed(&detector, "worker-", Duration::from_secs(30));
    eprintln!("the broker in the hole was noticed after {took:?}");
    // Longer than transactions and sessions live.
    std::thread::sleep(Duration::from_secs(15));
    drop(hole);
    case.produce(events(63, 100, 10_000, 500));
    wait_done(&case, 100_000);
    detector.wait_ready();

    // No role has a transaction or an event in flight.
    let quiet = Case::new("quiet");
    let file = quiet.dir.path().join("two.jsonl");
    let line =
        |hour| format!("{{\"device_id\":\"a\",\"metric_value\":1,\"timestamp\":\"2026-01-01T{hour}:00:00Z\"}}\n");
    std::fs::write(&file, line("01") + &line("02")).unwrap();
    let settings = [("PRODUCER__SOURCE", "replay"), ("PRODUCER__FILE", file.to_str().unwrap())];
    let producer = quiet.role("producer", &settings);
    producer.wait_ready();
    let answered = "has not answered since 20";
    let logged = [&detector, &producer].map(|role| role.log().len());
    let hole = self::hole(broker(&case));
    let began = Instant::now();
    for (role, component) in [(&detector, "worker-0"), (&detector, "sink"), (&producer, "publisher")] {
        let why = format!("{component}: broker {} {answered}", case.parts.brokers());
        noticed(role, &why, Duration::from_secs(30).saturating_sub(began.elapsed()));
        eprintln!("the broker in the hole was noticed by the idle {component} after {:?}", began.elapsed());
    }
    // Longer than a request lives: then the clients connect again, and do not succeed either.
    std::thread::sleep(Duration::from_secs(75).saturating_sub(began.elapsed()));
    for (role, component, logged) in
        [(&detector, "worker-0", logged[0]), (&detector, "sink", logged[0]), (&producer, "publisher", logged[1])]
    {
        let log = &role.log()[logged..];
        let is_warning = |line: &&str| line.contains(component) && line.contains(answered);
        assert_eq!(log.lines().filter(is_warning).count(), 1, "of {component}: {log}");
        assert!(matches!(role.get("/readyz"), Some((503, text)) if text.contains(answered)));
    }
    drop(hole);
    producer.wait_ready();
    detector.wait_ready();
    assert!(producer.terminate(Duration::from_secs(10)).success());
    case.produce(events(64, 100, 10_000, 500));
    wait_done(&case, 110_000);
    assert!(detector.terminate(Duration::from_secs(10)).success());
    verify(&case);
}

#[test]
#[ignore = "drops packets: tests/network"]
fn a_slow_and_lossy_network_costs_only_time() {
    let case = Case::new("lossy");
    let parts = [broker(&case).to_owned(), case.parts.get("POSTGRES__PORT").to_owned()];
    let _late = parts.each_ref().map(|port| late(port));
    let _lossy = Rules::set(
        parts.iter().flat_map(|port| drops(port, " -m statistic --mode random --probability 0.05")).collect(),
    );
    let port = free_port();
    let mut command = case.command(&["--role", "detector"]);
    command.env("ANOMALY__METRICS__LISTEN", format!("127.0.0.1:{port}")).env("ANOMALY__LOG__ANOMALIES_PER_SECOND", "0");
    // Sweeps as well.
    command.env("ANOMALY__DETECTOR__SNAPSHOT_INTERVAL", "1s").gid(LATE);
    let detector = Process::start(&mut command, case.dir.path().join("detector.log"), port);
    let began = Instant::now();
    for round in 0..20 {
        case.produce(events(70 + round, 100, 1_000, 100));
        std::thread::sleep(Duration::from_secs(1));
    }
    wait_done(&case, 20_000);
    eprintln!("20,000 events of 20 s were done after {:?}", began.elapsed());
    detector.wait_ready();
    assert!(detector.terminate(Duration::from_secs(10)).success());
    verify(&case);
}

#[test]
#[ignore = "fills the disk of PostgreSQL: tests/network"]
fn a_full_disk_under_postgresql_stops_the_sink_only_and_costs_only_time() {
    let disk = std::env::var("ANOMALY_DISK").expect("only on a disk of its own: run tests/network");
    let case = Case::new("disk");
    let detector = case.detector("a", &[("SINK__BATCH", "200")]);
    case.produce(events(90, 100, 20_000, 500));
    wait_done(&case, 20_000);
    let filler = Path::new(&disk).join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let block = vec![1; 1 << 16];
    while file.write_all(&block).is_ok() {}
    // Many anomalies: devices that were never seen begin, learn, and then jump all the time.
    let jumps = |round: i64| {
        (0..20_000).map(move |i| {
            crate::common::event(
                &format!("j{}", i % 10),
                (((i / 10) % 40 == 39) as i64 * (1_000 + round)) as f64 + (i % 7) as f64,
            )
        })
    };
    case.produce(jumps(0));
    let took = noticed(&detector, "No space left on device", Duration::from_secs(60));
    eprintln!("the full disk was noticed after {took:?}");
    case.produce(events(91, 100, 20_000, 500));
    let done = || case.committed() == 60_000;
    wait_for("the detector to judge on", Duration::from_secs(120), done);
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    // It may have stopped by itself, as it does when it cannot write its log.
    let up = Command::new(crate::common::root().join("tests/box")).args(["up", "postgres"]).status().unwrap();
    assert!(up.success());
    wait_done(&case, 60_000);
    detector.wait_ready();
    verify(&case);
}
