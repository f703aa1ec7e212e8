//! Tests what a worker does after an incident between two of its runs: the state topic has lost records or deletes them,
//! or the input was cut and has grown again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cluster::{Fate, LogEntry, SimulatedCluster, SimulatedPartition, SimulatedTopic};
use super::member::SimulatedClient;
use super::rewrites::checkpoint_offset;
use super::stage::Scheduler;
use crate::config::resolved::{Settings, StartPosition};
use crate::detect::{DetectionSettings, Detector};
use crate::error::ExitKind;
use crate::health::{Health, InputHealth};
use crate::meter::Meter;
use crate::stop::Stop;
use crate::stream::client::Fault;
use crate::stream::progress::Progress;
use crate::stream::worker::{
    CommitObserver, OffsetChange, OffsetTarget, Worker, WorkerEnding, accept_offsets, set_offsets,
};

const DEVICES: usize = 10;
/// Number of values of each device, more than `min_samples`.
const VALUES: usize = 40;

/// One partition of each topic, whose worker runs again and again.
struct Incident {
    stage: Arc<Scheduler>,
    settings: Settings,
}

impl Incident {
    /// Creates the topics, and lets a worker judge some records.
    fn new() -> Incident {
        let stage = Arc::new(Scheduler::new(1, SimulatedCluster::new(1), 0.0));
        stage.enter_first();
        let mut settings = Settings::default();
        settings.detector.start = StartPosition::Earliest;
        settings.detector.snapshot_interval = Duration::from_millis(10);
        settings.detector.stop_leaves = true;
        let incident = Incident { stage, settings };
        (0..VALUES).for_each(|round| incident.publish(&(round % 7).to_string()));
        assert!(matches!(incident.run(), WorkerEnding::Stopped));
        incident
    }

    /// Publishes a value of each device.
    fn publish(&self, value: &str) {
        let entry = |device: usize| LogEntry {
            key: None,
            value: Some(format!("{{\"device_id\":\"d{device}\",\"metric_value\":{value}}}").into_bytes()),
            headers: Vec::new(),
            time: 0,
            fate: Fate::Committed,
            owner: String::new(),
        };
        let mut inner = self.stage.look();
        inner.cluster.partition(SimulatedTopic::Input, 0).entries.extend((0..DEVICES).map(entry));
    }

    /// Returns whether every record is committed, and a checkpoint is at the end.
    fn is_done(&self) -> bool {
        let cluster = &mut self.stage.look().cluster;
        let end = cluster.partition(SimulatedTopic::Input, 0).end();
        let committed = cluster.transactions.offsets.get(&0).map(|progress| progress.offset);
        let state = cluster.partition(SimulatedTopic::State, 0);
        let checkpoint = state.committed(0).filter(|(_, entry)| entry.key.as_deref() == Some(b"f")).last();
        let at = checkpoint.and_then(|(_, entry)| checkpoint_offset(entry.value.as_deref()));
        // After a commit its markers may still be missing.
        committed == Some(end) && at == Some(end) && cluster.deciding().is_empty()
    }

    /// Runs a worker until every record is judged and stored, or until it ends by itself.
    fn run(&self) -> WorkerEnding {
        self.run_until(|| self.is_done())
    }

    fn run_until(&self, is_done: impl Fn() -> bool + Send) -> WorkerEnding {
        let (health, stop, has_ended) = (Health::default(), Stop::default(), AtomicBool::new(false));
        let mut observer: CommitObserver = Box::new(|_| ());
        let parts = (health.component("a"), InputHealth::new(&health));
        let log = SimulatedClient::by_names(self.stage.clone(), 0, "a", "one");
        std::thread::scope(|scope| {
            let (stop, has_ended) = (&stop, &has_ended);
            scope.spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(60);
                while !is_done() && !has_ended.load(Ordering::Relaxed) && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
                stop.request();
            });
            let worker = Worker::new(log, detector(), &self.settings, parts, Meter::default(), &mut observer, stop);
            let ended = worker.with_snapshot_bytes(100).run();
            has_ended.store(true, Ordering::Relaxed);
            ended
        })
    }

    /// Checks that the worker ends with this kind of error; returns its message.
    fn fails(&self, kind: ExitKind) -> String {
        let committed = self.stage.look().cluster.transactions.offsets.clone();
        let ended = self.run_until(|| false);
        let WorkerEnding::Failed(error) = ended else { panic!("{ended:?}") };
        assert_eq!(error.kind, kind, "{}", error.message);
        assert_eq!(self.stage.look().cluster.transactions.offsets, committed, "it commits nothing");
        error.message
    }

    /// Runs `anomaly offsets accept` once the group is empty.
    fn accept(&self) -> Vec<OffsetChange> {
        self.stage.look().cluster.group.members.clear();
        let mut log = SimulatedClient::by_names(self.stage.clone(), 0, "offsets", "offsets");
        let mut changes = Vec::new();
        let accepted: Result<(), Fault> = accept_offsets(&mut log, &self.settings, &detector(), |change| {
            changes.push(change.clone());
            Ok(())
        });
        accepted.unwrap();
        changes
    }

    /// Checks that the worker finds an outlier of each device with its windows.
    fn finds_outliers(&self) {
        let count = || {
            let mut inner = self.stage.look();
            let anomalies = inner.cluster.partition(SimulatedTopic::Anomalies, 0).committed(0);
            let is_outlier = |value: &Option<Vec<u8>>| {
                let json = serde_json::from_slice::<serde_json::Value>(value.as_deref().unwrap_or_default());
                json.is_ok_and(|json| json["metric_value"] == 1e9)
            };
            anomalies.filter(|(_, entry)| is_outlier(&entry.value)).count()
        };
        let before = count();
        self.publish("1e9");
        assert!(matches!(self.run(), WorkerEnding::Stopped));
        assert_eq!(count() - before, DEVICES);
    }

    /// Deletes records of the state topic by their keys.
    fn lose(&self, is_lost: impl Fn(&[u8]) -> bool) {
        let mut inner = self.stage.look();
        let entries = &mut inner.cluster.partition(SimulatedTopic::State, 0).entries;
        let lost = entries.iter_mut().filter(|entry| entry.key.as_deref().is_some_and(&is_lost));
        lost.for_each(|entry| entry.fate = Fate::Nothing);
    }
}

fn detector() -> Detector {
    Detector::new(DetectionSettings::default()).expect("methods")
}

#[test]
fn missing_snapshots_stop_the_worker_and_accepting_reads_the_windows_back_from_the_input() {
    let incident = Incident::new();
    incident.finds_outliers();
    for (lost, left) in [(5, 5), (DEVICES, 0)] {
        let keys = (0..lost).map(|device| format!("sd{device}").into_bytes()).collect::<Vec<_>>();
        incident.lose(|key| keys.iter().any(|lost| lost == key));
        let message = incident.fails(ExitKind::Data);
        assert!(message.contains(&format!("has {left} of {DEVICES} records with windows")), "{message}");
        assert!(message.contains("`anomaly offsets accept` reads the windows"), "{message}");
        let changes = incident.accept();
        assert_eq!((changes.len(), changes[0].last), (1, Some(changes[0].next)), "the offset and the counts stay");
        incident.finds_outliers();
    }
    assert_eq!(incident.accept(), [], "nothing is left to accept");
}

#[test]
fn snapshots_that_are_missing_while_a_sweep_is_in_progress_stop_the_worker() {
    let incident = Incident::new();
    // The checkpoint is lost too, and the digest of the last transaction is there.
    let mut inner = incident.stage.look();
    let state = inner.cluster.partition(SimulatedTopic::State, 0);
    let last = state.entries.iter().rposition(|entry| entry.key.as_deref() == Some(b"l")).expect("a digest");
    state.entries.truncate(last + 1);
    state.entries[last].fate = Fate::Committed;
    drop(inner);
    incident.lose(|key| key == b"sd3" || key == b"f");
    let message = incident.fails(ExitKind::Data);
    assert!(message.contains("records with windows"), "{message}");
}

#[test]
fn a_state_topic_that_is_not_compacted_stops_the_worker_as_a_wrong_setting() {
    let incident = Incident::new();
    for policy in ["delete", "compact,delete"] {
        incident.stage.look().cluster.state_policy = Some(policy.into());
        let message = incident.fails(ExitKind::Config);
        assert!(message.contains(&format!("is {policy}, not compact")), "{message}");
    }
    incident.stage.look().cluster.state_policy = None;
    incident.finds_outliers();
}

#[test]
fn a_log_that_was_cut_before_the_committed_offset_and_has_grown_past_it_stops_the_worker_until_it_is_accepted() {
    let incident = Incident::new();
    let cut = |keep: usize| {
        incident.stage.look().cluster.partition(SimulatedTopic::Input, 0).entries.truncate(keep);
    };
    cut(50);
    (0..VALUES).for_each(|round| incident.publish(&(round % 7 + 10).to_string()));
    let message = incident.fails(ExitKind::Data);
    assert!(message.contains("has another record at offset 399 than the one that was judged"), "{message}");
    let changes = incident.accept();
    assert_eq!((changes.len(), changes[0].next.offset), (1, 400));
    incident.finds_outliers();
    // A log that ends before the committed offset is noticed by its end.
    cut(50);
    assert!(incident.fails(ExitKind::Data).contains("ends at 50, before the committed offset"));
}

#[test]
fn a_last_record_that_retention_or_compaction_has_deleted_is_no_difference() {
    for deletes in [
        |log: &mut SimulatedPartition| log.start = log.end(),
        |log: &mut SimulatedPartition| log.entries.iter_mut().for_each(|entry| entry.fate = Fate::Nothing),
    ] {
        let incident = Incident::new();
        deletes(incident.stage.look().cluster.partition(SimulatedTopic::Input, 0));
        incident.finds_outliers();
    }
}

#[test]
fn offsets_that_are_set_back_judge_the_records_again_with_windows_from_the_input() {
    let incident = Incident::new();
    incident.finds_outliers();
    incident.stage.look().cluster.group.members.clear();
    let mut log = SimulatedClient::by_names(incident.stage.clone(), 0, "offsets", "offsets");
    let set: Result<(), Fault> =
        set_offsets(&mut log, &incident.settings, &detector(), None, OffsetTarget::Earliest, |change| {
            assert!(change.is_state_deleted && change.next == Progress::default());
            Ok(())
        });
    set.unwrap();
    assert!(matches!(incident.run(), WorkerEnding::Stopped));
    let mut inner = incident.stage.look();
    let anomalies = inner.cluster.partition(SimulatedTopic::Anomalies, 0).committed(0);
    let values = anomalies.map(|(_, entry)| entry.value.clone()).collect::<Vec<_>>();
    let different = values.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!((values.len(), different.len()), (2 * DEVICES, DEVICES), "the verdicts are the same");
    let counts = inner.cluster.transactions.offsets[&0].counts;
    assert_eq!(counts.sum() as usize, DEVICES * (VALUES + 1));
}
