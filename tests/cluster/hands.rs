//! Faults in which others touch topics, offsets or files. The detectors stop, or wait, until a person has decided. Input
//! stops before such a fault, so that the auditor knows which records have an outcome.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::SliceRandom;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};

use super::books::Change;
use super::{RECOVERY, Storm, positions};
use crate::common::{Process, Sent, wait_for};
use crate::damage::{batches, segment};
use crate::offsets::{change, commit_as_another, commits};
use crate::pipeline::events;
use crate::state::{recreate, state};

/// Longest time until all detectors have stopped: each of them may have to wait for the session of another.
const STOPPED: Duration = Duration::from_secs(180);

impl Storm {
    /// Stops the input, and waits until each record has its outcome in topic and table, and the auditor has read it.
    pub(super) fn quiesce(&mut self) {
        if std::mem::replace(&mut self.has_input, false) {
            self.producer.signal(Signal::TERM);
            assert!(self.producer.exit(Duration::from_secs(15)).success(), "{}", self.producer.log());
        }
        self.recover();
        self.level();
    }

    /// Waits until the auditor has read all outcomes of the records so far.
    fn level(&mut self) {
        let began = Instant::now();
        while let Err(missing) = self.auditor.is_level(&self.committed) {
            assert!(began.elapsed() < RECOVERY, "not all outcomes are there: {missing}");
            self.pass(Duration::from_millis(100));
        }
    }

    /// Waits until each record so far is judged, whatever the roles report.
    fn judged(&mut self) {
        let (began, ends) = (Instant::now(), self.ends());
        loop {
            let stand = self.stand().unwrap_or_default();
            if stand.len() == ends.len() && stand.iter().zip(&ends).all(|((committed, ..), end)| committed >= end) {
                self.committed = ends;
                return;
            }
            assert!(began.elapsed() < RECOVERY, "not judged: {stand:?} of {ends:?}");
            self.pass(Duration::from_millis(100));
        }
    }

    /// Starts the producer again, with other values.
    fn resume_input(&mut self) {
        self.bursts += 1;
        self.producer = Storm::produce(&self.case, self.seed.wrapping_add(self.bursts));
        self.has_input = true;
        self.samples.remove("producer");
    }

    /// Publishes events while the producer is stopped.
    fn burst(&mut self, count: u64) {
        self.bursts += 1;
        self.case.produce(events(self.bursts, 200, count, 500));
    }

    /// Returns the end of each partition of the input.
    fn ends(&mut self) -> Vec<i64> {
        let raw = self.case.raw();
        let mut ends = Vec::new();
        wait_for("the ends of the input", RECOVERY, || {
            let of = |partition| self.positions.fetch_watermarks(&raw, partition, Duration::from_secs(5));
            ends = (0..4).map_while(|partition| Some(of(partition).ok()?.1)).collect();
            if ends.len() < 4 {
                // A client may never find a leader that moved.
                self.positions = positions(&self.case);
            }
            ends.len() == 4
        });
        ends
    }

    fn detectors(&mut self) -> impl Iterator<Item = &mut Process> {
        self.mortal.values_mut().chain([&mut self.steady])
    }

    fn stop_detectors(&mut self) {
        self.has_detectors = false;
        self.detectors().for_each(|detector| detector.signal(Signal::TERM));
        self.detectors().for_each(|detector| {
            assert!(detector.exit(Duration::from_secs(30)).success(), "{}", detector.log());
        });
    }

    fn start_detectors(&mut self, settings: &[(&str, &str)]) {
        self.steady = self.case.detector("steady", settings);
        for name in ["b", "c"] {
            self.start(name, settings);
        }
        self.has_detectors = true;
        self.samples.remove("detector");
    }

    /// Checks that every detector stops for good, and that one of them reports one of these reasons.
    fn all_stop(&mut self, reasons: &[&str]) {
        self.has_detectors = false;
        let mut logs = String::new();
        for detector in self.detectors() {
            let code = detector.exit(STOPPED).code();
            assert_eq!(code, Some(65), "{}", detector.log());
            logs += &detector.log();
        }
        assert!(reasons.iter().any(|reason| logs.contains(reason)), "{reasons:?} in\n{logs}");
    }

    /// Another program sets offsets forward, or back to earlier ones of the detectors, while these are stopped.
    pub(super) fn foreign_commits(&mut self) {
        self.quiesce();
        let raw = self.case.raw();
        self.auditor.leave(&raw);
        self.stop_detectors();
        self.burst(4_000);
        let (right, ends) = (commits(&self.case), self.ends());
        let (is_forward, is_copied) = (self.random.random_bool(0.7), self.random.random_bool(0.5));
        let mut partitions = [0, 1, 2, 3];
        partitions.shuffle(&mut self.random);
        let mut foreign = BTreeMap::new();
        for partition in &partitions[..self.random.random_range(1..=4)] {
            let (offset, metadata) = &right[partition];
            assert_eq!(*offset, self.committed[*partition as usize]);
            let offset = match is_forward {
                true => self.random.random_range(offset + 1..=ends[*partition as usize]),
                false => self.random.random_range((offset - 2_000).max(0)..*offset),
            };
            let metadata = if is_copied || !is_forward { metadata.clone() } else { String::new() };
            foreign.insert(*partition, (offset, metadata));
        }
        let set = foreign.iter().map(|(partition, (offset, _))| (*partition, *offset)).collect::<Vec<_>>();
        eprintln!("storm: offsets {set:?} instead of {:?}", self.committed);
        commit_as_another(&self.case, &foreign);
        self.start_detectors(&[]);
        self.all_stop(&["by another program"]);
        let mut changes = Vec::new();
        if is_forward {
            let text = change(&self.case, &["accept"]);
            assert_eq!(text.matches("records count as skipped").count(), foreign.len(), "{text}");
            changes.extend(foreign.iter().map(|(partition, (offset, _))| Change::Quiet(*partition, *offset)));
        } else {
            for partition in foreign.keys() {
                let right = self.committed[*partition as usize];
                change(&self.case, &["set", &partition.to_string(), &right.to_string()]);
            }
        }
        self.auditor.enter(&raw, changes);
        self.start_detectors(&[]);
        self.resume_input();
    }

    /// Topic `anomalies` is deleted and created again, also with records that the sink has not read.
    pub(super) fn anomalies_recreated(&mut self, is_read: bool) {
        self.quiesce();
        let anomalies = self.case.anomalies();
        if !is_read {
            self.stage.run(&["down", "postgres"]);
            self.burst(10_000);
            self.judged();
            self.level();
        }
        self.auditor.leave(&anomalies);
        recreate(&self.case, &anomalies);
        if !is_read {
            self.stage.run(&["up", "postgres"]);
        }
        wait_for("a sink to notice the new topic", Duration::from_secs(120), || {
            let says = |detector: &mut Process| matches!(detector.get("/readyz"), Some((503, text)) if text.contains("was recreated"));
            self.detectors().any(says)
        });
        let rows = self.case.sql().query("select partition, next_offset from sink_offsets", &[]).unwrap();
        let ledger = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let text = self.case.ok(&["offsets", "accept", "--sink"]);
        assert!(text.contains("continues at offset 0 instead of"), "{text}");
        self.auditor.enter(&anomalies, vec![Change::AnomaliesRecreated(ledger)]);
        self.resume_input();
    }

    /// The input is deleted and created again while the detectors run.
    pub(super) fn input_recreated(&mut self) {
        self.quiesce();
        let raw = self.case.raw();
        self.auditor.leave(&raw);
        recreate(&self.case, &raw);
        // Fewer records than before, so that no detector finds its offset again (see tests/recreated.rs).
        self.burst(200);
        self.all_stop(&["was recreated"]);
        change(&self.case, &["set", "all", "earliest"]);
        (self.committed, self.base) = (vec![0; 4], vec![0; 4]);
        let again = |partition| Change::Again { partition, from: 0, with_damaged: true };
        self.auditor.enter(&raw, (0..4).map(again).collect());
        self.start_detectors(&[]);
        self.resume_input();
    }

    /// A partition of the input loses its newest records in all replicas, and gets others.
    pub(super) fn input_truncated(&mut self) {
        self.quiesce();
        let raw = self.case.raw();
        self.auditor.leave(&raw);
        self.stop_detectors();
        let partition = self.random.random_range(0..4);
        let committed = self.committed[partition as usize];
        let how = if self.random.random_bool(0.5) { "down" } else { "kill" };
        for broker in ["kafka2", "kafka"] {
            self.stage.run(&[how, broker]);
        }
        let most = committed - self.random.random_range(1..=2_000);
        let end = self.cut(partition, most);
        for broker in ["kafka", "kafka2"] {
            self.stage.run(&["up", broker]);
        }
        wait_for("the brokers to have the cut log", RECOVERY, || self.ends()[partition as usize] == end);
        let lost = committed - end;
        let count = if self.random.random_bool(0.7) { lost + self.random.random_range(0..200) } else { lost / 2 };
        eprintln!("storm: [{partition}] cut from {committed} to {end}, {count} other records");
        self.bursts += 1;
        let to = |sent: Sent| Sent { partition: Some(partition), ..sent };
        self.case.produce(events(self.bursts, 200, count as u64, 500).map(to));
        self.start_detectors(&[]);
        self.all_stop(&["has another record at offset", "before the committed offset"]);
        let text = change(&self.case, &["set", &partition.to_string(), &end.to_string()]);
        let with_damaged = text.contains("Windows are read back");
        (self.committed[partition as usize], self.base[partition as usize]) = (end, end);
        self.auditor.enter(&raw, vec![Change::Again { partition, from: end, with_damaged }]);
        self.start_detectors(&[]);
        self.resume_input();
    }

    /// Returns the only segment of a partition of the input in the directory of each broker.
    fn replicas(&self, partition: i32) -> [PathBuf; 2] {
        let first = segment(&self.case, &self.case.raw(), partition);
        let folder = first.parent().unwrap();
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        assert_eq!(files.filter(|file| file.extension().is_some_and(|kind| kind == "log")).count(), 1);
        let other = folder.parent().unwrap().with_file_name("kafka2").join(folder.file_name().unwrap());
        [first.clone(), other.join(first.file_name().unwrap())]
    }

    /// Cuts a partition in all replicas at the end of a batch, at most at this offset. Returns its end.
    fn cut(&self, partition: i32, most: i64) -> i64 {
        let mut ends = Vec::new();
        for file in self.replicas(partition) {
            let all = batches(&file);
            let last = all.iter().rfind(|(_, last, ..)| *last < most);
            let (end, bytes) = last.map_or((0, 0), |(_, last, bytes, _)| (last + 1, *bytes));
            OpenOptions::new().write(true).open(&file).unwrap().set_len(bytes).unwrap();
            // The broker makes the indexes and the state of the producers again.
            for derived in std::fs::read_dir(file.parent().unwrap()).unwrap().map(|file| file.unwrap().path()) {
                let kind = derived.extension().and_then(|kind| kind.to_str()).unwrap_or_default().to_owned();
                if ["index", "timeindex", "snapshot"].contains(&kind.as_str()) {
                    std::fs::remove_file(derived).unwrap();
                }
            }
            ends.push(end);
        }
        assert_eq!(ends[0], ends[1], "the replicas differ");
        ends[0]
    }

    /// A batch of the input that is not judged yet is damaged in all replicas, and skipped by the settings or by a person.
    pub(super) fn batch_damaged(&mut self) {
        self.quiesce();
        let raw = self.case.raw();
        self.auditor.leave(&raw);
        self.stop_detectors();
        (0..3).for_each(|_| self.burst(1_000));
        let (ends, partition) = (self.ends(), self.random.random_range(0..4));
        let committed = self.committed[partition as usize];
        let replicas = self.replicas(partition);
        let all = batches(&replicas[0]);
        wait_for("the second replica", Duration::from_secs(60), || batches(&replicas[1]) == all);
        let new = all.iter().enumerate().filter(|(_, (first, ..))| *first >= committed).map(|(at, _)| at);
        let new = new.collect::<Vec<_>>();
        let at = new[self.random.random_range(0..new.len())];
        let (first, last, ..) = all[at];
        eprintln!("storm: [{partition}] offsets {first} to {last} are damaged");
        // The auditor reads everything before the damage, and passes over the batch.
        self.auditor.enter(&raw, vec![Change::Damaged(partition, first..last + 1)]);
        wait_for("the auditor to read the input", Duration::from_secs(60), || self.auditor.has_read(&ends));
        let begin = at.checked_sub(1).map_or(0, |before| all[before].2);
        let flip = || replicas.iter().for_each(|file| flip_checksum(file, begin));
        flip();
        if self.random.random_bool(0.5) {
            self.start_detectors(&[("DETECTOR__ON_DAMAGE", "skip")]);
        } else {
            self.start_detectors(&[]);
            let place = format!("{raw} [{partition}] cannot be read at offset {first}: ");
            wait_for("a detector to report the damage", Duration::from_secs(120), || {
                let says = |detector: &mut Process| matches!(detector.get("/readyz"), Some((503, text)) if text.contains(&place));
                self.detectors().any(says)
            });
            self.stop_detectors();
            let skip = ["dlq", "skip", &raw, &partition.to_string(), &first.to_string()];
            wait_for("the command to skip", Duration::from_secs(120), || {
                let output = self.case.run(&skip);
                // Until the sessions of the stopped detectors end, the group refuses.
                assert!(matches!(output.status.code(), Some(0 | 69)), "{output:?}");
                output.status.success()
            });
            self.start_detectors(&[]);
        }
        self.judged();
        self.resume_input();
        // A restart must not read the repaired batch again, and a broker that is killed would cut the log at the damage.
        let began = Instant::now();
        while self.checkpoint(partition) <= last {
            assert!(began.elapsed() < RECOVERY, "no checkpoint after the damage");
            self.pass(Duration::from_millis(500));
        }
        flip();
    }

    /// Returns the newest checkpoint of a partition, from the end of the state topic; -1 if none is there.
    fn checkpoint(&self, partition: i32) -> i64 {
        let mut config = self.case.client();
        config.set("group.id", "unused").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.set("isolation.level", "read_committed").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&state(&self.case), partition, Offset::OffsetTail(5_000)).unwrap();
        consumer.assign(&list).unwrap();
        let (mut newest, deadline) = (-1, Instant::now() + Duration::from_secs(30));
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) if message.key() == Some(b"f") => {
                    // Behind version and checksum.
                    let body = &message.payload().unwrap()[5..];
                    newest = serde_json::from_slice::<serde_json::Value>(body).unwrap()["offset"].as_i64().unwrap();
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => break,
                _ => {}
            }
        }
        newest
    }

    /// PostgreSQL accepts connections, and answers nothing.
    pub(super) fn postgres_frozen(&mut self) {
        let folder = Path::new(self.case.parts.get("POSTGRES__PASSWORD_FILE")).parent().unwrap();
        let text = std::fs::read_to_string(folder.join("postgres.pid")).unwrap();
        let server = text.split_whitespace().next().unwrap().parse::<i32>().unwrap();
        let time = self.seconds(20..=60);
        let _frozen = Frozen::new(server);
        self.pass(time);
    }
}

/// Flips a bit of the checksum of the batch that begins at this byte. A second call repairs it.
fn flip_checksum(file: &Path, begin: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, begin + 17).unwrap();
    file.write_all_at(&[byte[0] ^ 1], begin + 17).unwrap();
}

/// Processes that are stopped, and continue in any case.
struct Frozen(Vec<Pid>);

impl Frozen {
    /// Stops a server, and then its child processes.
    fn new(server: i32) -> Frozen {
        let mut frozen = Frozen(Vec::new());
        frozen.stop(server);
        for folder in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = folder.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let stat = std::fs::read_to_string(folder.path().join("stat")).unwrap_or_default();
            // The name in brackets may have spaces; the state and the parent follow it.
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent.is_some_and(|parent| parent == server.to_string()) {
                frozen.stop(pid);
            }
        }
        frozen
    }

    fn stop(&mut self, pid: i32) {
        let pid = Pid::from_raw(pid).unwrap();
        if kill_process(pid, Signal::STOP).is_ok() {
            self.0.push(pid);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The children continue before the server can start others.
        self.0.iter().rev().for_each(|pid| _ = kill_process(*pid, Signal::CONT));
    }
}
