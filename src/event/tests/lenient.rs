//! Tests of `fields.lenient`: what it accepts, and what remains an error.

use super::*;

#[test]
fn values_with_one_meaning_are_accepted_only_if_lenient() {
    for (field, json, same) in [
        ("metric_value", r#""21.5""#, "21.5"),
        ("metric_value", r#"" -3e2 ""#, "-300"),
        ("metric_value", r#""\u0031""#, "1"),
        ("device_id", "18446744073709551616", r#""18446744073709551616""#),
        ("device_id", "-7", r#""-7""#),
        ("metric_name", "7", r#""7""#),
        ("metric_name", r#""""#, "null"),
        ("timestamp", r#""""#, "null"),
        ("timestamp", r#"" ""#, "null"),
        ("timestamp", r#""1764000000""#, "1764000000"),
        ("timestamp", r#""2026-11-23T18:00:00+0100""#, r#""2026-11-23T17:00:00Z""#),
        ("timestamp", r#""2026-11-23 17:00:00""#, r#""2026-11-23T17:00:00Z""#),
    ] {
        let (lenient, plain) = (with(field, json), with(field, same));
        assert_eq!(event(&lenient), event(&plain), "{lenient}");
        let refused = decode(Some(lenient.as_bytes()), &strict());
        assert!(refused.as_ref().ok() != Some(&event(&plain)), "{lenient}: {refused:?}");
    }
    let bom = format!("\u{feff}{}", with("x", "1"));
    assert_eq!(event(&bom).device_id, "d");
    assert!(decode(Some(bom.as_bytes()), &strict()).unwrap_err().message.contains("byte-order mark"));
    let framed = [&[0, 0, 0, 0, 9][..], with("x", "1").as_bytes()].concat();
    assert_eq!(decode(Some(&framed), &Fields::default()).unwrap().device_id, "d");
    assert!(decode(Some(&framed), &strict()).unwrap_err().message.contains("schema 9"));
}

#[test]
fn ambiguous_and_meaningless_values_are_rejected_under_their_class() {
    let lenient = |json: String| decode(Some(json.as_bytes()), &Fields::default()).expect_err(&json).class;
    for json in ["1.0", "1e3", "-0", "1E0", "true", "[1]", r#"{"a":1}"#, r#""""#, "null", r#""a\u0000""#] {
        assert_eq!(lenient(with("device_id", json)), RejectClass::DeviceId, "{json}");
    }
    for json in [
        r#""""#,
        r#"" ""#,
        r#""NaN""#,
        r#""-Infinity""#,
        r#""1e400""#,
        "1e400",
        r#""1,5""#,
        r#""0x1f""#,
        r#""1_000""#,
        "true",
        r#""true""#,
        r#""{\"v\":1}""#,
        "[1]",
        "null",
        "\"\u{a0}1\"",
        r#""1 2""#,
        r#""one""#,
    ] {
        assert_eq!(lenient(with("metric_value", json)), RejectClass::MetricValue, "{json}");
    }
    for json in [
        r#""NaN""#,
        r#""0x10""#,
        "1e400",
        "-1e30",
        "true",
        "[2026,11,23]",
        r#""2026-W48-1""#,
        r#""02/03/2026""#,
        r#""2026-11-23T17:00:60Z""#,
        r#""20261123170000""#,
        "9999999999999999999999",
    ] {
        assert_eq!(lenient(with("timestamp", json)), RejectClass::Timestamp, "{json}");
    }
    let twice = r#"{"device_id":"d","metric_value":"1","metric_value":1}"#;
    assert_eq!(lenient(twice.into()), RejectClass::Duplicate);
    let encoded_twice = decode(Some(br#""{\"device_id\":\"d\"}""#), &Fields::default()).unwrap_err();
    assert!(encoded_twice.class == RejectClass::Shape && encoded_twice.message.contains("twice"), "{encoded_twice}");
}

#[test]
fn epoch_numbers_have_the_unit_that_is_set_else_that_of_their_size() {
    let at = |unit, number: &str| {
        let fields = Fields { time_unit: unit, ..Fields::default() };
        let json = with("timestamp", number);
        decode(Some(json.as_bytes()), &fields).unwrap().timestamp.unwrap().millis()
    };
    for text in ["1764000000250999", r#""1764000000250999""#] {
        assert_eq!(at(TimeUnit::Auto, text), 1_764_000_000_250);
    }
    // In early 1970 the size does not tell the unit.
    assert_eq!(at(TimeUnit::Auto, "5000000"), 5_000_000_000);
    assert_eq!(at(TimeUnit::Micros, "5000000"), 5_000);
    assert_eq!(at(TimeUnit::Micros, "-1500"), -2);
    assert_eq!(at(TimeUnit::Nanos, "1764000000250999999"), 1_764_000_000_250);
    assert_eq!(at(TimeUnit::Millis, "1764000000"), 1_764_000_000);
    assert_eq!(at(TimeUnit::Seconds, "1764000000.2504"), 1_764_000_000_250);
    let zone = Fields { time_zone: "Europe/Berlin".into(), ..Fields::default() };
    let json = with("timestamp", r#""2026-07-01 12:00:00""#);
    let event = decode(Some(json.as_bytes()), &zone).unwrap();
    assert_eq!(event.timestamp.unwrap().to_string(), "2026-07-01T10:00:00.000Z");
}
