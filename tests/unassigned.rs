//! Tests of partitions that the group assigns to no member. A static member that restarts gets its earlier partitions
//! again, and the group does not assign those that were added meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::blind::{Blind, Said};
use crate::common::{Case, Parts, Process, event, wait};

const STOP: Duration = Duration::from_secs(30);
/// Setting with which a single member restarts within its session.
const LONG_SESSION: (&str, &str) = ("DETECTOR__SESSION_TIMEOUT", "60s");
const CONDITION: &str = "code=\"unassigned\"";

/// Creates a case with this number of partitions in each topic, and one worker in each detector.
fn case(name: &str, partitions: usize) -> Case {
    let mut case = Case::bare(name, Parts::shared());
    case.set("TOPICS__PARTITIONS", partitions);
    case.set("DETECTOR__WORKERS", 1);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    case
}

/// Gives a topic more partitions.
fn grow(case: &Case, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let grown =
        runtime.block_on(admin.create_partitions(&[NewPartitions::new(topic, partitions)], &AdminOptions::new()));
    assert_eq!(grown.unwrap(), [Ok(topic.to_owned())]);
}

fn forced(detectors: &[Process], group: &str) -> f64 {
    let line = format!("anomaly_forced_rebalances_total{{kind=\"{group}\"}}");
    detectors.iter().map(|detector| detector.metric(&line)).sum()
}

fn is_well(detector: &Process) -> bool {
    let metrics = detector.get("/metrics").map(|(_, text)| text).unwrap_or_default();
    matches!(detector.get("/readyz"), Some((200, _))) && !metrics.contains(CONDITION)
}

#[test]
fn partitions_that_are_added_while_the_detectors_restart_are_judged_after_one_forced_rebalance() {
    let case = case("unassigned", 2);
    case.produce((0..20).map(|i| event(&format!("d{i}"), 1.0)));
    let start = || ["a", "b"].map(|name| case.detector(name, &[]));
    let detectors = start();
    wait("the first records", || case.committed() == 20);
    detectors.iter().for_each(Process::wait_ready);
    detectors.into_iter().for_each(|detector| assert!(detector.terminate(STOP).success()));
    // The restart must follow within the session.
    grow(&case, &case.raw(), 5);
    let (detectors, began) = (start(), Instant::now());
    case.ok(&["topics"]);
    case.produce((0..400).map(|i| event(&format!("d{i}"), 1.0)));
    wait("all records to be judged", || case.committed() == 420);
    println!("judged {:?} after the restart", began.elapsed());
    assert_eq!(forced(&detectors, "detector"), 1.0, "only one member forces the rebalance");
    wait("the detectors to be well", || detectors.iter().all(is_well));
}

#[test]
fn partitions_of_the_anomalies_that_are_added_while_the_sink_restarts_are_stored_after_one_forced_rebalance() {
    let case = case("unstored", 2);
    let values = |device: usize| (0..40).map(move |i| event(&format!("d{device}"), f64::from(i % 7)));
    case.produce((0..20).flat_map(values));
    let detector = case.detector("a", &[LONG_SESSION]);
    wait("the first records", || case.committed() == 800);
    detector.wait_ready();
    assert!(detector.terminate(STOP).success());
    grow(&case, &case.anomalies(), 5);
    let (detector, began) = (case.detector("a", &[LONG_SESSION]), Instant::now());
    case.produce((0..20).map(|device| event(&format!("d{device}"), 500.0)));
    wait("all anomalies to be stored", || case.count("anomalies") == 20);
    println!("stored {:?} after the restart", began.elapsed());
    let partitions =
        case.read(&case.anomalies()).iter().map(|got| got.partition).collect::<std::collections::BTreeSet<_>>();
    assert!(partitions.iter().any(|partition| *partition >= 2), "no anomaly is in an added partition: {partitions:?}");
    let detectors = [detector];
    assert_eq!((forced(&detectors, "sink"), forced(&detectors, "detector")), (1.0, 0.0));
    wait("the detector to be well", || is_well(&detectors[0]));
}

#[test]
fn partitions_that_a_rebalance_does_not_assign_are_reported_and_no_further_rebalance_is_forced_at_once() {
    let case = case("excluded", 4);
    let leader = SelectiveLeader::join(&case);
    let blind = Blind::start(case, &[("DETECTOR__SESSION_TIMEOUT", "6s")]);
    let words = format!("3 partitions of {} are assigned to no member ([1]; [2]; [3])", blind.case.raw());
    blind.see(&Said { code: "unassigned", words: &words, is_degraded: true });
    assert_eq!(blind.detector.metric("anomaly_forced_rebalances_total{kind=\"detector\"}"), 1.0);
    leader.leave();
    wait("the detector to be well", || is_well(&blind.detector));
}

#[test]
fn a_detector_that_is_assigned_partitions_of_a_deleted_topic_gets_the_others_and_says_that_it_was_recreated() {
    let case = case("lacking", 4);
    case.produce((0..20).map(|i| event(&format!("d{i}"), 1.0)));
    let detector = case.detector("a", &[LONG_SESSION]);
    wait("the first records", || case.committed() == 20);
    detector.wait_ready();
    assert!(detector.terminate(STOP).success());
    recreate(&case, &case.raw(), 2);
    let (mut detector, began) = (case.detector("a", &[LONG_SESSION]), Instant::now());
    let status = detector.exit(Duration::from_secs(180));
    println!("stopped {:?} after the restart", began.elapsed());
    let log = detector.log();
    assert_eq!(status.code(), Some(65), "{log}");
    let lacking = format!("assigns partitions that {} does not have ([2]; [3])", case.raw());
    assert!(log.contains(&lacking) && log.contains("was recreated"), "{log}");
}

/// Deletes a topic, and creates it with this number of partitions.
fn recreate(case: &Case, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = AdminOptions::new();
    runtime.block_on(admin.delete_topics(&[topic], &options)).unwrap();
    let fresh = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    wait("the topic to be created again", || {
        let results = runtime.block_on(admin.create_topics([&fresh], &options)).unwrap();
        results.iter().all(Result::is_ok)
    });
}

/// A member of the detector's group that is its leader, as of another program version with another assignor: it assigns
/// only partition 0, to the first detector.
struct SelectiveLeader {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl SelectiveLeader {
    /// Joins the empty group, as its leader.
    fn join(case: &Case) -> SelectiveLeader {
        let is_over = Arc::new(AtomicBool::new(false));
        let (group, topic) = (format!("{}-detector", case.name), case.raw());
        let (mut member, theirs) = (GroupMember::new(case.parts.brokers(), &group, &topic), is_over.clone());
        wait("the coordinator", || member.join());
        let thread = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                if !member.is_stable() {
                    member.join();
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            member.leave();
        });
        SelectiveLeader { is_over, thread }
    }

    fn leave(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// The client side of Kafka's group protocol, in its first version.
struct GroupMember {
    connection: TcpStream,
    group: String,
    topic: String,
    id: String,
    generation: i32,
}

impl GroupMember {
    fn new(broker: &str, group: &str, topic: &str) -> GroupMember {
        let (connection, group, topic) = (TcpStream::connect(broker).unwrap(), group.to_owned(), topic.to_owned());
        GroupMember { connection, group, topic, id: String::new(), generation: 0 }
    }

    /// Joins the group, and assigns the partitions. Returns false if the coordinator refuses.
    fn join(&mut self) -> bool {
        let metadata = bytes(&[number16(0), number32(1), text(&self.topic), number32(-1)].concat());
        let body = [
            text(&self.group),
            number32(6_000),
            text(&self.id),
            text("consumer"),
            number32(1),
            text("range"),
            metadata,
        ];
        let answer = self.ask(11, &body.concat());
        let mut answer = Answer(&answer);
        if answer.number16() != 0 {
            return false;
        }
        self.generation = answer.number32();
        let (_protocol, leader) = (answer.text(), answer.text());
        self.id = answer.text();
        assert_eq!(leader, self.id, "it is the leader");
        let members = (0..answer.number32()).map(|_| (answer.text(), answer.bytes()).0).collect::<Vec<_>>();
        let assigned = members.iter().flat_map(|member| {
            let partitions =
                if member.starts_with("a-0-") { vec![number32(1), number32(0)] } else { vec![number32(0)] };
            let topics = [number16(0), number32(1), text(&self.topic), partitions.concat(), number32(-1)].concat();
            [text(member), bytes(&topics)].concat()
        });
        let assigned = assigned.collect::<Vec<_>>();
        let head =
            [text(&self.group), number32(self.generation), text(&self.id), number32(members.len() as i32)].concat();
        Answer(&self.ask(14, &[head, assigned].concat())).number16() == 0
    }

    /// Sends a heartbeat. Returns whether the group is stable.
    fn is_stable(&mut self) -> bool {
        let body = [text(&self.group), number32(self.generation), text(&self.id)].concat();
        Answer(&self.ask(12, &body)).number16() == 0
    }

    fn leave(&mut self) {
        let body = [text(&self.group), text(&self.id)].concat();
        assert_eq!(Answer(&self.ask(13, &body)).number16(), 0);
    }

    /// Sends a request of version 0, and returns its answer.
    fn ask(&mut self, api: i16, body: &[u8]) -> Vec<u8> {
        // The client id of a detector.
        let request = [&number16(api)[..], &number16(0), &number32(0), &text("anomaly"), body].concat();
        self.connection.write_all(&bytes(&request)).unwrap();
        let mut length = [0; 4];
        self.connection.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.connection.read_exact(&mut answer).unwrap();
        answer.split_off(4)
    }
}

fn number16(number: i16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn number32(number: i32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn text(text: &str) -> Vec<u8> {
    [&number16(text.len() as i16)[..], text.as_bytes()].concat()
}

fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&number32(bytes.len() as i32)[..], bytes].concat()
}

/// The rest of an answer.
struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    fn take(&mut self, length: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn number32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.number16() as usize;
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.number32() as usize;
        self.take(length).to_vec()
    }
}
