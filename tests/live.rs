//! Tests of the event stream as a program reads it: committed rows arrive at once, each row once, over restarts of the
//! server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::common::wait_for;
use super::dashboard::{Stage, ago, anomaly};

/// A client in its own thread, which reads until the stream ends.
#[derive(Clone, Default)]
pub struct Reader(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    id: String,
    /// Number of times that each row arrived.
    rows: BTreeMap<String, u32>,
    kinds: BTreeMap<String, u32>,
    has_ended: bool,
}

impl Reader {
    /// Reconnects with the last id.
    pub fn open(&self, address: SocketAddr, query: &str) {
        let mut stream = TcpStream::connect(address).unwrap();
        let id = self.0.lock().unwrap().id.clone();
        self.0.lock().unwrap().has_ended = false;
        let last = if id.is_empty() { String::new() } else { format!("last-event-id: {id}\r\n") };
        write!(stream, "GET /events{query} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n").unwrap();
        let reader = self.clone();
        std::thread::spawn(move || {
            let mut kind = String::new();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                reader.take(&line, &mut kind);
            }
            reader.0.lock().unwrap().has_ended = true;
        });
    }

    /// Reads a message as a browser does: its id counts once the message is complete.
    fn take(&self, line: &str, kind: &mut String) {
        let mut state = self.0.lock().unwrap();
        if let Some(id) = line.strip_prefix("id: ") {
            state.id = id.to_owned();
        } else if let Some(new) = line.strip_prefix("event: ") {
            *kind = new.to_owned();
            *state.kinds.entry(new.to_owned()).or_default() += 1;
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            let rows = match kind.as_str() {
                "anomaly" => vec![data],
                "batch" => data["rows"].as_array().unwrap().clone(),
                _ => Vec::new(),
            };
            for row in rows {
                assert!(row["html"].as_str().unwrap().starts_with("<tr"), "{row}");
                *state.rows.entry(row["key"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }

    /// Returns whether a message with an id has arrived, so that later rows are not missed.
    pub fn has_begun(&self) -> bool {
        !self.0.lock().unwrap().id.is_empty()
    }

    /// Returns the keys of the rows, and how many times each arrived.
    pub fn rows(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap().rows.clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().rows.len()
    }

    pub fn wait(&self, rows: usize) {
        wait_for(&format!("{rows} rows"), Duration::from_secs(90), || self.count() >= rows);
    }

    fn end(&self) {
        wait_for("the stream to end", Duration::from_secs(90), || self.0.lock().unwrap().has_ended);
    }
}

#[test]
fn every_row_comes_once_over_restarts_of_the_server() {
    let mut stage = Stage::new();
    let row = |i: i64| anomaly("pump", i, ago(5), 24.0);
    let reader = Reader::default();
    reader.open(stage.address, "");
    wait_for("the first message", Duration::from_secs(90), || reader.has_begun());
    (1..4).for_each(|i| stage.insert(&row(i)));
    reader.wait(3);
    for round in 0..3 {
        let first = 4 + round * 20;
        // In the way of the old server, of none, and of the new one.
        stage.insert(&row(first));
        stage.restart();
        reader.end();
        stage.insert_all(&(first + 1..first + 10).map(row).collect::<Vec<_>>());
        reader.open(stage.address, "");
        (first + 10..first + 20).for_each(|i| stage.insert(&row(i)));
        reader.wait(first as usize + 19);
    }
    std::thread::sleep(Duration::from_millis(500));
    let state = reader.0.lock().unwrap();
    let expected = (1..64).map(|i| (format!("raw_events/0/0/{i}/0/point"), 1)).collect::<BTreeMap<_, _>>();
    assert_eq!(state.rows, expected);
    assert_eq!(state.kinds.get("reset"), None);
}

#[test]
fn a_stream_contains_only_matching_rows_and_health_messages() {
    let stage = Stage::new();
    let (all, one) = (Reader::default(), Reader::default());
    all.open(stage.address, "?live=off&span=1h");
    one.open(stage.address, "?device=press%2F1&severity=critical");
    wait_for("both", Duration::from_secs(90), || {
        [&all, &one].iter().all(|reader| reader.0.lock().unwrap().kinds.contains_key("health"))
    });
    stage.insert(&anomaly("press/1", 1, ago(5), 24.0));
    stage.insert(&anomaly("press/1", 2, ago(5), 21.9));
    stage.insert(&anomaly("pump", 3, ago(5), 24.0));
    all.wait(3);
    assert_eq!(one.count(), 1);
    let mut refused = TcpStream::connect(stage.address).unwrap();
    write!(refused, "GET /events?cursor=x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(refused).read_line(&mut line).unwrap();
    assert!(line.contains("400"), "{line}");
}
