//! Tests with records of common producers, byte for byte, through a real detector: what is read with which `[fields]`,
//! and the message for what is not.

use serde_json::Value;

use crate::common::{Case, Sent, wait};

/// Outcomes of some records.
struct Read {
    anomalies: Vec<Value>,
    /// Reasons of the dead letters, in order.
    messages: Vec<String>,
    ignored: f64,
}

/// Runs a detector with these settings over these records, to the end.
fn read(name: &str, fields: &[(&str, &str)], records: Vec<Sent>) -> Read {
    let case = Case::new(name);
    let count = records.len() as i64;
    case.produce(records.into_iter().map(|sent| Sent { partition: Some(0), ..sent }));
    let mut settings = vec![("DETECTOR__WINDOW", "10"), ("DETECTOR__MIN_SAMPLES", "3")];
    settings.extend_from_slice(fields);
    let detector = case.detector("a", &settings);
    wait("all records to have an outcome", || case.committed() == count);
    let ignored = "anomaly_events_total{kind=\"ignored\"} ";
    let mut dead_letters = case.read(&case.dlq());
    dead_letters.sort_by_key(|got| got.header("anomaly.error.offset").unwrap().parse::<i64>().unwrap());
    let message = |got: &crate::common::Got| got.header("anomaly.error.message").unwrap();
    Read {
        anomalies: case.read(&case.anomalies()).iter().map(|got| got.json()).collect(),
        messages: dead_letters.iter().map(message).collect(),
        ignored: detector.metric(ignored),
    }
}

fn record(value: impl Into<Vec<u8>>) -> Sent {
    Sent { value: Some(value.into()), ..Sent::default() }
}

/// Three values that are alike, and one that is not: its anomaly shows how the record was read.
fn four(text: impl Fn(&str) -> String) -> Vec<Sent> {
    ["1", "1", "1", "99"].map(|value| record(text(value))).to_vec()
}

#[track_caller]
fn is(anomaly: &Value, device: &str, metric: Option<&str>, time: &str) {
    let found = (&anomaly["device_id"], &anomaly["metric_name"], &anomaly["metric_value"], &anomaly["timestamp"]);
    let expected = (device.into(), metric.map_or(Value::Null, Value::from), 99.0.into(), time.into());
    assert_eq!(found, (&expected.0, &expected.1, &expected.2, &expected.3));
}

const AT: &str = "2025-11-24T16:00:00.000Z";

#[test]
fn telegraf() {
    let cpu = |cpu: &str, value: &str| {
        format!(
            r#"{{"fields":{{"usage_idle":{value},"usage_user":2.5}},"name":"cpu","tags":{{"cpu":"{cpu}","host":"web-1"}},"timestamp":1764000000}}"#
        )
    };
    let mut records = four(|value| cpu("cpu0", value));
    // Another source of the same host has a window of its own.
    records.extend(["5", "7", "5", "7"].map(|value| record(cpu("cpu1", value))));
    records.push(record(r#"{"fields":{"free":1},"name":"mem","tags":{"host":"web-1"},"timestamp":1764000000}"#));
    records.push(record(format!(r#"{{"metrics":[{}]}}"#, cpu("cpu0", "1"))));
    records.push(record("cpu,cpu=cpu0,host=web-1 usage_idle=97.5 1764000000000000000"));
    let fields = [
        ("FIELDS__DEVICE", "{tags.host}/{tags.cpu}"),
        ("FIELDS__METRIC", "name"),
        ("FIELDS__VALUE", "fields.usage_idle"),
        ("FIELDS__IGNORE", "name=mem"),
    ];
    let read = read("telegraf", &fields, records);
    assert_eq!((read.anomalies.len(), read.ignored), (1, 1.0));
    is(&read.anomalies[0], "web-1/cpu0", Some("cpu"), AT);
    assert!(read.messages[0].contains("use_batch_format = false"), "{:?}", read.messages);
    assert!(read.messages[1].contains("line protocol (Telegraf: data_format = \"json\")"), "{:?}", read.messages);
}

/// Both CPUs of a host in one window hide the anomalies of either. That is said; with a device for each nothing is.
#[test]
fn two_sources_that_share_a_series_are_noticed_and_named() {
    let cpus = |i: i64| {
        let (cpu, at) = (i % 2, 1_764_000_000 + i / 2 * 10);
        record(format!(
            r#"{{"fields":{{"usage_idle":{}}},"name":"cpu","tags":{{"cpu":"cpu{cpu}","host":"web-1"}},"timestamp":{at}}}"#,
            cpu * 50 + i % 7
        ))
    };
    for (device, is_noticed) in [("tags.host", true), ("{tags.host}/{tags.cpu}", false)] {
        let case = Case::new("same_time");
        case.produce((0..200).map(|i| Sent { partition: Some(0), ..cpus(i) }));
        let fields = [("FIELDS__DEVICE", device), ("FIELDS__METRIC", "name"), ("FIELDS__VALUE", "fields.usage_idle")];
        let detector = case.detector("a", &fields);
        wait("all records to have an outcome", || case.committed() == 200);
        if is_noticed {
            wait("the notice", || detector.get("/readyz").is_some_and(|(_, text)| text.contains("same time")));
            let log = detector.log();
            assert!(log.contains("device web-1, metric cpu gets several values of the same time"), "{log}");
            assert!(log.contains("set fields.metric, or put fields.device together"), "{log}");
        } else {
            wait("the role to be ready", || detector.get("/readyz").is_some_and(|(code, _)| code == 200));
            assert!(!detector.log().contains("same time"), "{}", detector.log());
        }
    }
}

#[test]
fn collectd() {
    let list = r#"[{"values":[0.25,0.5,0.75],"dstypes":["gauge","gauge","gauge"],"dsnames":["shortterm","midterm","longterm"],"time":1764000000.123,"interval":10.000,"host":"web-1","plugin":"load","plugin_instance":"","type":"load","type_instance":""}]"#;
    let read = read("collectd", &[], vec![record(list)]);
    assert!(read.messages[0].contains("array (as collectd's write_kafka"), "{:?}", read.messages);
}

#[test]
fn prometheus_kafka_adapter() {
    let up = |value: &str| {
        format!(
            r#"{{"labels":{{"__name__":"up","instance":"web-1:9100","job":"node"}},"name":"up","timestamp":"2025-11-24T16:00:00Z","value":"{value}"}}"#
        )
    };
    let mut records = four(up);
    records.extend(["NaN", "+Inf"].map(|value| record(up(value))));
    let fields = [("FIELDS__DEVICE", "labels.instance"), ("FIELDS__METRIC", "name"), ("FIELDS__VALUE", "value")];
    let read = read("prometheus", &fields, records);
    is(&read.anomalies[0], "web-1:9100", Some("up"), AT);
    let expected = ["NaN", "+Inf"].map(|word| format!("`value` is not a finite number: \"{word}\""));
    assert_eq!(read.messages, expected);
}

#[test]
fn otlp_json() {
    let gauge = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"host.name","value":{"stringValue":"web-1"}}]},"scopeMetrics":[{"scope":{},"metrics":[{"name":"system.cpu.load_average.1m","gauge":{"dataPoints":[{"timeUnixNano":"1764000000000000000","asDouble":0.5}]}}]}]}]}"#;
    let read = read("otlp", &[], vec![record(gauge)]);
    assert!(read.messages[0].contains("`device_id` is missing; the object is OTLP/JSON"), "{:?}", read.messages);
}

#[test]
fn metricbeat() {
    let load = |value: &str| {
        format!(
            r#"{{"@timestamp":"2025-11-24T16:00:00.000Z","@metadata":{{"beat":"metricbeat","type":"_doc","version":"8.11.0"}},"host":{{"name":"web-1"}},"event":{{"dataset":"system.load","module":"system","duration":115000}},"metricset":{{"name":"load","period":10000}},"system":{{"load":{{"1":{value},"5":0.4,"cores":4}}}}}}"#
        )
    };
    let mut records = four(load);
    records.push(record(
        r#"{"@timestamp":"2025-11-24T16:00:00.000Z","host":{"name":"web-1"},"metricset":{"name":"memory"},"system":{"memory":{"free":1}}}"#,
    ));
    let fields = [
        ("FIELDS__DEVICE", "host.name"),
        ("FIELDS__METRIC", "event.dataset"),
        ("FIELDS__VALUE", "system.load.1"),
        ("FIELDS__TIME", "@timestamp"),
        ("FIELDS__IGNORE", "!system.load.1"),
    ];
    let read = read("metricbeat", &fields, records);
    assert_eq!((read.messages.len(), read.ignored), (0, 1.0));
    is(&read.anomalies[0], "web-1", Some("system.load"), AT);
}

#[test]
fn kafka_connect_with_and_without_its_envelope() {
    let row = |value: &str| format!(r#"{{"id":9007199254740993,"reading":{value},"at":1764000000000}}"#);
    let schema = r#"{"type":"struct","fields":[{"type":"int64","optional":false,"field":"id"},{"type":"double","optional":false,"field":"reading"},{"type":"int64","optional":false,"name":"org.apache.kafka.connect.data.Timestamp","version":1,"field":"at"}],"optional":false}"#;
    let wrapped = |value: &str| format!(r#"{{"schema":{schema},"payload":{}}}"#, row(value));
    let mut records = four(wrapped);
    // A deleted row, a decimal as Connect's bytes, and the same topic through the Avro converter.
    records.push(Sent { key: Some(b"7".to_vec()), ..Sent::default() });
    records.push(record(wrapped(r#""AfQ=""#)));
    records.push(record(b"\x00\x00\x00\x00\x2a\x02\x0eweb-1\x00\x00\x00\x00\x00\x00\xf0\x3f".to_vec()));
    let fields =
        [("FIELDS__DEVICE", "payload.id"), ("FIELDS__VALUE", "payload.reading"), ("FIELDS__TIME", "payload.at")];
    let with = read("connect_wrapped", &fields, records);
    is(&with.anomalies[0], "9007199254740993", None, AT);
    assert_eq!(with.ignored, 1.0);
    assert_eq!(with.messages[0], "`payload.reading` is not a number: \"AfQ=\"");
    assert!(with.messages[1].contains("schema registry's header (schema 42)"), "{:?}", with.messages);
    // Without the envelope, the device in the key and the metric in a header; and what is said of a forgotten envelope.
    let header = |sent: Sent| Sent {
        key: Some(b"pump-7".to_vec()),
        headers: vec![("unit", None), ("sensor", Some(b"pressure"))],
        ..sent
    };
    let mut records = four(row).into_iter().map(header).collect::<Vec<_>>();
    records.push(header(record(wrapped("1"))));
    records.push(Sent { key: Some(b"\xff".to_vec()), ..header(record(row("1"))) });
    records.push(Sent { headers: vec![("sensor", Some(b"a")), ("sensor", Some(b"b"))], ..header(record(row("1"))) });
    let fields = [
        ("FIELDS__DEVICE", "$key"),
        ("FIELDS__METRIC", "$header.sensor"),
        ("FIELDS__VALUE", "reading"),
        ("FIELDS__TIME", "at"),
    ];
    let without = read("connect_bare", &fields, records);
    is(&without.anomalies[0], "pump-7", Some("pressure"), AT);
    assert!(without.messages[0].contains("begin the paths with `payload.`"), "{:?}", without.messages);
    assert_eq!(without.messages[1..], ["`$key` is not UTF-8", "`$header.sensor` is given twice"]);
}
