//! Runs the loops on a simulated log and database, in tests only. It simulates the semantics of Kafka and PostgreSQL on
//! which exactly-once delivery depends, on a virtual clock. A seed decides the schedule of faults.
//!
//! [`cluster`] contains the records. [`transactions`] and [`group`] are the two coordinators, and [`database`] has the
//! sink's rows. [`stage`] lets one actor act at a time, in an order that follows from the seed. [`consumer`] is the
//! client of a sink, and [`member`] that of a worker; both implement the traits of [`client`](super::client). [`observer`]
//! reads the assignment of their groups.
//! [`strike`] has the faults of their calls, and [`rewrites`] the incidents about which a person decides. [`director`]
//! generates the events of a schedule, and [`world`] runs it with the processes of [`process`].
//! [`check`] compares the outcome with a single-threaded run, which takes its [`decisions`] from the state topic.
//!
//! A failing seed is printed as a command that replays it.

mod check;
mod cluster;
mod conformance;
mod consumer;
mod database;
mod decisions;
mod director;
mod group;
mod incidents;
mod member;
mod observer;
mod process;
mod recreated;
mod rewrites;
mod stage;
mod strike;
pub(super) mod topics;
mod transactions;
mod world;

use std::sync::Arc;
use std::time::Duration;

use check::verify;
use cluster::{Fate, LogEntry, SimulatedCluster, SimulatedTopic};
use member::SimulatedClient;
use stage::Scheduler;
use world::{Defect, Schedule, play};

use super::worker::{CommitObserver, Worker, WorkerEnding};
use crate::config::resolved::OnReject;
use crate::detect::{DetectionSettings, Detector};
use crate::health::{Health, InputHealth};
use crate::meter::Meter;
use crate::stop::Stop;

/// Returns the seeds of a run: `SEEDS=from..to`, or the first thousand.
fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("SEEDS").unwrap_or_else(|_| "0..1000".into());
    let (from, to) = text.split_once("..").expect("SEEDS=from..to");
    from.parse().expect("SEEDS=from..to")..to.parse().expect("SEEDS=from..to")
}

#[test]
fn under_every_schedule_of_faults_each_event_has_exactly_the_oracles_outcome() {
    let seeds = seeds();
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let totals = std::sync::Mutex::new(world::Totals::default());
    std::thread::scope(|scope| {
        let runs = (0..cores).map(|_| {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)).filter(|s| *s < seeds.end) {
                    if seed % 5_000 == 0 && seed > seeds.start {
                        eprintln!("seed {seed} of {}", seeds.end);
                    }
                    let outcome = play(&Schedule::new(seed, None));
                    totals.lock().unwrap().add(&outcome);
                    if let Err(why) = verify(&outcome) {
                        next.store(seeds.end, std::sync::atomic::Ordering::SeqCst);
                        panic!(
                            "seed {seed}: {why}\nreplay: SEEDS={seed}..{} cargo test --lib simulation::under -- --nocapture",
                            seed + 1
                        );
                    }
                }
            })
        });
        for run in runs.collect::<Vec<_>>() {
            if let Err(panic) = run.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let totals = totals.into_inner().unwrap();
    println!("{totals:?}");
    // A schedule without faults proves nothing.
    if seeds.end - seeds.start >= 1_000 {
        totals.assert_varied();
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 77] {
        let [one, two] = [0, 1].map(|_| play(&Schedule::new(seed, None)));
        assert_eq!(one.trace, two.trace);
    }
}

#[test]
fn the_checker_detects_losses_duplicates_a_reordering_a_forgotten_window_and_lost_rows_and_offsets() {
    use Defect::{Amnesia, Duplicate, Loss, LostOffset, LostRow, Reorder};
    for defect in [Loss, Duplicate, Reorder, Amnesia, LostRow, LostOffset] {
        let caught = (0..50).filter(|seed| verify(&play(&Schedule::new(*seed, Some(defect)))).is_err()).count();
        assert!(caught > 25, "{defect:?} was caught in {caught} of 50 seeds");
    }
}

#[test]
fn a_record_that_stops_the_worker_is_not_skipped_with_the_end_of_its_partition() {
    let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(1), 0.0));
    stage.enter_first();
    let value = Some(b"no event".to_vec());
    let entry =
        LogEntry { key: None, value, headers: Vec::new(), time: 0, fate: Fate::Committed, owner: String::new() };
    {
        let mut inner = stage.look();
        inner.now = seconds(60);
        inner.cluster.partition(SimulatedTopic::Input, 0).entries.push(entry);
    }
    let mut config = Schedule::new(1, None).config;
    config.detector.on_reject = OnReject::Fail;
    let (health, stop, mut observer): (Health, Stop, CommitObserver) =
        (Health::default(), Stop::default(), Box::new(|_| ()));
    let parts = (health.component("a"), InputHealth::new(&health));
    let log = SimulatedClient::by_names(stage.clone(), 0, "a", "one");
    let detector = Detector::new(DetectionSettings::default()).unwrap();
    let ended = Worker::new(log, detector, &config, parts, Meter::default(), &mut observer, &stop).run();
    assert!(matches!(ended, WorkerEnding::Failed(_)), "{ended:?}");
    let mut inner = stage.look();
    for id in inner.cluster.deciding() {
        while inner.cluster.write_marker(&id) {}
    }
    let committed = inner.cluster.transactions.offsets.get(&0).map(|progress| progress.offset);
    assert_eq!(committed, Some(0), "where the group begins");
}

#[test]
fn nothing_waits_for_a_worker_that_must_be_rebuilt() {
    let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(1), 0.0));
    stage.enter_first();
    let entry = |i: usize| {
        let value = if i % 100 == 99 { 999 } else { i % 7 };
        let value = Some(format!("{{\"device_id\":\"d\",\"metric_value\":{value}}}").into_bytes());
        LogEntry { key: None, value, headers: Vec::new(), time: 0, fate: Fate::Committed, owner: String::new() }
    };
    stage.look().cluster.partition(SimulatedTopic::Input, 0).entries.extend((0..6_000).map(entry));
    let config = Schedule::new(1, None).config;
    let (health, stop) = (Health::default(), Stop::default());
    let input = InputHealth::new(&health);
    let (of_worker, backlog) = (input.clone(), Arc::new(std::sync::atomic::AtomicI64::new(0)));
    let (seen, watched) = (backlog.clone(), stage.clone());
    let mut observer: CommitObserver = Box::new(move |_| {
        seen.store(of_worker.backlog(), std::sync::atomic::Ordering::SeqCst);
        if of_worker.backlog() > 0 {
            // Another producer uses the same transactional id.
            watched.look().cluster.init("one");
        }
    });
    let log = SimulatedClient::by_names(stage.clone(), 0, "a", "one");
    let detector = Detector::new(DetectionSettings::default()).unwrap();
    let parts = (health.component("a"), input.clone());
    let ended = Worker::new(log, detector, &config, parts, Meter::default(), &mut observer, &stop).run();
    assert!(matches!(ended, WorkerEnding::Rebuild(_)), "{ended:?}");
    assert!(backlog.load(std::sync::atomic::Ordering::SeqCst) > 1_000, "it waited for the worker");
    assert_eq!(input.backlog(), 0);
}

/// Returns a duration of the virtual clock.
const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
