//! Tests of the verdict: whenever too little is judged, or event times are wrong, the headline states it.

use super::*;
use crate::health::ConditionSeverity;

fn tally(judged: u64, learning: u64, rejected: u64) -> Tally {
    Tally { judged, learning, rejected, ..Tally::default() }
}

fn came(tally: Tally) -> Option<Vec<(i64, Activity)>> {
    Some((1..=5).map(|at| (at, Activity { tally, ..Activity::default() })).collect())
}

/// Returns the banner of the overview as text: the sentence, the rest, and the whole body.
pub(super) fn banner(facts: ArchiveFacts) -> (String, String, String) {
    let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
    let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
    let (response, body) = get(&handler, "/");
    assert_eq!(response.status, 200, "{body}");
    let banner = body.split("<section class=\"banner").nth(1).unwrap().split("</section>").next().unwrap();
    let sentence = banner.split("class=\"sentence\">").nth(1).unwrap().split("</h1>").next().unwrap();
    (plain(sentence), banner.to_owned(), body)
}

pub(super) fn condition(severity: ConditionSeverity, message: &str, age: f64) -> ConditionRow {
    ConditionRow {
        group: "g".into(),
        topic: "raw_events".into(),
        worker: "a/worker-0".into(),
        code: "open_transaction".into(),
        severity,
        message: message.into(),
        since: minute(0),
        age,
    }
}

#[test]
fn a_degrading_condition_is_the_headline_a_notice_is_shown_and_a_stale_one_is_not() {
    let of = |severity, age| ArchiveFacts {
        conditions: vec![condition(severity, "an open transaction holds back 500 records", age)],
        is_empty: true,
        ..ArchiveFacts::default()
    };
    let (sentence, banner_html, _) = banner(of(ConditionSeverity::Degraded, 2.0));
    assert_eq!(sentence, "Degraded. an open transaction holds back 500 records");
    assert!(
        banner_html.starts_with(" degraded\"") && banner_html.contains("<div class=\"cross\"><dt>"),
        "{banner_html}"
    );
    let (sentence, banner_html, _) = banner(of(ConditionSeverity::Notice, 2.0));
    assert_eq!(sentence, "Quiet. No anomalies in the last hour.");
    assert!(banner_html.contains("<b>notice</b> <bdi>an open transaction"), "{banner_html}");
    let (sentence, banner_html, _) = banner(of(ConditionSeverity::Degraded, 60.0));
    assert_eq!(sentence, "Quiet. No anomalies in the last hour.");
    assert!(!banner_html.contains("open transaction"), "{banner_html}");
}

#[test]
fn before_the_first_heartbeat_the_pages_say_that_the_state_is_not_known_and_not_that_it_stopped() {
    let facts = |conditions| ArchiveFacts {
        status: Some(vec![]),
        coverage: Some(vec![]),
        activity: Some(vec![]),
        is_empty: true,
        conditions,
        ..ArchiveFacts::default()
    };
    let (sentence, banner_html, body) = banner(facts(vec![]));
    assert_eq!(sentence, "No detector has reported yet. It is not known whether anything is judged.");
    assert_eq!(title(&body), "State not known · Overview · anomaly");
    assert!(banner_html.starts_with(" stopped\""), "the colours of a state that nothing is known about: {banner_html}");
    assert!(!plain(&body).contains("topped"), "{body}");
    assert!(
        body.contains("it is not known whether values were judged") && body.contains(">not known</text>"),
        "{body}"
    );
    assert!(!body.contains(">no events</text>"), "{body}");
    for name in ["Detector", "Kafka lag", "Judged", "Series"] {
        assert_eq!(check(&banner_html, name), ("dash".into(), "not known | no report".into()), "{name}");
    }
    // The state of the stream of events is that of the banner.
    assert_eq!(super::super::view::banner::Tone::Unknown.as_str(), "unknown");
    // A worker without partitions can report why it does not serve.
    let condition = || condition(ConditionSeverity::Degraded, "Kafka is unreachable", 2.0);
    let (sentence, _, body) = banner(facts(vec![condition()]));
    assert_eq!(sentence, "Degraded. Kafka is unreachable");
    assert!(title(&body).starts_with("Degraded · "), "{}", title(&body));
    for (conditions, heading) in
        [(vec![], "No detector has reported yet"), (vec![condition()], "No partition has been reported yet")]
    {
        let facts = facts(conditions);
        let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
        let (_, body) = get(&app(fake, options(Access::Open { is_anywhere: true })).unwrap(), "/detection");
        assert!(body.contains(&format!("<h1>{heading}</h1>")), "{body}");
    }
    let (_, stopped) = get(&pages(600.0, 9).1, "/");
    assert!(title(&stopped).starts_with("Stopped · "), "{}", title(&stopped));
}

#[test]
fn other_pages_say_too_that_the_detection_is_degraded() {
    let facts = ArchiveFacts {
        conditions: vec![condition(ConditionSeverity::Degraded, "an open transaction", 2.0)],
        ..ArchiveFacts::default()
    };
    let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
    let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
    let (_, body) = get(&handler, "/");
    assert!(
        body.contains("<title>Degraded \u{b7} 1 anomaly \u{b7} Overview") && !body.contains("class=\"alarm\""),
        "{body}"
    );
    for url in ["/anomalies", "/devices", "/dead-letters", "/anomalies/raw_events/3/184467/0/point"] {
        assert!(get(&handler, url).1.contains("<bdi>Degraded. an open transaction</bdi>"), "{url}");
    }
}

fn all_rejected(severity: ConditionSeverity) -> ConditionRow {
    ConditionRow { code: "all_rejected".into(), ..condition(severity, "Events arrive, all rejected: no device", 2.0) }
}

#[test]
fn the_headline_calls_all_records_rejected_only_if_the_detector_reports_it_as_degrading() {
    let of = |tally, conditions| {
        banner(ArchiveFacts { activity: came(tally), conditions, is_empty: true, ..ArchiveFacts::default() })
    };
    // Two wrong records are a notice of the detector, and no alarm.
    let (sentence, html, _) = of(tally(0, 0, 2), vec![all_rejected(ConditionSeverity::Notice)]);
    assert!(!sentence.contains("all rejected"), "{sentence}");
    assert!(plain(&html).contains("Events arrive, all rejected: no device"), "{html}");
    let (sentence, ..) = of(tally(0, 0, 2), vec![]);
    assert!(!sentence.contains("all rejected"), "{sentence}");
    // One worker gets nothing but wrong records, another one judges.
    let (sentence, ..) = of(tally(60, 0, 60), vec![all_rejected(ConditionSeverity::Degraded)]);
    assert_eq!(sentence, "Degraded. Events arrive, all rejected: no device");
}

#[test]
fn all_rejected_is_reported_with_the_reason_and_links_to_the_records() {
    let dead_letter = DeadLetter {
        group: "g".into(),
        topic: "raw_events".into(),
        partition: 3,
        offset: 17,
        class: "device_id".into(),
        message: "`device_id` is missing".into(),
        key: None,
        value: Some(Excerpt { bytes: b"{\"<b>\":\"\xe2\x80\xae\x00".to_vec(), size: 5_000 }),
        at: now(),
    };
    let facts = || ArchiveFacts {
        activity: came(tally(0, 0, 60)),
        coverage: Some(vec![(3, tally(0, 0, 300))]),
        dead_letters: vec![dead_letter.clone()],
        conditions: vec![all_rejected(ConditionSeverity::Degraded)],
        is_empty: true,
        ..ArchiveFacts::default()
    };
    let (sentence, html, _) = banner(facts());
    assert_eq!(sentence, "Events arrive, all rejected: `device_id` is missing (300 of 300)");
    assert!(html.contains("href=\"/dead-letters\""), "{html}");
    let fake =
        Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 0, facts: facts(), reviews: Mutex::default() });
    let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
    let (response, body) = get(&handler, "/dead-letters");
    assert_eq!(response.status, 200);
    for text in [
        "`device_id` is missing",
        "[3] 17",
        "{&quot;&lt;b&gt;&quot;:&quot;\\u{202e}\\u{0}",
        "(5,000 bytes)",
        "anomaly dlq list",
    ] {
        assert!(body.contains(text), "no {text} in {body}");
    }
    // Values judged long ago do not make the verdict "quiet".
    let (sentence, ..) =
        banner(ArchiveFacts { coverage: Some(vec![(0, tally(600, 0, 0)), (3, tally(0, 0, 300))]), ..facts() });
    assert!(sentence.starts_with("Events arrive, all rejected"), "{sentence}");
}

#[test]
fn wrong_event_times_are_never_quiet_or_waiting() {
    let off = |late: u64, late_seconds: i64, early: u64, early_seconds: i64| {
        let activity =
            Activity { tally: tally(60, 0, 0), late, late_seconds, early, early_seconds, ..Activity::default() };
        Some(vec![(4, activity)])
    };
    let record = |offset: i64| {
        let fake = Fake::new(1.0, 9);
        let mut record = fake.record();
        record.anomaly.timestamp = Timestamp::from_millis(now().millis() + offset * 1000);
        Outside { records: vec![record], is_more: false }
    };
    let (two_hours, year) = (7_200, 31_556_952);
    for (activity, outside, words) in [
        (
            off(60, 60 * two_hours, 0, 0),
            Outside::default(),
            "Detecting. 60 judged, their times are 2 h behind. None is abnormal.",
        ),
        (
            off(0, 0, 60, 60 * 600),
            Outside::default(),
            "Detecting. 60 judged, their times are 10 min ahead. None is abnormal.",
        ),
        (off(60, 60 * two_hours, 0, 0), record(-two_hours), "Detecting. 1 anomaly detected in the last hour."),
        (off(0, 0, 60, 60 * 600), record(600), "Detecting. 1 anomaly detected in the last hour."),
        (off(0, 0, 60, 60 * 80 * year), record(80 * year), "Detecting. 1 anomaly detected in the last hour."),
        (off(60, 60 * 56 * year, 0, 0), record(-56 * year), "Detecting. 1 anomaly detected in the last hour."),
    ] {
        let is_listed = !outside.records.is_empty();
        let facts =
            ArchiveFacts { activity, coverage: Some(vec![]), is_empty: true, outside, ..ArchiveFacts::default() };
        let (sentence, html, body) = banner(facts);
        assert_eq!(sentence, words);
        assert!(html.contains(" behind") || html.contains(" ahead"), "{html}");
        assert_eq!(
            body.contains("1 anomaly was detected in the last hour and has an event time outside of it"),
            is_listed
        );
        assert!(!body.contains("in in ") && !body.contains("ahead ago") && !body.contains("in \u{2212}"), "{body}");
    }
}

#[test]
fn the_api_has_what_was_detected_in_the_span_with_another_time() {
    let mut record = Fake::new(1.0, 9).record();
    record.anomaly.timestamp = Timestamp::from_millis(0);
    let facts = ArchiveFacts {
        is_empty: true,
        outside: Outside { records: vec![record], is_more: true },
        ..ArchiveFacts::default()
    };
    let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
    let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
    let json = |url| serde_json::from_str::<serde_json::Value>(&get(&handler, url).1).unwrap();
    let answer = json("/api/v1/anomalies?span=1h");
    assert_eq!((answer["anomalies"].as_array().unwrap().len(), answer["outside"].as_array().unwrap().len()), (0, 1));
    assert_eq!(answer["outside_is_cut"], true);
    assert!(json("/api/v1/anomalies").get("outside").is_none());
    assert!(get(&handler, "/anomalies?span=1h").1.contains("More than 1 anomaly was detected in the last hour"));
    let (_, lines) = get(&handler, "/api/v1/anomalies.jsonl?span=1h");
    assert!(lines.lines().next().unwrap().contains("1970-01-01") && lines.contains("incomplete"), "{lines}");
}

#[test]
fn learning_is_distinguished_from_judging() {
    let (sentence, html, body) = banner(ArchiveFacts {
        activity: came(tally(120, 299_880, 0)),
        coverage: Some((1..=5).map(|at| (at, tally(120, 299_880, 0))).collect()),
        ..ArchiveFacts::default()
    });
    assert!(sentence.starts_with("Mostly learning. 1 anomaly in the last hour."), "{sentence}");
    assert!(html.contains("2.0 a second, 4,998 learning") && html.contains("<div class=\"clock\">"), "{html}");
    assert!(!body.contains("x=\"0.00%\" width=\"100.00%\" y=\"116\" height=\"4\" class=\"cov\""));
    assert!(body.contains("mostly learning in 8 %"), "{body}");
    // Series whose names never repeat are never judged.
    let row = StatusRow { series: 50_000, ..status(1.0) };
    let (sentence, html, _) = banner(ArchiveFacts {
        status: Some(vec![row]),
        activity: came(tally(0, 10_000, 0)),
        coverage: Some((1..=5).map(|at| (at, tally(0, 10_000, 0))).collect()),
        is_empty: true,
        ..ArchiveFacts::default()
    });
    assert_eq!(sentence, "Learning. Nothing is judged yet.");
    assert!(html.contains("1.0 for each, and 30 are needed") || html.contains("a series is judged in about"), "{html}");
}

/// Returns the icon, value and note of the check with this name.
pub(super) fn check(html: &str, name: &str) -> (String, String) {
    let at = html.find(&format!("</svg>{name}</dt>")).unwrap_or_else(|| panic!("no {name} in {html}"));
    let glyph = html[..at].rsplit("<div class=\"").next().unwrap().split('"').next().unwrap().to_owned();
    let text = html[at..].split("<dd>").nth(1).unwrap().split("</dd>").next().unwrap();
    (glyph, text.replace("<b>", "").replace("</b><span>", " | ").replace("</span>", ""))
}

#[test]
fn a_lag_has_a_tick_only_when_it_is_small_or_shrinks() {
    let lag = |lag, activity| {
        let row = StatusRow { lag, ..status(1.0) };
        check(&banner(ArchiveFacts { status: Some(vec![row]), activity, ..ArchiveFacts::default() }).1, "Kafka lag")
    };
    let busy = || came(tally(6_000, 0, 0));
    assert_eq!(lag(Some(0), busy()), ("tick".into(), "0 events | 1 partition".into()));
    assert_eq!(lag(Some(50), busy()), ("tick".into(), "50 events | 0.5 s of input".into()));
    assert_eq!(lag(Some(837_836), busy()), ("dash".into(), "837,836 events | 2 h of input".into()));
    assert_eq!(
        lag(Some(500), Some(vec![])),
        ("cross".into(), "500 events | records wait, none was taken lately".into())
    );
    assert_eq!(lag(None, busy()).0, "dash");
}

#[test]
fn rows_that_the_table_refused_are_not_called_well() {
    let (_, html, _) = banner(ArchiveFacts { refused: 3, ..ArchiveFacts::default() });
    assert_eq!(check(&html, "Database"), ("cross".into(), "3 rows refused | kept in sink_rejects".into()));
}

#[test]
fn a_topic_that_is_not_read_any_more_is_named_and_not_missed() {
    let row = |group: &str, topic: &str, partition, age| StatusRow {
        group: group.into(),
        topic: topic.into(),
        partition,
        ..status(age)
    };
    let of = |rows| banner(ArchiveFacts { status: Some(rows), ..ArchiveFacts::default() }).1;
    let old = (0..8).map(|partition| row("g", "old", partition, 3_600.0));
    let html = of(old.chain([row("g", "new", 0, 1.0)]).collect());
    let (glyph, text) = check(&html, "Detector");
    assert!(
        glyph == "tick"
            && !text.contains("silent")
            && text.contains("\u{2068}g\u{2069} on \u{2068}old\u{2069}: ended 60 min ago"),
        "{text}"
    );
    // Another group may have stopped.
    let html = of(vec![row("g", "t", 0, 1.0), row("h", "t", 0, 60.0)]);
    assert_eq!(check(&html, "Detector").0, "cross");
    assert!(check(&html, "Detector").1.starts_with("1 of 2 partitions silent"), "{html}");
}

#[test]
fn clocks_that_differ_are_a_check_of_their_own() {
    let row = StatusRow { ahead: Some(-7_200.0), ..status(1.0) };
    let (_, html, _) = banner(ArchiveFacts { status: Some(vec![row]), ..ArchiveFacts::default() });
    assert_eq!(check(&html, "Clocks").1, "2 h behind | the detector&#39;s clock, against the database&#39;s");
}

#[test]
fn a_dashboard_with_a_wrong_clock_uses_the_time_of_the_database_and_reports_the_difference() {
    let (_, html, body) = banner(ArchiveFacts { ahead: 7_200_000, ..ArchiveFacts::default() });
    assert_eq!(check(&html, "Clocks").1, "2 h behind | this dashboard&#39;s clock, against the database&#39;s");
    assert!(body.contains(">19:00:12</time>"), "{body}");
}

#[test]
fn news_are_counted_from_what_was_detected_not_from_the_rows_of_the_table() {
    let (.., body) = banner(ArchiveFacts { fresh: 4_711, ..ArchiveFacts::default() });
    assert!(body.contains("4,711 new in the last 30 s"), "{body}");
}

#[test]
fn rejected_records_are_counted_by_the_clock_of_the_detector_that_counted_them() {
    // Its clock is 30 h behind, which is more than the span of the page.
    let facts = ArchiveFacts {
        status: Some(vec![StatusRow { ahead: Some(-108_000.0), ..status(1.0) }]),
        activity: Some(vec![(4 - 1_800, Activity { tally: tally(0, 0, 30), ..Activity::default() })]),
        ..ArchiveFacts::default()
    };
    let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
    let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
    let (_, body) = get(&handler, "/dead-letters");
    assert!(body.contains("30 of 30 records rejected in"), "{body}");
}

#[test]
fn a_count_of_anomalies_is_exact_when_others_have_other_times() {
    let outside = Outside { records: vec![Fake::new(1.0, 9).record()], is_more: true };
    let (sentence, html, _) = banner(ArchiveFacts { outside: outside.clone(), ..ArchiveFacts::default() });
    assert_eq!(sentence, "Detecting. 1 anomaly in the last hour.");
    assert!(html.contains("1+ more detected"), "{html}");
    let (sentence, ..) = banner(ArchiveFacts { outside, is_empty: true, ..ArchiveFacts::default() });
    assert_eq!(sentence, "Detecting. 1+ anomalies detected in the last hour.");
}

#[test]
fn the_pages_of_devices_have_what_was_detected_in_the_span_with_another_time() {
    let mut record = Fake::new(1.0, 9).record();
    (record.anomaly.device_id, record.anomaly.timestamp) = ("pump-9".into(), Timestamp::from_millis(0));
    let facts = ArchiveFacts { outside: Outside { records: vec![record], is_more: true }, ..ArchiveFacts::default() };
    let fake = Arc::new(Fake { mood: AtomicU8::new(0), age: 1.0, judged: 9, facts, reviews: Mutex::default() });
    let handler = app(fake, options(Access::Open { is_anywhere: true })).unwrap();
    let (_, body) = get(&handler, "/devices");
    assert!(body.contains("<a href=\"/devices/pump-9\" title=\"pump-9\">"), "{body}");
    assert!(
        body.contains("2 devices with anomalies in the last hour") && body.contains("more than 1 of them"),
        "{body}"
    );
    let (_, body) = get(&handler, "/devices/pump-9");
    assert!(
        body.contains("More than 1 anomaly was detected in the last 24 hours and has an event time outside of it"),
        "{body}"
    );
    assert!(!body.contains("No anomaly is recorded"), "{body}");
    // A range that the user gave refers to the times of the events.
    for url in ["/devices", "/devices/pump-9"] {
        let (_, body) = get(&handler, &format!("{url}?from=2026-11-23T16:00:00Z&to=2026-11-23T17:00:00Z"));
        assert!(!body.contains("other times") && !body.contains("title=\"pump-9\""), "{url}: {body}");
    }
}
