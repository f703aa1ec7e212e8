//! What subscribers get: every row once and in order, also after they reconnect.

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::hub::*;
use super::*;
use crate::archive::StoredAnomaly;
use crate::archive::{CommittedAnomaly, Review};
use crate::event::Timestamp;
use crate::page::chart::spark::tests::sample;

fn committed(sink: i32, offset: i64) -> (CommittedAnomaly, String) {
    let anomaly = crate::anomaly::Anomaly { device_id: format!("pump-{}", offset % 2), ..sample(24.0) };
    let detected_at = Timestamp::from_millis(0).unwrap();
    let record = StoredAnomaly { anomaly, detected_at, review: Review::None, is_newest_generation: true };
    (CommittedAnomaly { sink, offset, record }, format!("{{\"row\":\"{sink}-{offset}\"}}"))
}

fn hub(position: &str) -> Hub {
    let hub = Hub::new(Arc::default());
    hub.lock().recent.restart(Cursor::parse(position).unwrap());
    hub.begin();
    hub
}

fn selection(query: &str) -> Selection {
    Selection::of(&PageQuery::read(query, crate::page::query::STREAM).unwrap())
}

/// Returns the rows that have arrived, and the last id.
fn arrived(body: &mut mpsc::Receiver<Bytes>) -> (Vec<String>, String) {
    let (mut rows, mut id) = (Vec::new(), String::new());
    while let Ok(message) = body.try_recv() {
        let text = String::from_utf8(message.to_vec()).unwrap();
        for line in text.lines() {
            if let Some(new) = line.strip_prefix("id: ") {
                id = new.to_owned();
            }
            rows.extend(line.split("\"row\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
        assert!(text.ends_with("\n\n"), "{text:?}");
        if text.contains("event: reset") {
            rows.push("reset".to_owned());
        }
    }
    (rows, id)
}

#[test]
fn a_subscriber_that_reconnects_gets_each_missed_row_once() {
    let hub = hub("c1-10.2-20");
    let mut body = hub.subscribe(selection(""), None, None).unwrap();
    hub.publish(vec![committed(1, 10), committed(2, 21)], &Cursor::parse("c1-11.2-22").unwrap());
    let (rows, id) = arrived(&mut body);
    assert_eq!((rows, id.as_str()), (vec!["1-10".to_owned(), "2-21".to_owned()], "c1-11.2-22"));
    drop(body);
    hub.publish(vec![committed(1, 11)], &Cursor::parse("c1-12.2-22").unwrap());
    hub.publish((12..30).map(|offset| committed(1, offset)).collect(), &Cursor::parse("c1-30.2-22").unwrap());
    let mut again = hub.subscribe(selection(""), Cursor::parse(&id).as_ref(), None).unwrap();
    let (mut rows, id) = arrived(&mut again);
    rows.sort();
    assert_eq!(rows, (11..30).map(|offset| format!("1-{offset}")).collect::<Vec<_>>());
    assert_eq!(id, "c1-30.2-22");
    // The position lies between two sinks' rows: only the second of them is missing.
    let mut between = hub.subscribe(selection(""), Cursor::parse("c1-29.2-21").as_ref(), None).unwrap();
    assert_eq!(arrived(&mut between).0, ["2-21", "1-29"]);
}

#[test]
fn a_cursor_that_is_too_old_or_of_another_database_causes_a_reset() {
    let hub = hub("c1-10");
    for cursor in ["c1-9", "c", "c1-11", "c1-10.7-3"] {
        let mut body = hub.subscribe(selection(""), Cursor::parse(cursor).as_ref(), None).unwrap();
        assert_eq!(arrived(&mut body).0, ["reset"], "{cursor}");
    }
    let rows = (10..10 + recent::MAX_RECENT_ROWS as i64 + 5).map(|offset| committed(1, offset)).collect();
    hub.publish(rows, &Cursor::parse("c1-4111").unwrap());
    let mut gone = hub.subscribe(selection(""), Cursor::parse("c1-14").as_ref(), None).unwrap();
    assert_eq!(arrived(&mut gone).0, ["reset"]);
    assert!(hub.lock().recent.since(&Cursor::parse("c1-15").unwrap()).is_some());
}

#[test]
fn a_subscriber_ahead_of_the_follower_waits_for_it_and_gets_each_row_once() {
    let hub = hub("c1-10");
    std::thread::scope(|scope| {
        let subscriber = scope.spawn(|| hub.subscribe(selection(""), Cursor::parse("c1-12").as_ref(), None).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
        hub.publish((10..13).map(|offset| committed(1, offset)).collect(), &Cursor::parse("c1-13").unwrap());
        assert_eq!(arrived(&mut subscriber.join().unwrap()).0, ["1-12"]);
    });
}

#[test]
fn no_subscriber_is_admitted_before_the_follower_has_begun() {
    let hub = Hub::new(Arc::default());
    assert!(hub.subscribe(selection(""), None, None).is_none());
    hub.begin();
    assert!(hub.subscribe(selection(""), None, None).is_some());
}

#[test]
fn only_rows_that_match_are_sent() {
    let hub = hub("c1-0");
    let mut subscribers = ["device=pump-1", "severity=warning", "q=UMP-0", "review=true", "metric=other", ""]
        .map(|query| hub.subscribe(selection(query), None, None).unwrap());
    hub.publish((0..3).map(|offset| committed(1, offset)).collect(), &Cursor::parse("c1-3").unwrap());
    let counts = subscribers.each_mut().map(|body| arrived(body).0.len());
    assert_eq!(counts, [1, 0, 2, 0, 0, 3]);
}

#[test]
fn a_slow_subscriber_is_disconnected_and_a_burst_is_one_message() {
    let hub = hub("c1-0");
    let mut slow = hub.subscribe(selection(""), None, None).unwrap();
    let burst = |from: i64| (from..from + 200).map(|offset| committed(1, offset)).collect::<Vec<_>>();
    hub.publish(burst(0), &Cursor::parse("c1-200").unwrap());
    let (rows, _) = arrived(&mut slow);
    assert_eq!((rows.len(), rows[0].as_str()), (MAX_ROWS, "1-199"));
    for i in 1..=QUEUED as i64 + 1 {
        hub.publish(burst(i * 200), &Cursor::parse(&format!("c1-{}", (i + 1) * 200)).unwrap());
    }
    assert!(hub.lock().subscribers.is_empty(), "the slow subscriber is still connected");
    let (_, id) = arrived(&mut slow);
    assert!(slow.try_recv().is_err());
    // With the last id that it received it can continue, or it gets a reset.
    assert!(hub.subscribe(selection(""), Cursor::parse(&id).as_ref(), None).is_some());
}

#[test]
fn a_stream_ends_with_its_session_and_others_go_on() {
    let hub = hub("c1-0");
    let [ada, bob] = ["a", "b"].map(crate::page::auth::SessionKey::of);
    let mut bodies = [Some(ada), Some(bob), None].map(|of| hub.subscribe(selection(""), None, of).unwrap());
    hub.end_without_session(|session| *session == bob);
    bodies.iter_mut().for_each(|body| drop(arrived(body)));
    assert_eq!(bodies.map(|body| body.is_closed()), [true, false, false]);
}

#[test]
fn a_stop_ends_all_streams() {
    let hub = hub("c1-0");
    let mut body = hub.subscribe(selection(""), None, None).unwrap();
    hub.stop.request();
    hub.close();
    arrived(&mut body);
    assert!(body.is_closed() && hub.subscribe(selection(""), None, None).is_none());
}

#[test]
fn a_program_gets_each_record_as_the_api_gives_it_and_none_is_left_out() {
    let hub = hub("c1-10");
    let mut live = hub.subscribe(selection("format=json"), None, None).unwrap();
    hub.publish((10..300).map(|offset| committed(1, offset)).collect(), &Cursor::parse("c1-300").unwrap());
    let mut again =
        hub.subscribe(selection("format=json&device=pump-1"), Cursor::parse("c1-10").as_ref(), None).unwrap();
    for (body, count) in [(&mut live, 290), (&mut again, 145)] {
        let (mut records, mut last) = (Vec::new(), String::new());
        while let Ok(message) = body.try_recv() {
            let text = String::from_utf8(message.to_vec()).unwrap();
            let lines = |start: &'static str| text.lines().filter_map(move |line| line.strip_prefix(start));
            last = lines("id: ").next_back().unwrap_or(&last).to_owned();
            records.extend(lines("data: ").map(|data| serde_json::from_str::<serde_json::Value>(data).unwrap()));
        }
        assert_eq!((records.len(), last.as_str()), (count, "c1-300"));
        assert!(records.iter().all(|record| record["metric_value"].is_f64() && record["detected_at"].is_string()));
    }
    assert!(PageQuery::read("format=xml", crate::page::query::STREAM).is_err());
    assert!(PageQuery::read("format=json", crate::page::query::LIST).is_err(), "pages have one form");
}
