//! Tests that every cause of too few judged or stored records is reported in five places: the page's headline, `anomaly
//! status`, `/readyz`, the log and the metrics.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::common::{Case, Process, Sent, event, free_port, get, wait};

/// A detector and a dashboard with their own topics and tables.
pub struct Blind {
    pub detector: Process,
    dashboard: u16,
    _dashboard: Process,
    /// The last field, because the others write their logs into its directory.
    pub case: Case,
}

/// The texts that the five places must contain.
pub struct Said<'s> {
    pub code: &'s str,
    pub words: &'s str,
    pub is_degraded: bool,
}

impl Blind {
    fn new(name: &str, settings: &[(&str, &str)]) -> Blind {
        let mut case = Case::bare(name, crate::common::Parts::shared());
        case.set("TOPICS__PARTITIONS", 2);
        case.ok(&["topics"]);
        case.ok(&["migrate"]);
        Blind::start(case, settings)
    }

    /// Starts the roles. The topics and tables must exist.
    pub fn start(case: Case, settings: &[(&str, &str)]) -> Blind {
        let dashboard = free_port();
        let listen = format!("127.0.0.1:{dashboard}");
        let pages = case.role("dashboard", &[("DASHBOARD__LISTEN", listen.as_str())]);
        let detector = case.detector("a", settings);
        detector.wait_ready();
        Blind { detector, dashboard, _dashboard: pages, case }
    }

    fn page(&self, path: &str) -> String {
        get(self.dashboard, path).map(|(_, text)| text).unwrap_or_default()
    }

    /// Waits until each place reports it, and names the place that does not.
    pub fn see(&self, said: &Said<'_>) {
        let Said { code, words, is_degraded } = said;
        let severity = if *is_degraded { "degraded" } else { "notice" };
        wait(&format!("/readyz to say {words:?}"), || {
            self.detector
                .get("/readyz")
                .is_some_and(|(status, text)| text.contains(words) && status == if *is_degraded { 503 } else { 200 })
        });
        wait(&format!("the metric of {code}"), || {
            let (_, text) = self.detector.get("/metrics").unwrap_or_default();
            text.lines().any(|line| {
                line.starts_with("anomaly_condition{")
                    && [format!("code=\"{code}\""), format!("severity=\"{severity}\"")].iter().all(|l| line.contains(l))
            })
        });
        let in_log = |line: &str| line.contains(&format!("code=\"{code}\""));
        wait(&format!("the log to say {code}"), || self.detector.log().lines().any(in_log));
        let lines = self.detector.log().lines().filter(|line| in_log(line)).count();
        assert!(lines <= 3, "{lines} lines in the log within seconds");
        wait(&format!("`anomaly status` to say {words:?}"), || self.case.ok(&["status"]).contains(words));
        wait(&format!("the headline to say {words:?}"), || headline(&self.page("/")).contains(words));
        let headline = headline(&self.page("/"));
        assert!(!is_degraded || !headline.starts_with("Quiet"), "{headline}");
    }

    /// Waits until no place reports it any longer.
    fn see_no_more(&self, code: &str, words: &str) {
        wait("/readyz to be well again", || {
            self.detector.get("/readyz").is_some_and(|(status, text)| status == 200 && !text.contains(words))
        });
        assert!(!self.detector.get("/metrics").unwrap().1.contains(&format!("code=\"{code}\"")));
        wait("`anomaly status` to be silent about it", || !self.case.ok(&["status"]).contains(words));
        wait("the page to be silent about it", || !self.page("/").contains(words));
    }
}

/// Returns the text of the top section, without its markup.
fn headline(page: &str) -> String {
    let from = page.find("<section class=\"banner").or_else(|| page.find("id=\"banner\"")).unwrap_or(0);
    let section = &page[from..];
    let section = &section[..section.find("</section>").unwrap_or(section.len())];
    let (mut text, mut is_tag) = (String::new(), true);
    for c in section.chars() {
        match c {
            '<' => is_tag = true,
            '>' => is_tag = false,
            c if !is_tag => text.push(c),
            _ => {}
        }
    }
    let text = text.replace("&#x60;", "`").replace("&quot;", "\"").replace("&#x27;", "'").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns values around zero of some devices.
fn usual(n: usize, partition: i32) -> impl Iterator<Item = Sent> {
    (0..n).map(move |i| Sent { partition: Some(partition), ..event(&format!("d{}", i % 4), (i % 7) as f64) })
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, sent: &Sent) {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
    record.key = sent.key.as_deref();
    record.payload = sent.value.as_deref();
    producer.send(record).unwrap();
}

/// Deletes all records of these partitions, as retention does.
fn delete_records(case: &Case, topic: &str, partitions: &[i32]) {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, Offset::End).unwrap();
    }
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
}

fn transactional(case: &Case, id: &str) -> BaseProducer {
    let producer: BaseProducer =
        case.client().set("transactional.id", id).set("transaction.timeout.ms", "600000").create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer
}

#[test]
fn an_open_transaction_is_reported_with_its_offset_and_the_records_that_it_blocks_until_it_ends() {
    let blind = Blind::new("open_tx", &[]);
    let (case, topic) = (&blind.case, blind.case.raw());
    case.produce(usual(200, 0));
    let producer = transactional(case, &format!("{topic}-tx"));
    producer.begin_transaction().unwrap();
    send(&producer, &topic, 0, &event("d0", 1.0));
    producer.flush(Duration::from_secs(30)).unwrap();
    // Its producer dies, and leaves the transaction open.
    drop(producer);
    let mut later = usual(500, 0).collect::<Vec<_>>();
    later[250] = Sent { partition: Some(0), ..event("d1", 999.0) };
    case.produce(later);
    let words = "an open transaction at offset 200 holds back 501 records";
    blind.see(&Said { code: "open_transaction", words, is_degraded: true });
    let lag = blind.detector.metric("anomaly_lag{worker=\"worker-0\",partition=\"0\"} ");
    assert!(lag == 501.0 || blind.detector.get("/metrics").unwrap().1.contains("} 501"), "the high watermark counts");
    // A producer of the same name aborts it.
    drop(transactional(case, &format!("{topic}-tx")));
    wait("the records behind it to be judged", || case.count("anomalies") >= 1);
    blind.see_no_more("open_transaction", "holds back");
}

#[test]
fn input_that_was_deleted_before_it_was_judged_is_reported_with_its_offsets_and_counted() {
    let mut blind = Blind::new("deleted", &[]);
    blind.case.produce(usual(200, 0));
    wait("the events to be judged", || blind.case.committed() == 200);
    blind.detector.child.kill().unwrap();
    blind.detector.child.wait().unwrap();
    blind.case.produce(usual(500, 0));
    delete_records(&blind.case, &blind.case.raw(), &[0]);
    blind.detector = blind.case.detector("a", &[]);
    let words =
        format!("500 records of {} [0] were deleted before they were judged (offsets 200 to 699)", blind.case.raw());
    blind.see(&Said { code: "records_deleted", words: &words, is_degraded: true });
    assert_eq!(blind.detector.metric("anomaly_lost_records_total{kind=\"unjudged\"} "), 500.0);
    // All windows are lost as well.
    wait("the lost windows to be reported", || {
        let (_, text) = blind.detector.get("/metrics").unwrap_or_default();
        text.contains("code=\"replay_shortfall\"")
    });
}

#[test]
fn a_disabled_sink_is_reported_and_so_are_the_anomalies_that_were_deleted_before_it_was_enabled() {
    let mut blind = Blind::new("unstored", &[]);
    let topic = blind.case.anomalies();
    let strange = || usual(200, 0).chain([Sent { partition: Some(0), ..event("d1", 999.0) }]);
    blind.case.produce(strange());
    wait("the row", || blind.case.count("anomalies") == 1);
    wait("the offsets of all partitions", || blind.case.count("sink_offsets") == 2);
    blind.detector.child.kill().unwrap();
    blind.detector.child.wait().unwrap();
    blind.detector = blind.case.detector("a", &[("SINK__ENABLED", "false")]);
    let words = format!("sink.enabled is false: this detector stores no anomaly of {topic} in the database");
    blind.see(&Said { code: "sink_disabled", words: &words, is_degraded: false });
    blind.case.produce(strange());
    wait("the second anomaly", || blind.case.read(&topic).len() == 2);
    blind.detector.child.kill().unwrap();
    blind.detector.child.wait().unwrap();
    delete_records(&blind.case, &topic, &[0, 1]);
    blind.detector = blind.case.detector("a", &[]);
    blind.see(&Said {
        code: "records_deleted",
        words: "were deleted before they were stored (offsets ",
        is_degraded: true,
    });
    assert!(blind.detector.metric("anomaly_lost_records_total{kind=\"unstored\"} ") >= 1.0);
}

#[test]
fn an_open_transaction_in_the_anomalies_is_reported_and_counts_as_lag_of_the_sink() {
    let blind = Blind::new("open_anomalies", &[]);
    let (case, topic) = (&blind.case, blind.case.anomalies());
    let producer = transactional(case, &format!("{topic}-tx"));
    producer.begin_transaction().unwrap();
    (0..2).for_each(|partition| send(&producer, &topic, partition, &event("d0", 1.0)));
    producer.flush(Duration::from_secs(30)).unwrap();
    case.produce(usual(200, 0).chain([Sent { partition: Some(0), ..event("d1", 999.0) }]));
    let words = "an open transaction at offset 0 holds back";
    blind.see(&Said { code: "open_transaction", words, is_degraded: true });
    // Both records, the anomaly, and the end of its transaction.
    wait("the lag of the sink", || blind.detector.metric("anomaly_sink_lag ") == 4.0);
    assert_eq!(case.count("anomalies"), 0);
    producer.abort_transaction(Duration::from_secs(30)).unwrap();
    wait("the row behind it", || case.count("anomalies") == 1);
    blind.see_no_more("open_transaction", "holds back");
    wait("no lag", || blind.detector.metric("anomaly_sink_lag ") == 0.0);
}

#[test]
fn after_commits_and_aborts_no_lag_stays_and_the_counts_are_those_of_the_records() {
    let blind = Blind::new("markers", &[]);
    let (case, topic) = (&blind.case, blind.case.raw());
    let producer = transactional(case, &format!("{topic}-tx"));
    for round in 0..6 {
        producer.begin_transaction().unwrap();
        usual(10, 0).for_each(|sent| send(&producer, &topic, 0, &sent));
        let limit = Duration::from_secs(30);
        producer.flush(limit).unwrap();
        if round % 2 == 0 { producer.commit_transaction(limit) } else { producer.abort_transaction(limit) }.unwrap();
    }
    // 60 records and 6 markers.
    wait("the offset to pass the last marker", || case.committed() == 66);
    wait("the lag to be 0", || {
        blind.detector.get("/readyz").is_some_and(|(_, text)| text.starts_with("running: 2 partitions, lag 0,"))
    });
    let judged = ["learning", "normal", "anomalous"]
        .map(|kind| blind.detector.metric(&format!("anomaly_events_total{{kind=\"{kind}\"}} ")))
        .iter()
        .sum::<f64>();
    assert_eq!(judged, 30.0, "aborted records have no outcome");
}

#[test]
fn rejection_of_all_records_is_reported_with_the_reason_until_one_is_accepted() {
    let blind = Blind::new("rejected", &[]);
    blind.case.produce((0..300).map(|i| Sent {
        value: Some(format!("{{\"host\":\"h{i}\",\"metric_value\":1}}").into_bytes()),
        ..Sent::default()
    }));
    let words = "all rejected: `device_id` is missing (300 of 300)";
    blind.see(&Said { code: "all_rejected", words, is_degraded: true });
    wait("the page to lead to the dead letters", || blind.page("/").contains("/dead-letters"));
    blind.case.produce(usual(1, 0));
    wait("the condition to end", || {
        !blind.detector.get("/metrics").unwrap_or_default().1.contains("code=\"all_rejected\"")
    });
}

#[test]
fn event_times_far_from_their_arrival_are_reported_with_the_distance() {
    let hour = 3_600;
    for (name, seconds, words) in [
        ("late", -2 * hour, "carry times about 2 h behind"),
        ("early", 25 * hour, "carry times about 25 h ahead of"),
        ("epoch", -1_700_000_000, "carry times about 54 years behind"),
    ] {
        let blind = Blind::new(name, &[]);
        let at = |i: i64| {
            let time =
                anomaly::event::Timestamp::from_millis(anomaly::event::Timestamp::now().millis() + seconds * 1_000 + i);
            time.unwrap().to_string()
        };
        // The last value is abnormal.
        let value = |i: i64| if i == 59 { 999 } else { i % 7 };
        blind.case.produce((0..60).map(|i| {
            Sent {
                key: Some("d".into()),
                value: Some(
                    format!("{{\"device_id\":\"d\",\"metric_value\":{},\"timestamp\":\"{}\"}}", value(i), at(i))
                        .into_bytes(),
                ),
                ..Sent::default()
            }
        }));
        blind.see(&Said { code: "times_differ", words, is_degraded: false });
        // A page may show what it was answered a second ago.
        wait("the headline to be neither quiet nor waiting", || {
            let headline = headline(&blind.page("/"));
            !headline.is_empty() && !headline.starts_with("Quiet") && !headline.starts_with("Waiting")
        });
    }
}

/// Lets another program join a group of the detector.
fn join(case: &Case, group: &str, topic: &str) -> BaseConsumer {
    let mut client = case.client();
    client.set("group.id", group).set("client.id", "intruder").set("partition.assignment.strategy", "range");
    let intruder: BaseConsumer =
        client.set("enable.auto.commit", "false").set("session.timeout.ms", "6000").create().unwrap();
    intruder.subscribe(&[topic]).unwrap();
    intruder
}

#[test]
fn another_program_in_the_group_is_named_and_its_offsets_stop_the_detector() {
    let mut blind = Blind::new("foreign", &[("DETECTOR__WORKERS", "1"), ("LOG__LEVEL", "debug")]);
    let (case, topic) = (&blind.case, blind.case.raw());
    (0..2).for_each(|partition| case.produce(usual(200, partition)));
    wait("all events to be judged", || case.committed() == 400);
    let intruder = join(case, &format!("{}-detector", case.name), &topic);
    wait("the intruder to have a partition", || {
        let _ = intruder.poll(Duration::from_millis(100));
        intruder.assignment().is_ok_and(|assignment| assignment.count() > 0)
    });
    (0..2).for_each(|partition| case.produce(usual(200, partition)));
    let mut taken = 0;
    wait("the intruder to take 200 records", || {
        if let Some(Ok(message)) = intruder.poll(Duration::from_millis(100)) {
            taken += 1;
            intruder.commit_message(&message, CommitMode::Sync).unwrap();
            assert!(message.offset() >= 200);
        }
        taken == 200
    });
    // It stays for a while: a poll keeps it in the group.
    wait("the intruder to be named", || {
        let _ = intruder.poll(Duration::from_millis(50));
        blind.detector.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains("intruder at"))
    });
    let said = Said { code: "foreign_commit", words: "intruder at", is_degraded: true };
    std::thread::scope(|scope| {
        let (sender, done) = std::sync::mpsc::channel::<()>();
        let intruder = &intruder;
        scope.spawn(move || {
            while done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let _ = intruder.poll(Duration::from_millis(100));
            }
        });
        blind.see(&said);
        drop(sender);
    });
    assert!(blind.detector.metric("anomaly_foreign_commits_total ") >= 1.0);
    drop(intruder);
    assert_eq!(blind.detector.exit(Duration::from_secs(60)).code(), Some(65));
    let words =
        format!("{topic} [1]: the committed offset 400 of group {}-detector was committed by another", case.name);
    let log = blind.detector.log();
    let other = words.replace("[1]", "[0]");
    assert!(log.contains(&words) || log.contains(&other), "{log}");
    assert!(log.contains("`anomaly offsets accept` continues there"), "{log}");
}

/// The anomalies of the other member's partition are not stored, and no other condition reports this.
#[test]
fn another_program_in_the_group_of_the_sink_is_named_as_long_as_it_is_there() {
    let blind = Blind::new("foreign_sink", &[]);
    let (case, topic) = (&blind.case, blind.case.anomalies());
    case.produce(usual(200, 0));
    wait("all events to be judged", || case.committed() == 200);
    let intruder = join(case, &format!("{}-sink", case.name), &topic);
    std::thread::scope(|scope| {
        let (sender, done) = std::sync::mpsc::channel::<()>();
        let intruder = &intruder;
        scope.spawn(move || {
            while done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let _ = intruder.poll(Duration::from_millis(100));
            }
        });
        let words = "not a sink, but in the group: intruder at";
        blind.see(&Said { code: "foreign_sink", words, is_degraded: true });
        drop(sender);
    });
    drop(intruder);
    blind.see_no_more("foreign_sink", "not a sink");
}

/// Two schemas stand for two databases.
#[test]
fn the_sinks_of_two_databases_with_one_group_name_the_partitions_that_the_other_one_has() {
    let blind = Blind::new("two_sinks", &[("DETECTOR__WORKERS", "1"), ("DETECTOR__SESSION_TIMEOUT", "6s")]);
    let (case, topic) = (&blind.case, blind.case.anomalies());
    let other = format!("{}_other", case.name);
    let mut admin = case.parts.admin();
    admin.batch_execute(&format!("create schema {other} authorization {}", case.parts.get("POSTGRES__USER"))).unwrap();
    let settings =
        [("POSTGRES__SCHEMA", other.as_str()), ("DETECTOR__WORKERS", "1"), ("DETECTOR__SESSION_TIMEOUT", "6s")];
    let mut migrate = case.command(&["migrate"]);
    migrate.env("ANOMALY__POSTGRES__SCHEMA", &other);
    assert!(migrate.status().unwrap().success());
    let second = case.detector("b", &settings);
    second.wait_ready();
    // Anomalies in both partitions, of which each sink has one.
    let device = |i: usize| format!("d{}", i % 12);
    let usual = (0..480).map(|i| event(&device(i), (i / 12 % 7) as f64));
    case.produce(usual.chain((0..12).map(|i| event(&device(i), 999.0))));
    wait("the anomalies", || case.read(&topic).len() == 12);
    wait("each row in one of the databases", || {
        let count = |schema: &str| format!("(select count(*) from {schema}.anomalies)");
        let counts = admin.query_one(&format!("select {}, {}", count(&case.name), count(&other)), &[]).unwrap();
        let (one, two) = (counts.get::<_, i64>(0), counts.get::<_, i64>(1));
        one > 0 && two > 0 && one + two == 12
    });
    let words = "records are not stored in this database; b-sink at";
    blind.see(&Said { code: "foreign_sink", words, is_degraded: true });
    wait("the other one to name the first", || {
        second.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains("a-sink at"))
    });
    drop(second);
    wait("the other anomalies", || case.count("anomalies") == 12);
    blind.see_no_more("foreign_sink", "are not stored");
    admin.batch_execute(&format!("drop schema {other} cascade")).unwrap();
}

#[test]
fn two_groups_that_report_on_one_topic_into_one_schema_name_one_another() {
    let blind = Blind::new("two_groups", &[]);
    let case = &blind.case;
    case.produce(usual(100, 0));
    wait("all events to be judged", || case.committed() == 100);
    let state = format!("{}.state2", case.name);
    let (group, sink) = (format!("{}-other", case.name), format!("{}-sink2", case.name));
    let settings = [
        ("DETECTOR__GROUP", group.as_str()),
        ("TOPICS__STATE", &state),
        ("SINK__ENABLED", "false"),
        ("SINK__GROUP", &sink),
    ];
    let mut topics = case.command(&["topics"]);
    assert!(topics.env("ANOMALY__TOPICS__STATE", &state).status().unwrap().success());
    let second = case.detector("b", &settings);
    second.wait_ready();
    let words = format!("detectors of other groups ({group}) report on {}", case.raw());
    blind.see(&Said { code: "several_groups", words: &words, is_degraded: false });
    drop(second);
    // The group that ended has reported the first one.
    blind.see_no_more("several_groups", &words);
}

#[test]
fn values_that_only_learn_are_not_called_judged() {
    let blind = Blind::new("learning", &[]);
    let mut device = 0;
    wait("the values to be called learning", || {
        blind.case.produce((0..50).map(|_| {
            device += 1;
            event(&format!("d{device}"), 1.0)
        }));
        let text = blind.detector.get("/readyz").unwrap_or_default().1;
        text.contains("are learning, 0 were judged")
    });
    blind.see(&Said { code: "mostly_learning", words: "are learning, 0 were judged", is_degraded: false });
}

#[test]
fn a_device_in_two_partitions_is_named_with_the_cause() {
    let blind = Blind::new("split", &[("DETECTOR__WORKERS", "1")]);
    // As two producers with different partitioners place it.
    blind.case.produce((0..2).flat_map(|partition| {
        (0..10).map(move |i| Sent { partition: Some(partition), ..event("pump-1", f64::from(i)) })
    }));
    let words = "device pump-1 is in [0] and [1]; its key is placed by two partitioners";
    blind.see(&Said { code: "split_series", words, is_degraded: false });
}

#[test]
fn a_condition_reports_that_all_records_are_ignored() {
    let blind = Blind::new("ignored", &[]);
    blind.case.produce((0..20).map(|i| Sent { key: Some(format!("k{i}").into()), ..Sent::default() }));
    blind.see(&Said { code: "all_ignored", words: "Records arrive, all ignored (20 of 20)", is_degraded: true });
    let status = blind.case.ok(&["status"]);
    let at = status.split_whitespace().position(|column| column == "IGNORED").unwrap();
    let rows = status.lines().skip(1).filter(|line| line.contains(&blind.case.raw()) && !line.contains("all_ignored"));
    let ignored = rows.filter_map(|line| line.split_whitespace().nth(at)?.parse::<u64>().ok()).sum::<u64>();
    assert_eq!(ignored, 20, "{status}");
    wait("the detection page to say it", || blind.page("/detection").contains("20 ignored"));
}

#[test]
fn a_condition_reports_that_series_are_evicted_as_fast_as_events_arrive() {
    let blind = Blind::new("evicted", &[("DETECTOR__MAX_SERIES", "5")]);
    let mut device = 0;
    wait("evictions to be called too many", || {
        blind.case.produce((0..100).map(|_| {
            device += 1;
            Sent { partition: Some(0), ..event(&format!("d{device}"), 1.0) }
        }));
        blind.detector.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains("evict"))
    });
    blind.see(&Said { code: "eviction_rate", words: "evict", is_degraded: true });
}

#[test]
fn a_condition_reports_a_series_that_two_sources_share() {
    let blind = Blind::new("shared", &[("DETECTOR__WORKERS", "1")]);
    blind.case.produce((0..120).map(|i| {
        Sent {
            key: Some("host-1".into()),
            partition: Some(0),
            value: Some(
                format!(
                    "{{\"device_id\":\"host-1\",\"metric_name\":\"usage\",\"metric_value\":{},\"timestamp\":{}}}",
                    i % 2 * 50 + i % 3,
                    1_795_000_000 + i / 2 * 10
                )
                .into_bytes(),
            ),
            ..Sent::default()
        }
    }));
    blind.see(&Said { code: "same_time", words: "host-1", is_degraded: false });
}
