//! Packets that are dropped without a word: noticed in seconds, and they cost only time. Runs by `tests/network`, in a
//! network namespace of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Case, Process, wait_for};
use crate::pipeline::{events, verify, wait_done};

/// Drops everything to and from a local port while it lives.
struct Hole(String);

impl Hole {
    fn dig(port: &str) -> Hole {
        assert!(std::env::var_os("ANOMALY_NETWORK").is_some(), "only in a namespace of its own: run tests/network");
        let hole = Hole(port.to_owned());
        hole.rules("-A");
        hole
    }

    fn rules(&self, action: &str) {
        for direction in ["--dport", "--sport"] {
            let arguments = ["-w", action, "INPUT", "-i", "lo", "-p", "tcp", direction, &self.0, "-j", "DROP"];
            assert!(Command::new("iptables").args(arguments).status().unwrap().success());
        }
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        self.rules("-D");
    }
}

/// Degraded within the limit; how long it took.
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
fn a_black_holed_database_and_broker_are_noticed_in_seconds_and_cost_only_time() {
    let case = Case::new("hole");
    let detector = case.detector("a", &[]);
    case.produce(events(60, 100, 20_000, 500));
    wait_done(&case, 20_000);

    let hole = Hole::dig(case.parts.get("POSTGRES__PORT"));
    case.produce(events(61, 100, 20_000, 500));
    let took = noticed(&detector, "sink: PostgreSQL is away", Duration::from_secs(15));
    eprintln!("PostgreSQL in the hole was noticed after {took:?}");
    drop(hole);
    wait_done(&case, 40_000);
    verify(&case);

    let broker = case.parts.brokers().rsplit_once(':').unwrap().1.to_owned();
    case.produce(events(62, 100, 50_000, 500));
    let hole = Hole::dig(&broker);
    let took = noticed(&detector, "worker-", Duration::from_secs(30));
    eprintln!("the broker in the hole was noticed after {took:?}");
    // Longer than transactions and sessions live.
    std::thread::sleep(Duration::from_secs(15));
    drop(hole);
    case.produce(events(63, 100, 10_000, 500));
    wait_done(&case, 100_000);
    detector.wait_ready();
    assert!(detector.terminate(Duration::from_secs(10)).success());
    verify(&case);
}
