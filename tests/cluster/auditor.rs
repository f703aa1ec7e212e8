//! Reads all topics continuously and compares them with the oracle. Duplicates, wrong order and wrong verdicts are
//! found at once; missing records are found at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::common::Case;
use crate::oracle::Oracle;

/// Partition and offset of an event.
type Place = (i32, i64);
/// Device, value, and the bits of mean and deviation.
pub type Figures = (String, u64, u64, u64);
type DeadLetter = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The expected and the observed records.
pub struct Books {
    oracle: Oracle,
    /// Next offset of each partition that the oracle judges.
    judged: BTreeMap<i32, i64>,
    expected: BTreeMap<Place, Figures>,
    /// Anomalies that were read before the oracle judged their events.
    early: BTreeMap<Place, Figures>,
    pub found: BTreeMap<Place, Figures>,
    edges: Vec<Place>,
    dead_letters_expected: BTreeMap<Place, DeadLetter>,
    dead_letters_early: BTreeMap<Place, DeadLetter>,
    letters_found: BTreeSet<Place>,
    /// Offset of the last anomaly of each device.
    last: BTreeMap<(i32, String), i64>,
}

impl Books {
    pub fn new() -> Books {
        Books {
            oracle: Oracle::new(100, 30, 3),
            judged: BTreeMap::new(),
            expected: BTreeMap::new(),
            early: BTreeMap::new(),
            found: BTreeMap::new(),
            edges: Vec::new(),
            dead_letters_expected: BTreeMap::new(),
            dead_letters_early: BTreeMap::new(),
            letters_found: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }

    /// Judges the next record of a partition.
    pub fn record(&mut self, place: Place, key: Option<&[u8]>, value: Option<&[u8]>) {
        let next = self.judged.entry(place.0).or_default();
        assert_eq!(place.1, *next, "the input of partition {} has a hole", place.0);
        *next += 1;
        let json = serde_json::from_slice::<serde_json::Value>(value.unwrap_or_default());
        let event = json.ok().and_then(|json| {
            let device = json.get("device_id")?.as_str().filter(|d| !d.is_empty())?.to_owned();
            let metric = json.get("metric_name").and_then(|m| m.as_str()).unwrap_or_default().to_owned();
            Some((device, metric, json.get("metric_value")?.as_f64()?))
        });
        let Some((device, metric, value_of)) = event else {
            let dead_letter = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
            match self.dead_letters_early.remove(&place) {
                Some(early) => assert!(early == dead_letter, "the dead letter of {place:?} is not its record"),
                None => assert!(self.dead_letters_expected.insert(place, dead_letter).is_none()),
            }
            return;
        };
        assert!(!self.dead_letters_early.contains_key(&place), "{place:?} is an event, and a dead letter");
        let early = self.early.remove(&place);
        // A series belongs to its partition.
        match self.oracle.judge(&format!("{}/{device}/{metric}", place.0), value_of) {
            Some(judged) if judged.is_edge => self.edges.push(place),
            Some(judged) if judged.is_abnormal => {
                let figures = (device, value_of.to_bits(), judged.mean.to_bits(), judged.std_dev.to_bits());
                match early {
                    Some(early) => assert_eq!(early, figures, "{place:?}"),
                    None => assert!(self.expected.insert(place, figures).is_none()),
                }
            }
            _ => assert_eq!(early, None, "{place:?} is normal, and an anomaly"),
        }
    }

    /// Checks the next record of topic `anomalies`.
    pub fn anomaly(&mut self, place: Place, figures: Figures) {
        let last = self.last.insert((place.0, figures.0.clone()), place.1).unwrap_or(-1);
        assert!(self.found.insert(place, figures.clone()).is_none(), "{place:?} is in the topic twice");
        assert!(last < place.1, "{place:?} of {} comes after {last}", figures.0);
        if self.judged.get(&place.0).is_none_or(|next| place.1 >= *next) {
            self.early.insert(place, figures);
        } else if !self.edges.contains(&place) {
            let expected = self.expected.remove(&place);
            assert_eq!(expected.as_ref(), Some(&figures), "{place:?} is not the oracle's");
        }
    }

    /// Checks the next dead letter.
    pub fn dead_letter(&mut self, place: Place, dead_letter: DeadLetter) {
        assert!(self.letters_found.insert(place), "{place:?} is a dead letter twice");
        if self.judged.get(&place.0).is_none_or(|next| place.1 >= *next) {
            self.dead_letters_early.insert(place, dead_letter);
        } else {
            let expected = self.dead_letters_expected.remove(&place);
            assert!(expected == Some(dead_letter), "the dead letter of {place:?} is not its record");
        }
    }

    pub fn dead_letters(&self) -> usize {
        self.letters_found.len()
    }

    /// Returns the differences between the expected and the observed records.
    pub fn open(&self) -> Vec<String> {
        let places =
            |of: &str, places: Vec<&Place>| places.first().map(|p| format!("{} {of}, e.g. {p:?}", places.len()));
        [
            places("anomalies are missing", self.expected.keys().collect()),
            places("anomalies have no event", self.early.keys().collect()),
            places("dead letters are missing", self.dead_letters_expected.keys().collect()),
            places("dead letters have no record", self.dead_letters_early.keys().collect()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Number of partitions of each topic, as the box creates them.
const PARTITIONS: i32 = 4;
/// Timeout that is longer than any fault.
const SILENCE: Duration = Duration::from_secs(45);

/// The comparison in its own thread, which panics at the first contradiction.
pub struct Auditor {
    thread: Option<JoinHandle<Books>>,
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
}

impl Auditor {
    pub fn start(case: &Case) -> Auditor {
        let [raw, anomalies, dlq] = [case.raw(), case.anomalies(), case.dlq()];
        let mut config = case.client();
        config.set("group.id", "auditor").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        // Where to go on, by topic and partition; from the beginning, where nothing was read.
        let mut next = BTreeMap::<(String, i32), i64>::new();
        let topics = [raw.clone(), anomalies.clone(), dlq];
        let open = move |next: &BTreeMap<(String, i32), i64>| -> BaseConsumer {
            let consumer: BaseConsumer = config.create().unwrap();
            let mut list = TopicPartitionList::new();
            for place in topics.iter().flat_map(|topic| (0..PARTITIONS).map(|partition| (topic.clone(), partition))) {
                let at = next.get(&place).map_or(Offset::Beginning, |at| Offset::Offset(*at));
                list.add_partition_offset(&place.0, place.1, at).unwrap();
            }
            consumer.assign(&list).unwrap();
            consumer
        };
        let mut consumer = open(&next);
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), read.clone());
        let thread = std::thread::spawn(move || {
            let mut books = Books::new();
            let mut heard = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                // Input arrives all the time. A client without records must be created again (see src/stream/kafka/stranded.rs).
                if heard.elapsed() > SILENCE {
                    consumer = open(&next);
                    heard = Instant::now();
                }
                // Unavailable brokers are expected here.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
                heard = Instant::now();
                next.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
                if message.topic() == raw {
                    books.record((message.partition(), message.offset()), message.key(), message.payload());
                    count.fetch_add(1, Ordering::Relaxed);
                } else if message.topic() == anomalies {
                    let (place, figures) = anomaly(&message);
                    books.anomaly(place, figures);
                } else {
                    books.dead_letter(dead_letter_place(&message), dead_letter(&message));
                }
            }
            books
        });
        Auditor { thread: Some(thread), stop, read }
    }

    /// Returns the number of input records that the oracle has judged.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Panics if the thread has panicked.
    pub fn check(&mut self) {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            self.end();
        }
    }

    /// Returns the current state of the comparison.
    pub fn end(&mut self) -> Books {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().unwrap().join() {
            Ok(books) => books,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn anomaly(message: &BorrowedMessage<'_>) -> (Place, Figures) {
    let a: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
    let bits = |key: &str| a[key].as_f64().unwrap().to_bits();
    let device = a["device_id"].as_str().unwrap().to_owned();
    assert_eq!(message.key(), Some(device.as_bytes()));
    let place = (a["source"]["partition"].as_i64().unwrap() as i32, a["source"]["offset"].as_i64().unwrap());
    (place, (device, bits("metric_value"), bits("mean"), bits("std_dev")))
}

fn dead_letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec))
}

fn dead_letter_place(message: &BorrowedMessage<'_>) -> Place {
    let number = |name: &str| {
        let headers = message.headers().unwrap();
        let value = headers.iter().find(|h| h.key == name).unwrap().value.unwrap();
        std::str::from_utf8(value).unwrap().parse::<i64>().unwrap()
    };
    (number("anomaly.error.partition") as i32, number("anomaly.error.offset"))
}

/// Returns a partition with thirty values of a device, an abnormal one at offset 30, and a record that is not an event.
fn filled() -> (Books, Figures) {
    let mut books = Books::new();
    for offset in 0..31 {
        let value = if offset == 30 { 50.0 } else { (offset % 3) as f64 };
        let json = serde_json::json!({"device_id": "d", "metric_name": "m", "metric_value": value}).to_string();
        books.record((0, offset), Some(b"d"), Some(json.as_bytes()));
    }
    books.record((0, 31), Some(b"k"), Some(b"no json"));
    let figures = books.expected[&(0, 30)].clone();
    (books, figures)
}

#[test]
fn books_in_which_everything_is_there_once_balance() {
    let (mut books, figures) = filled();
    assert_eq!(books.open().len(), 2);
    books.anomaly((0, 30), figures);
    books.dead_letter((0, 31), (Some(b"k".to_vec()), Some(b"no json".to_vec())));
    assert_eq!(books.open(), Vec::<String>::new());
}

#[test]
#[should_panic(expected = "twice")]
fn an_anomaly_that_comes_twice_is_found() {
    let (mut books, figures) = filled();
    books.anomaly((0, 30), figures.clone());
    books.anomaly((0, 30), figures);
}

#[test]
#[should_panic(expected = "comes after")]
fn anomalies_of_a_device_out_of_order_are_found() {
    let (mut books, figures) = filled();
    books.anomaly((0, 40), figures.clone());
    books.anomaly((0, 35), figures);
}

#[test]
#[should_panic(expected = "not the oracle's")]
fn an_anomaly_from_a_forgotten_window_is_found() {
    let (mut books, (device, value, mean, _)) = filled();
    books.anomaly((0, 30), (device, value, mean, 0));
}

#[test]
#[should_panic(expected = "is normal, and an anomaly")]
fn an_anomaly_that_the_oracle_does_not_know_is_found_when_its_event_is_judged() {
    let (mut books, figures) = filled();
    books.anomaly((0, 32), figures);
    books.record((0, 32), Some(b"d"), Some(br#"{"device_id":"d","metric_name":"m","metric_value":1}"#));
}

#[test]
#[should_panic(expected = "is not its record")]
fn a_dead_letter_with_another_value_is_found() {
    let (mut books, _) = filled();
    books.dead_letter((0, 31), (Some(b"k".to_vec()), None));
}
