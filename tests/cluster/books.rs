//! The records that the oracle expects and those that the topics have. Duplicates, wrong order and wrong verdicts are
//! found at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::oracle::Oracle;

/// A change of what the oracle expects, after a fault.
#[derive(Debug, Clone)]
pub enum Change {
    /// Records of a partition before an offset count as skipped. Their values fill the windows.
    Quiet(i32, i64),
    /// Records of a partition that cannot be read.
    Damaged(i32, Range<i64>),
    /// The partition has another log from this offset on, in the next generation. The oracle reads it from the beginning,
    /// and `with_damaged` also what could not be read before.
    Again { partition: i32, from: i64, with_damaged: bool },
    /// The topic of anomalies is a new one, and the ledger had these offsets in the earlier one.
    AnomaliesRecreated(BTreeMap<i32, i64>),
}

/// A record of the input: the generation of its partition, partition and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub generation: i32,
    pub partition: i32,
    pub offset: i64,
}

/// Device, value, and the bits of mean and deviation.
pub type Figures = (String, u64, u64, u64);
pub type DeadLetter = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The expected and the observed records.
pub struct Books {
    oracle: Oracle,
    /// Generation of each partition; 0 if it is not there.
    generations: BTreeMap<i32, i32>,
    /// Next offset of each partition that the oracle judges.
    pub judged: BTreeMap<i32, i64>,
    /// Records of a partition before this offset fill the windows, and have no outcome.
    quiet: BTreeMap<i32, i64>,
    /// Records that cannot be read: they have no outcome, and their values do not fill the windows.
    damaged: Vec<(i32, Range<i64>)>,
    expected: BTreeMap<Place, Figures>,
    /// Anomalies that were read before the oracle judged their events.
    early: BTreeMap<Place, Figures>,
    pub found: BTreeMap<Place, Figures>,
    edges: Vec<Place>,
    dead_letters_expected: BTreeMap<Place, DeadLetter>,
    dead_letters_early: BTreeMap<Place, DeadLetter>,
    dead_letters_found: BTreeSet<Place>,
    /// Offset of the last anomaly of each device, by generation, partition and device.
    last: BTreeMap<(i32, i32, String), i64>,
    /// Partition and offset in the present topic of anomalies.
    pub stored: BTreeMap<Place, (i32, i64)>,
    /// Anomalies that were deleted with their topic before the sink had read them.
    pub lost: BTreeSet<Place>,
    /// Number of records that have an outcome.
    pub records: u64,
}

impl Books {
    pub fn new() -> Books {
        Books {
            oracle: Oracle::new(100, 30, 3),
            generations: BTreeMap::new(),
            judged: BTreeMap::new(),
            quiet: BTreeMap::new(),
            damaged: Vec::new(),
            expected: BTreeMap::new(),
            early: BTreeMap::new(),
            found: BTreeMap::new(),
            edges: Vec::new(),
            dead_letters_expected: BTreeMap::new(),
            dead_letters_early: BTreeMap::new(),
            dead_letters_found: BTreeSet::new(),
            last: BTreeMap::new(),
            stored: BTreeMap::new(),
            lost: BTreeSet::new(),
            records: 0,
        }
    }

    /// Returns the place of a record in the present generation of its partition.
    fn place(&self, partition: i32, offset: i64) -> Place {
        Place { generation: self.generations.get(&partition).copied().unwrap_or(0), partition, offset }
    }

    /// Returns whether the oracle has not judged this record yet.
    fn is_ahead(&self, place: Place) -> bool {
        let Place { generation, offset, .. } = self.place(place.partition, place.offset);
        let next = self.judged.get(&place.partition).copied().unwrap_or(0);
        place.generation > generation || (place.generation == generation && offset >= next)
    }

    /// Changes what the oracle expects of the next records, as a fault demands.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Quiet(partition, before) => _ = self.quiet.insert(*partition, *before),
            Change::Damaged(partition, range) => self.damaged.push((*partition, range.clone())),
            Change::Again { partition, from, with_damaged } => {
                *self.generations.entry(*partition).or_default() += 1;
                self.judged.insert(*partition, 0);
                self.quiet.insert(*partition, *from);
                if *with_damaged {
                    self.damaged.retain(|(damaged, _)| damaged != partition);
                }
            }
            Change::AnomaliesRecreated(ledger) => {
                let is_lost =
                    |(partition, offset): &(i32, i64)| ledger.get(partition).is_none_or(|next| offset >= next);
                let stored = std::mem::take(&mut self.stored);
                self.lost.extend(stored.iter().filter(|(_, at)| is_lost(at)).map(|(place, _)| *place));
            }
        }
    }

    /// Judges the next record of a partition.
    pub fn record(&mut self, (partition, offset): (i32, i64), key: Option<&[u8]>, value: Option<&[u8]>) {
        let place = self.place(partition, offset);
        let next = self.judged.entry(partition).or_default();
        assert_eq!(offset, *next, "the input of partition {partition} has a hole");
        *next += 1;
        if self.damaged.iter().any(|(damaged, range)| *damaged == partition && range.contains(&offset)) {
            return;
        }
        let is_quiet = self.quiet.get(&partition).is_some_and(|before| offset < *before);
        self.records += u64::from(!is_quiet);
        let json = serde_json::from_slice::<serde_json::Value>(value.unwrap_or_default());
        let event = json.ok().and_then(|json| {
            let device = json.get("device_id")?.as_str().filter(|d| !d.is_empty())?.to_owned();
            let metric = json.get("metric_name").and_then(|m| m.as_str()).unwrap_or_default().to_owned();
            Some((device, metric, json.get("metric_value")?.as_f64()?))
        });
        let Some((device, metric, value_of)) = event else {
            if is_quiet {
                return;
            }
            let dead_letter = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
            match self.dead_letters_early.remove(&place) {
                Some(early) => assert!(early == dead_letter, "the dead letter of {place:?} is not its record"),
                None => assert!(self.dead_letters_expected.insert(place, dead_letter).is_none()),
            }
            return;
        };
        assert!(!self.dead_letters_early.contains_key(&place), "{place:?} is an event, and a dead letter");
        // A series belongs to its partition.
        let judged = self.oracle.judge(&format!("{}/{partition}/{device}/{metric}", place.generation), value_of);
        if is_quiet {
            return;
        }
        let early = self.early.remove(&place);
        match judged {
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
        let Place { generation, partition, offset } = place;
        let last = self.last.insert((generation, partition, figures.0.clone()), offset).unwrap_or(-1);
        assert!(self.found.insert(place, figures.clone()).is_none(), "{place:?} is in the topic twice");
        assert!(last < offset, "{place:?} of {} comes after {last}", figures.0);
        if self.is_ahead(place) {
            self.early.insert(place, figures);
        } else if !self.edges.contains(&place) {
            let expected = self.expected.remove(&place);
            assert_eq!(expected.as_ref(), Some(&figures), "{place:?} is not the oracle's");
        }
    }

    /// Checks the next dead letter.
    pub fn dead_letter(&mut self, (partition, offset): (i32, i64), dead_letter: DeadLetter) {
        let place = self.place(partition, offset);
        assert!(self.dead_letters_found.insert(place), "{place:?} is a dead letter twice");
        if self.is_ahead(place) {
            self.dead_letters_early.insert(place, dead_letter);
        } else {
            let expected = self.dead_letters_expected.remove(&place);
            assert!(expected == Some(dead_letter), "the dead letter of {place:?} is not its record");
        }
    }

    pub fn dead_letters(&self) -> usize {
        self.dead_letters_found.len()
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

/// Returns a place in the first generation of partition 0.
fn at(offset: i64) -> Place {
    Place { generation: 0, partition: 0, offset }
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
    let figures = books.expected[&at(30)].clone();
    (books, figures)
}

#[test]
fn books_in_which_everything_is_there_once_balance() {
    let (mut books, figures) = filled();
    assert_eq!(books.open().len(), 2);
    books.anomaly(at(30), figures);
    books.dead_letter((0, 31), (Some(b"k".to_vec()), Some(b"no json".to_vec())));
    assert_eq!(books.open(), Vec::<String>::new());
}

#[test]
#[should_panic(expected = "twice")]
fn an_anomaly_that_comes_twice_is_found() {
    let (mut books, figures) = filled();
    books.anomaly(at(30), figures.clone());
    books.anomaly(at(30), figures);
}

#[test]
#[should_panic(expected = "comes after")]
fn anomalies_of_a_device_out_of_order_are_found() {
    let (mut books, figures) = filled();
    books.anomaly(at(40), figures.clone());
    books.anomaly(at(35), figures);
}

#[test]
#[should_panic(expected = "not the oracle's")]
fn an_anomaly_from_a_forgotten_window_is_found() {
    let (mut books, (device, value, mean, _)) = filled();
    books.anomaly(at(30), (device, value, mean, 0));
}

#[test]
#[should_panic(expected = "is normal, and an anomaly")]
fn an_anomaly_that_the_oracle_does_not_know_is_found_when_its_event_is_judged() {
    let (mut books, figures) = filled();
    books.anomaly(at(32), figures);
    books.record((0, 32), Some(b"d"), Some(br#"{"device_id":"d","metric_name":"m","metric_value":1}"#));
}

#[test]
#[should_panic(expected = "is not its record")]
fn a_dead_letter_with_another_value_is_found() {
    let (mut books, _) = filled();
    books.dead_letter((0, 31), (Some(b"k".to_vec()), None));
}

#[test]
#[should_panic(expected = "is not the oracle's")]
fn an_anomaly_of_a_skipped_record_is_found() {
    let (mut books, figures) = filled();
    books.change(&Change::Quiet(0, 33));
    books.record((0, 32), Some(b"d"), Some(br#"{"device_id":"d","metric_name":"m","metric_value":99}"#));
    books.anomaly(at(32), figures);
}

#[test]
fn a_log_with_other_records_is_expected_in_the_next_generation_from_where_it_differs() {
    let (mut books, figures) = filled();
    books.anomaly(at(30), figures.clone());
    books.dead_letter((0, 31), (Some(b"k".to_vec()), Some(b"no json".to_vec())));
    books.change(&Change::Again { partition: 0, from: 30, with_damaged: false });
    for offset in 0..31 {
        let value = if offset == 30 { 50.0 } else { (offset % 3) as f64 };
        let json = serde_json::json!({"device_id": "d", "metric_name": "m", "metric_value": value}).to_string();
        books.record((0, offset), Some(b"d"), Some(json.as_bytes()));
    }
    let next = Place { generation: 1, ..at(30) };
    assert_eq!(books.expected.keys().collect::<Vec<_>>(), [&next]);
    books.anomaly(next, figures);
    assert_eq!(books.open(), Vec::<String>::new());
}
