//! Tests of the sources of the four values, and of the patterns of ignored records.

use super::*;

struct Own(Vec<(&'static str, Option<&'static [u8]>)>);

impl Headers for Own {
    fn label(&self) -> Option<&str> {
        None
    }

    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (Cow::Borrowed(*name), *value)).collect()
    }
}

fn device(of: &str) -> Fields {
    Fields { device: of.into(), ..Fields::default() }
}

fn read(fields: &Fields, record: &RawRecord<'_>) -> Result<String, (RejectClass, String)> {
    let event = Parser::new(fields).unwrap().read(record).map_err(|wrong| (wrong.class, wrong.message))?;
    Ok(event.into_first().map_or("ignored".into(), |event| event.device_id.into_owned()))
}

#[test]
fn the_device_is_the_key_or_a_header_as_text() {
    let value = br#"{"metric_value":1,"device_id":"not this"}"#;
    let with_key = |key| read(&device("$key"), &RawRecord { key, ..RawRecord::value(value) });
    assert_eq!(with_key(Some(&b"pump"[..])), Ok("pump".into()));
    for (key, class) in [
        (None, "is missing"),
        (Some(&b""[..]), "is empty"),
        (Some(b"\xff"), "is not UTF-8"),
        (Some(b"a\0b"), "contains U+0000"),
        (Some(b"\0\0\0\0\0\0\0\x07"), "is binary"),
    ] {
        let (found, message) = with_key(key).unwrap_err();
        assert!(found == RejectClass::DeviceId && message.contains(class), "{message}");
    }
    let with_headers = |all| read(&device("$header.id"), &RawRecord { headers: &Own(all), ..RawRecord::value(value) });
    assert_eq!(with_headers(vec![("x", None), ("id", Some(b"pump"))]), Ok("pump".into()));
    assert_eq!(with_headers(vec![("id", None)]).unwrap_err().0, RejectClass::DeviceId);
    assert_eq!(with_headers(vec![("id", Some(b"a")), ("id", Some(b"a"))]).unwrap_err().0, RejectClass::Duplicate);
}

#[test]
fn a_name_is_put_together_from_all_its_parts_or_not_at_all() {
    let fields = Fields { metric: "{name}.{unit}".into(), ..device("{tags.host}/{tags.cpu}@{$key}") };
    let parser = Parser::new(&fields).unwrap();
    let with = |json: &'static str| parser.read(&RawRecord { key: Some(b"k"), ..RawRecord::value(json.as_bytes()) });
    let event = with(r#"{"tags":{"host":"a","cpu":7},"name":"load","unit":"s","metric_value":1}"#)
        .unwrap()
        .into_first()
        .unwrap();
    assert_eq!((event.device_id.as_ref(), event.metric_name.as_deref()), ("a/7@k", Some("load.s")));
    // A metric without any part is absent; a device, or a metric without one of them, is an error.
    let bare = with(r#"{"tags":{"host":"a","cpu":7},"metric_value":1}"#).unwrap().into_first().unwrap();
    assert_eq!(bare.metric_name, None);
    for (json, class) in [
        (r#"{"tags":{"host":"a"},"metric_value":1}"#, RejectClass::DeviceId),
        (r#"{"tags":{"host":"a","cpu":null},"metric_value":1}"#, RejectClass::DeviceId),
        (r#"{"tags":{"host":"","cpu":"b"},"metric_value":1}"#, RejectClass::DeviceId),
        (r#"{"tags":{"host":"a","cpu":1.5},"metric_value":1}"#, RejectClass::DeviceId),
        (r#"{"tags":{"host":"a","cpu":1},"name":"n","metric_value":1}"#, RejectClass::MetricName),
        (r#"{"tags":{"host":"a","cpu":1,"cpu":2},"metric_value":1}"#, RejectClass::Duplicate),
        (r#"{"tags":{"host":"a","cpu":1},"tags":{"cpu":2},"metric_value":1}"#, RejectClass::Duplicate),
    ] {
        assert_eq!(with(json).unwrap_err().class, class, "{json}");
    }
    let missing = with(r#"{"tags":{"host":"a"},"metric_value":1}"#).unwrap_err().message;
    assert!(missing.contains("`tags.cpu` is missing") && missing.contains("{tags.host}/{tags.cpu}"), "{missing}");
}

#[test]
fn names_with_dots_are_found_without_an_escape() {
    let fields = device("tags.host.name");
    for json in [
        r#"{"tags":{"host":{"name":"a"}},"metric_value":1}"#,
        r#"{"tags.host":{"name":"a"},"metric_value":1}"#,
        r#"{"tags.host.name":"a","metric_value":1}"#,
        r#"{"tags":{"host.name":"a"},"":{"tags":1},"metric_value":1}"#,
    ] {
        assert_eq!(read(&fields, &RawRecord::value(json.as_bytes())), Ok("a".into()), "{json}");
    }
    let both = br#"{"tags.host.name":"a","tags":{"host.name":"a"},"metric_value":1}"#;
    assert_eq!(read(&fields, &RawRecord::value(both)).unwrap_err().0, RejectClass::Duplicate);
}

#[test]
fn records_that_match_a_pattern_are_ignored_before_they_are_decoded() {
    let ignored = |pattern: &str, json: &str| {
        let fields = Fields { ignore: vec![pattern.into()], ..Fields::default() };
        let record = RawRecord { key: Some(b"k"), ..RawRecord::value(json.as_bytes()) };
        read(&fields, &record) == Ok("ignored".into())
    };
    let heartbeat = r#"{"type":"heartbeat","n":1,"deep":{"x":null}}"#;
    for pattern in [
        "type",
        "type=heartbeat",
        "type = heartbeat",
        "type!=reading",
        "n=1",
        "!metric_value",
        "!deep.x",
        "$key=k",
        "deep",
    ] {
        assert!(ignored(pattern, heartbeat), "{pattern}");
    }
    for pattern in ["type=heart", "type!=heartbeat", "n=1.0", "deep.x", "!type", "$key=x", "$header.x", "absent"] {
        assert!(!ignored(pattern, heartbeat), "{pattern}");
    }
    // A value that is not JSON is still rejected, unless the pattern needs only the key.
    assert!(!ignored("!metric_value", "nonsense") && ignored("$key=k", "nonsense"));
    let null = RawRecord { value: None, ..RawRecord::value(b"") };
    assert_eq!(read(&Fields::default(), &null), Ok("ignored".into()));
}

#[test]
fn settings_that_cannot_be_read_are_refused_with_the_key() {
    let value = |of: &str| Fields { value: of.into(), ..Fields::default() };
    let metric = |of: &str| Fields { metric: of.into(), ..Fields::default() };
    for (fields, key) in [
        (value("values[]"), "value"),
        (value("values[0]"), "value"),
        (value("a,b"), "value"),
        (value("{a}/{b}"), "value"),
        (value("$timestamp"), "value"),
        (device("$topic"), "device"),
        (device("$header."), "device"),
        (device("{a}{b}"), "device"),
        (device("{a"), "device"),
        (device("a}"), "device"),
        (device("{}"), "device"),
        (device("{a{b}}"), "device"),
        (metric("{tags[].x}/{b}"), "metric"),
        (Fields { time_zone: "CET".into(), ..Fields::default() }, "time_zone"),
        (Fields { time_zone: String::new(), ..Fields::default() }, "time_zone"),
        (Fields { ignore: vec!["=x".into()], ..Fields::default() }, "ignore"),
        (Fields { ignore: (0..20).map(|n| format!("p{n}")).collect(), ..Fields::default() }, "ignore"),
    ] {
        assert_eq!(Parser::new(&fields).err().map(|problem| problem.key), Some(key), "{fields:?}");
    }
    for (fields, key) in
        [(device("{a}/{b}"), Some("device")), (metric("$header.m"), Some("metric")), (device("$key"), None)]
    {
        assert_eq!(fields.unwritable().map(|problem| problem.key), key, "{fields:?}");
    }
    for fields in [value("temp [C]"), device("$key"), metric("{a}/{b}"), metric("")] {
        assert_eq!(Parser::new(&fields).err(), None, "{fields:?}");
    }
}
