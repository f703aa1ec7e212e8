//! Exports whose clients read nothing: their number and their memory are bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anomaly::ledger::{Ledger, LedgerPosition, SinkRecord};
use anomaly::store::ledger::PostgresLedger;

use crate::common::{Case, free_port, wait_for};
use crate::dashboard::{ago, anomaly};

const ROWS: i64 = 4_000;

/// Requests the export of all rows; returns the connection and the head of the answer.
fn request(listen: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(listen).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /api/v1/anomalies.jsonl HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

#[test]
fn clients_that_read_nothing_of_an_export_take_few_places_and_little_memory() {
    let case = Case::new("exports");
    let settings = crate::heartbeat::settings(&case);
    let mut ledger = PostgresLedger::new(&settings.postgres, "sink", "anomalies");
    ledger.begin(0, &LedgerPosition { next: 0, topic_id: None }).unwrap();
    let record = |offset: i64| {
        let mut anomaly = anomaly("pump", offset, ago(60), 99.0);
        anomaly.window = (0..2_000).map(|i| f64::from(i) / 7.0).collect();
        let (key, value, detected_at) = (None, Vec::new(), anomaly.timestamp.unwrap());
        SinkRecord { partition: 0, offset, key, value, detected_at, anomaly: Ok(anomaly) }
    };
    for from in (0..ROWS).step_by(500) {
        let records = (from..from + 500).map(record).collect::<Vec<_>>();
        ledger.write(&records, &[(0, (from, from + 500))].into()).unwrap();
    }
    let listen = format!("127.0.0.1:{}", free_port());
    let dashboard = case.role("dashboard", &[("DASHBOARD__LISTEN", &listen)]);
    wait_for("the pages", Duration::from_secs(90), || TcpStream::connect(&listen).is_ok());
    let before = dashboard.mebibytes("VmRSS:");
    let answers = (0..60).map(|_| request(&listen)).collect::<Vec<_>>();
    let is = |status: &'static str| move |(_, head): &&(TcpStream, String)| head.starts_with(status);
    let sent = answers.iter().filter(is("HTTP/1.1 200")).count();
    assert_eq!(sent, 8, "exports at the same time");
    let busy = answers.iter().filter(is("HTTP/1.1 503")).collect::<Vec<_>>();
    assert_eq!(busy.len(), 52);
    assert!(busy.iter().all(|(_, head)| head.contains("retry-after: 10")), "{}", busy[0].1);
    let grown = dashboard.mebibytes("VmHWM:") - before;
    println!("{grown} MiB for {sent} exports");
    // Each reads 200 rows of about 35 kB at a time, once as rows and once as text.
    assert!(grown < 300, "{grown} MiB more");
    drop(answers);
    let mut last = String::new();
    wait_for("a free place", Duration::from_secs(60), || {
        let (mut stream, head) = request(&listen);
        let is_sent = head.starts_with("HTTP/1.1 200");
        if is_sent {
            stream.read_to_string(&mut last).unwrap();
        }
        is_sent
    });
    assert_eq!(last.matches("\"device_id\":\"pump\"").count() as i64, ROWS, "a client that reads gets everything");
    assert!(last.ends_with("\r\n0\r\n\r\n"), "the body is complete");
}
