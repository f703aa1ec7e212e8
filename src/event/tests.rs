//! The contract of a raw event, case by case.

mod lenient;
mod places;
mod several;

use super::*;

/// Returns the default settings without the lenient forms.
fn strict() -> Fields {
    Fields { lenient: false, ..Fields::default() }
}

fn class(value: &[u8]) -> RejectClass {
    decode(Some(value), &strict()).expect_err(&String::from_utf8_lossy(value)).class
}

fn event(value: &str) -> Event<'_> {
    decode(Some(value.as_bytes()), &Fields::default()).unwrap_or_else(|e| panic!("{value}: {e}"))
}

fn with(field: &str, json: &str) -> String {
    let rest = [("device_id", r#""d""#), ("metric_value", "1"), ("timestamp", "0")]
        .iter()
        .filter(|(name, _)| *name != field)
        .map(|(name, json)| format!(r#""{name}":{json}"#))
        .collect::<Vec<_>>()
        .join(",");
    format!(r#"{{{rest},"{field}":{json}}}"#)
}

#[test]
fn the_contracts_example_is_an_event() {
    let event = event(
        r#"{"device_id":"pump-0042","metric_name":"temperature","metric_value":21.53,"timestamp":"2026-11-23T17:00:00.123Z"}"#,
    );
    assert_eq!(event.device_id, "pump-0042");
    assert_eq!(event.metric_name.as_deref(), Some("temperature"));
    assert_eq!(event.metric_value, 21.53);
    assert_eq!(event.timestamp.unwrap().to_string(), "2026-11-23T17:00:00.123Z");
}

#[test]
fn every_malformed_record_is_rejected_under_its_class() {
    let long = format!("\"{}\"", "x".repeat(257));
    let cases: Vec<(String, RejectClass)> = vec![
        ("nonsense".into(), RejectClass::Json),
        ("{".into(), RejectClass::Json),
        (r#"{"device_id":"d","metric_value":1} x"#.into(), RejectClass::Json),
        (r#"{"device_id":"d","metric_value":NaN}"#.into(), RejectClass::Json),
        (r#"{"device_id":"d","metric_value":01}"#.into(), RejectClass::Json),
        ("[1]".into(), RejectClass::Shape),
        ("3".into(), RejectClass::Shape),
        ("null".into(), RejectClass::Shape),
        ("{}".into(), RejectClass::DeviceId),
        (with("device_id", "null"), RejectClass::DeviceId),
        (with("device_id", "7"), RejectClass::DeviceId),
        (with("device_id", r#""""#), RejectClass::DeviceId),
        (with("device_id", &long), RejectClass::DeviceId),
        (with("device_id", r#""a\u0000b""#), RejectClass::DeviceId),
        (with("device_id", r#""\ud800""#), RejectClass::DeviceId),
        (with("metric_name", "{}"), RejectClass::MetricName),
        (with("metric_name", r#""\u0000""#), RejectClass::MetricName),
        (with("metric_value", r#""1""#), RejectClass::MetricValue),
        (with("metric_value", "null"), RejectClass::MetricValue),
        (with("metric_value", "true"), RejectClass::MetricValue),
        (with("metric_value", "1e999"), RejectClass::MetricValue),
        (r#"{"device_id":"d"}"#.into(), RejectClass::MetricValue),
        (with("timestamp", r#""yesterday""#), RejectClass::Timestamp),
        (with("timestamp", r#""2026-02-30T00:00:00Z""#), RejectClass::Timestamp),
        (with("timestamp", r#""2026-02-03T00:00:00""#), RejectClass::Timestamp),
        (with("timestamp", "false"), RejectClass::Timestamp),
        (with("timestamp", "1e300"), RejectClass::Timestamp),
        (r#"{"device_id":"d","device_id":"d","metric_value":1}"#.into(), RejectClass::Duplicate),
        (r#"{"device_id":"d","metric_value":1,"metric_value":1}"#.into(), RejectClass::Duplicate),
    ];
    for (json, expected) in cases {
        assert_eq!(class(json.as_bytes()), expected, "{json}");
    }
    let lenient = [(with("device_id", "7"), "7"), (with("metric_value", r#""1""#), "d")];
    for (json, device) in lenient {
        assert_eq!(event(&json).device_id, device, "{json}");
    }
    assert_eq!(class(b"{\"device_id\":\"\xff\"}"), RejectClass::Utf8);
    assert_eq!(class(b""), RejectClass::Empty);
    assert_eq!(decode(None, &Fields::default()).unwrap_err().class, RejectClass::Empty);
}

#[test]
fn unknown_fields_are_ignored_however_deep_or_often() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(event(&with("x", &deep)).metric_value, 1.0);
    assert_eq!(event(r#"{"x":1,"x":2,"device_id":"d","metric_value":-0.5e1}"#).metric_value, -5.0);
    assert_eq!(event(r#"{"devic\u0065_id":"d","metric_value":1}"#).device_id, "d");
}

#[test]
fn times_in_every_accepted_form_are_written_as_utc_milliseconds() {
    for (json, written) in [
        (r#""2026-11-23 18:00:00.1239+01:00""#, "2026-11-23T17:00:00.123Z"),
        ("1764000000", "2025-11-24T16:00:00.000Z"),
        ("1764000000.25", "2025-11-24T16:00:00.250Z"),
        ("1764000000250", "2025-11-24T16:00:00.250Z"),
        ("1764000000250999", "2025-11-24T16:00:00.250Z"),
        ("1764000000250999999", "2025-11-24T16:00:00.250Z"),
        ("-1", "1969-12-31T23:59:59.000Z"),
        (r#""9999-12-31T23:59:59.999Z""#, "9999-12-31T23:59:59.999Z"),
        (r#""0001-01-01T00:00:00Z""#, "0001-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(event(&with("timestamp", json)).timestamp.unwrap().to_string(), written, "{json}");
    }
    assert_eq!(event(&with("timestamp", "null")).timestamp, None);
}

#[test]
fn fields_are_found_by_dotted_paths() {
    let fields = Fields {
        device: "meta.source.id".into(),
        metric: "name".into(),
        value: "fields.value".into(),
        time: "meta.at".into(),
        ..Fields::default()
    };
    let json = br#"{"fields":{"value":2,"other":[]},"name":"n","meta":{"at":5,"source":{"id":"a"}},"id":1}"#;
    let found = decode(Some(json), &fields).unwrap();
    assert_eq!((found.device_id.as_ref(), found.metric_value), ("a", 2.0));
    assert_eq!(found.timestamp.unwrap().millis(), 5000);
    assert_eq!(decode(Some(br#"{"meta":3,"fields":{"value":2}}"#), &fields).unwrap_err().class, RejectClass::DeviceId);
    let twice = br#"{"fields":{"value":2},"fields":{"value":2},"meta":{"source":{"id":"a"}}}"#;
    assert_eq!(decode(Some(twice), &fields).unwrap_err().class, RejectClass::Duplicate);
}

/// Tokens of an event, and others that may replace them.
const TOKENS: &[&str] = &[
    "{",
    "\"device_id\"",
    ":",
    "\"d\"",
    ",",
    "\"metric_name\"",
    ":",
    "\"m\"",
    ",",
    "\"metric_value\"",
    ":",
    "1.5",
    ",",
    "\"timestamp\"",
    ":",
    "\"2026-11-23T17:00:00.123Z\"",
    ",",
    "\"x\"",
    ":",
    "true",
    "}",
];
#[rustfmt::skip]
const OTHERS: &[&str] = &[
    "", "{", "}", "[", "]", ",", ":", " ", "\n", "\"", "\\", "{}", "[]", "\"y\":1,", "\"metric_value\":2,", "null", "false", "nul",
    "-0", "01", "-", "1.", ".5", "1e5", "1E+2", "0.1", "123456789012345", "1234567890123456", "9007199254740993.0", "1e999",
    "\"\"", "\"\\ud800\"", "\"\u{7f}é\"", "\"devic\\u0065_id\"", "\"a\\nb\"", "\u{1}", "\u{feff}", "\"2026-02-30T17:00:00.123Z\"",
    "\"2024-02-29T23:59:60.000Z\"", "\"2026-11-23 17:00:00.123Z\"", "\"2026-11-23T17:00:00Z\"", "1764000000",
];

proptest::proptest! {
    #[test]
    fn the_fast_decoders_agree_with_the_complete_one(
        changes in proptest::collection::vec((0..TOKENS.len(), proptest::sample::select(OTHERS)), 0..4),
    ) {
        let mut tokens = TOKENS.to_vec();
        changes.iter().for_each(|(at, other)| tokens[*at] = other);
        agrees(&tokens.concat());
    }

    #[test]
    fn numbers_and_times_are_read_to_the_last_bit(
        whole in -20_000_000_000_000_000i64..20_000_000_000_000_000, digits in 0usize..19, fraction: u64, exponent in -30i32..30,
        millis in -62_167_219_200_000i64..=253_402_300_799_999,
    ) {
        let fraction = &format!("{fraction:020}")[..digits];
        let dot = if digits > 0 { "." } else { "" };
        let time = Timestamp::from_millis(millis).unwrap();
        let format = time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        proptest::prop_assert_eq!(time.to_string(), time.to_time().format(&format).unwrap());
        for number in [format!("{whole}{dot}{fraction}"), format!("{whole}e{exponent}"), format!("-0{dot}{fraction}")] {
            let text = format!(r#"{{"device_id":"d","metric_value":{number},"timestamp":"{time}"}}"#);
            agrees(&text);
            proptest::prop_assert_eq!(event(&text).metric_value.to_bits(), number.parse::<f64>().unwrap().to_bits());
            proptest::prop_assert_eq!(event(&text).timestamp, Some(time));
        }
    }
}

/// Returns whether all decoders give the same result for a text.
fn agrees(text: &str) {
    let fields = Fields::default();
    let careful = decode_with_care(text, &fields);
    if let Some((quick, _)) = scan::usual(text, &fields) {
        same(&Ok(Decoded::One(quick)), &careful, text);
    }
    let usual = TOKENS.concat();
    let mut decoder = Decoder::new(&fields);
    decoder.decode(&RawRecord::value(usual.as_bytes())).unwrap();
    for text in [text, text, &usual, text] {
        same(&decoder.decode(&RawRecord::value(text.as_bytes())), &decode_with_care(text, &fields), text);
    }
    // The shape of this text must not change how the usual event is decoded.
    let mut decoder = Decoder::new(&fields);
    for text in [text, &usual, text] {
        same(&decoder.decode(&RawRecord::value(text.as_bytes())), &decode_with_care(text, &fields), text);
    }
}

type Read<'a> = Result<Decoded<'a>, Rejection>;

fn decode_with_care<'a>(text: &'a str, fields: &Fields) -> Read<'a> {
    Parser::new(fields).unwrap().careful(text.as_bytes(), &RawRecord::value(text.as_bytes()))
}

fn same(one: &Read<'_>, other: &Read<'_>, text: &str) {
    assert_eq!(one, other, "{text}");
    if let (Ok(Decoded::One(one)), Ok(Decoded::One(other))) = (one, other) {
        assert_eq!(one.metric_value.to_bits(), other.metric_value.to_bits(), "{text}");
    }
}

#[test]
fn the_contracts_example_uses_the_fast_scan() {
    assert!(scan::usual(&TOKENS.concat(), &Fields::default()).is_some());
}

#[test]
fn events_of_the_same_form_are_recognised_by_the_bytes_around_their_values() {
    let text = |device: &str, value: &str, time: &str| {
        format!(r#"{{"unit": "°C", "timestamp": "{time}", "metric_value": {value}, "device_id": "{device}"}} "#)
    };
    let mut decoder = Decoder::new(&Fields::default());
    let first = text("a", "1", "2026-11-23T17:00:00.123Z");
    decoder.decode(&RawRecord::value(first.as_bytes())).unwrap();
    for (device, value, time) in [
        ("é-0042", "-21.53", "2026-11-23T17:00:59.999Z"),
        ("b", "0", "2026-11-23T17:01:00.000Z"),
        ("c", "7", "1999-01-01T00:00:00.000Z"),
    ] {
        let text = text(device, value, time);
        assert!(decoder.knows(text.as_bytes()), "{text}");
        let event = decoder.decode(&RawRecord::value(text.as_bytes())).unwrap().into_first().unwrap();
        assert_eq!((&*event.device_id, event.metric_value), (device, value.parse().unwrap()));
        assert_eq!(event.timestamp.unwrap().to_string(), time);
    }
    for other in [
        text("b", "1e3", "2026-11-23T17:00:00.123Z"),
        text("b", "1", "2026-11-23T17:00:60.000Z"),
        text("b\\", "1", "2026-11-23T17:00:00.123Z"),
        text("b", "1", "2026-11-23T17:00:00.123Z").replace("°C", "°F"),
        text("b", "1", "2026-11-23T17:00:00.123Z") + "x",
    ] {
        assert!(!decoder.knows(other.as_bytes()), "{other}");
    }
}

#[test]
fn names_are_accepted_only_if_they_are_utf8() {
    for length in 1..40 {
        for at in 0..length {
            let mut bytes = vec![b'x'; length];
            assert_eq!(scan::name(&bytes), std::str::from_utf8(&bytes).ok());
            bytes[at] = 0xff;
            assert_eq!(scan::name(&bytes), None, "{at} of {length}");
        }
    }
}

#[test]
fn a_stream_that_changes_its_form_is_recognised_again_after_some_events() {
    let mut decoder = Decoder::new(&Fields::default());
    let (old, new) = (r#"{"device_id":"a","metric_value":1}"#, r#"{"metric_value":1,"device_id":"a"}"#);
    decoder.decode(&RawRecord::value(old.as_bytes())).unwrap();
    for _ in 0..100 {
        decoder.decode(&RawRecord::value(new.as_bytes())).unwrap();
    }
    assert!(decoder.knows(new.as_bytes()) && !decoder.knows(old.as_bytes()));
}
