//! Reads all topics continuously and compares them with the oracle. Missing records are found once no input arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::books::{Books, Change, DeadLetter, Figures, Place};
use crate::common::Case;

/// Number of partitions of each topic, as the box creates them.
const PARTITIONS: i32 = 4;
/// Timeout that is longer than any fault.
const SILENCE: Duration = Duration::from_secs(45);

/// An order to the thread of the auditor.
enum Order {
    /// Reads no longer from this topic.
    Leave(String),
    /// Reads from this topic again, after these changes.
    Enter(String, Vec<Change>),
}

/// What the auditor has read.
#[derive(Debug, Default, Clone)]
struct Standing {
    /// Next offset of the input, by partition.
    next: BTreeMap<i32, i64>,
    /// The differences between the expected and the observed records.
    open: Vec<String>,
}

/// The comparison in its own thread, which panics at the first contradiction.
pub struct Auditor {
    thread: Option<JoinHandle<Books>>,
    stop: Arc<AtomicBool>,
    orders: mpsc::Sender<(Order, mpsc::Sender<()>)>,
    standing: Arc<Mutex<Standing>>,
}

/// The client of the auditor, and the positions where it continues.
struct Reader {
    config: ClientConfig,
    topics: BTreeSet<String>,
    /// Next offset by topic and partition; the beginning, where nothing was read.
    next: BTreeMap<(String, i32), i64>,
}

impl Reader {
    fn open(&self) -> BaseConsumer {
        let consumer: BaseConsumer = self.config.create().unwrap();
        let mut list = TopicPartitionList::new();
        for place in self.topics.iter().flat_map(|topic| (0..PARTITIONS).map(|partition| (topic.clone(), partition))) {
            let at = self.next.get(&place).map_or(Offset::Beginning, |at| Offset::Offset(*at));
            list.add_partition_offset(&place.0, place.1, at).unwrap();
        }
        consumer.assign(&list).unwrap();
        consumer
    }

    /// Obeys an order; the client must be created again.
    fn obey(&mut self, order: Order, books: &mut Books) {
        match order {
            Order::Leave(topic) => _ = self.topics.remove(&topic),
            Order::Enter(topic, changes) => {
                for change in changes {
                    books.change(&change);
                    match change {
                        Change::Again { partition, .. } => _ = self.next.remove(&(topic.clone(), partition)),
                        Change::AnomaliesRecreated(_) => self.next.retain(|(known, _), _| *known != topic),
                        Change::Quiet(..) | Change::Damaged(..) => {}
                    }
                }
                self.topics.insert(topic);
            }
        }
    }
}

impl Auditor {
    pub fn start(case: &Case) -> Auditor {
        let [raw, anomalies, dlq] = [case.raw(), case.anomalies(), case.dlq()];
        let mut config = case.client();
        config.set("group.id", "auditor").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        let topics = BTreeSet::from([raw.clone(), anomalies.clone(), dlq]);
        let mut reader = Reader { config, topics, next: BTreeMap::new() };
        let mut consumer = reader.open();
        let (stop, standing) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Standing>>::default());
        let (stopped, shown) = (stop.clone(), standing.clone());
        let (orders, received) = mpsc::channel::<(Order, mpsc::Sender<()>)>();
        let thread = std::thread::spawn(move || {
            let mut books = Books::new();
            let mut heard = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((order, done)) = received.try_recv() {
                    reader.obey(order, &mut books);
                    (consumer, heard) = (reader.open(), Instant::now());
                    *shown.lock().unwrap() = Standing { next: books.judged.clone(), open: books.open() };
                    let _ = done.send(());
                }
                // Input arrives all the time. A client without records must be created again (see src/stream/kafka/stranded.rs).
                if heard.elapsed() > SILENCE {
                    (consumer, heard) = (reader.open(), Instant::now());
                }
                // Unavailable brokers are expected here.
                let message = consumer.poll(Duration::from_millis(200));
                let Some(Ok(message)) = message else {
                    *shown.lock().unwrap() = Standing { next: books.judged.clone(), open: books.open() };
                    continue;
                };
                heard = Instant::now();
                let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                reader.next.insert((topic.to_owned(), partition), offset + 1);
                if topic == raw {
                    books.record((partition, offset), message.key(), message.payload());
                } else if topic == anomalies {
                    let (place, figures) = anomaly(&message);
                    books.anomaly(place, figures);
                    books.stored.insert(place, (partition, offset));
                } else {
                    books.dead_letter(dead_letter_place(&message), dead_letter(&message));
                }
            }
            books
        });
        Auditor { thread: Some(thread), stop, orders, standing }
    }

    /// Returns whether the oracle has judged each partition to these offsets, and every output that it expects was read.
    /// Otherwise what is missing.
    pub fn is_level(&self, ends: &[i64]) -> Result<(), String> {
        let has_read = self.has_read(ends);
        let standing = self.standing.lock().unwrap().clone();
        if has_read && standing.open.is_empty() { Ok(()) } else { Err(format!("{standing:?} of {ends:?}")) }
    }

    /// Returns whether the oracle has judged each partition to these offsets.
    pub fn has_read(&self, ends: &[i64]) -> bool {
        let standing = self.standing.lock().unwrap();
        (0..).zip(ends).all(|(partition, end)| standing.next.get(&partition).copied().unwrap_or(0) >= *end)
    }

    /// Stops reading a topic, which may then be changed.
    pub fn leave(&mut self, topic: &str) {
        self.order(Order::Leave(topic.to_owned()));
    }

    /// Reads a topic again, after these changes.
    pub fn enter(&mut self, topic: &str, changes: Vec<Change>) {
        self.order(Order::Enter(topic.to_owned(), changes));
    }

    fn order(&mut self, order: Order) {
        let (done, obeyed) = mpsc::channel();
        if self.orders.send((order, done)).is_err() || obeyed.recv_timeout(Duration::from_secs(60)).is_err() {
            self.check();
            panic!("the auditor does not obey");
        }
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
    let number = |key: &str| a["source"][key].as_i64().unwrap();
    let (generation, partition) = (number("generation") as i32, number("partition") as i32);
    let place = Place { generation, partition, offset: number("offset") };
    (place, (device, bits("metric_value"), bits("mean"), bits("std_dev")))
}

fn dead_letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec))
}

fn dead_letter_place(message: &BorrowedMessage<'_>) -> (i32, i64) {
    let number = |name: &str| {
        let headers = message.headers().unwrap();
        let value = headers.iter().find(|h| h.key == name).unwrap().value.unwrap();
        std::str::from_utf8(value).unwrap().parse::<i64>().unwrap()
    };
    (number("anomaly.error.partition") as i32, number("anomaly.error.offset"))
}
