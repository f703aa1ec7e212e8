//! A detector that gets no further file descriptors: it is degraded with the remedy, and continues once it gets them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::common::{Case, Process, event, wait, wait_for};

/// Sets the lowest number that a new file descriptor of the process may not have.
fn limit_descriptors(process: &Process, limit: u64) {
    let pid = Pid::from_raw(process.child.id() as i32);
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(limit), maximum: hard }).unwrap();
}

/// Returns the local ports of the process's connections.
fn ports(process: &Process) -> Vec<i32> {
    let dir = PathBuf::from(format!("/proc/{}", process.child.id()));
    let links = std::fs::read_dir(dir.join("fd")).unwrap().flatten().filter_map(|entry| entry.path().read_link().ok());
    let sockets = links.map(|link| link.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let is_own = |inode: &str| sockets.contains(&format!("socket:[{inode}]"));
    let table = std::fs::read_to_string(dir.join("net/tcp")).unwrap();
    let port = |line: &str| {
        let columns = line.split_whitespace().collect::<Vec<_>>();
        let (_, port) = columns.get(1)?.split_once(':')?;
        i32::from_str_radix(port, 16).ok().filter(|_| is_own(columns[9]))
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[test]
fn without_further_file_descriptors_the_detector_is_degraded_with_the_remedy_and_recovers() {
    let case = Case::new("shortage");
    let mut detector = case.detector("a", &[]);
    detector.wait_ready();
    let publish = |value: f64| case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", value)]));
    publish(99.0);
    wait("the row", || case.count("anomalies") == 1);
    let sessions = |what: &str| -> i64 {
        let select = format!("select count({what}) from pg_stat_activity where client_port = any($1)");
        case.parts.admin().query_one(&select, &[&ports(&detector)]).unwrap().get(0)
    };
    wait("the sessions of the sink and the heartbeat", || sessions("pid") >= 2);
    limit_descriptors(&detector, 3);
    assert!(sessions("pg_terminate_backend(pid)") >= 2);
    let has_all = |log: &str, words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    for component in ["sink", "heartbeat"] {
        wait_for(component, Duration::from_secs(30), || {
            has_all(&detector.log(), &[component, "too few file descriptors", "Raise LimitNOFILE"])
        });
    }
    publish(98.0);
    assert!(detector.child.try_wait().unwrap().is_none(), "it runs");
    limit_descriptors(&detector, 1_024);
    let since = Instant::now();
    wait("the second row", || case.count("anomalies") == 2);
    detector.wait_ready();
    println!("recovered after {:?}", since.elapsed());
    assert!(!detector.log().contains("panicked"), "{}", detector.log());
}
