//! Records with several values: which events they have, when they are rejected, and which settings are refused.

use super::*;

fn fields(device: &str, metric: &str, value: &str, time: &str) -> Fields {
    let [device, metric, value, time] = [device, metric, value, time].map(str::to_owned);
    Fields { device, metric, value, time, ..Fields::default() }
}

fn telegraf() -> Fields {
    fields("tags.host", "metrics[*].name", "metrics[*].value", "metrics[*].at")
}

fn sensors() -> Fields {
    Fields { value: "sensors.*".into(), ..Fields::default() }
}

/// Index, device, metric and value of each event, and the first problem.
type Seen = (Vec<(i32, String, Option<String>, f64)>, Option<(RejectClass, String)>);

fn read(fields: &Fields, json: &str) -> Seen {
    let problem = |why: &Rejection| (why.class, why.message.clone());
    match Decoder::new(fields).decode(&RawRecord::value(json.as_bytes())) {
        Err(why) => (Vec::new(), Some(problem(&why))),
        Ok(events) => {
            let all = events.events().map(|(index, event)| {
                let metric = event.metric_name.as_deref().map(str::to_owned);
                (index, event.device_id.to_string(), metric, event.metric_value)
            });
            assert_eq!(events.len(), events.events().count());
            (all.collect(), events.partial().map(problem))
        }
    }
}

fn metrics(fields: &Fields, json: &str) -> Vec<(i32, String, f64)> {
    let (events, problem) = read(fields, json);
    assert_eq!(problem, None, "{json}");
    events.into_iter().map(|(index, _, metric, value)| (index, metric.unwrap_or("-".into()), value)).collect()
}

#[test]
fn each_element_of_an_array_is_an_event_in_its_order() {
    let json = r#"{"metrics":[{"name":"a","value":1,"at":10},{"at":20,"value":2.5,"x":[{}],"name":"b"},{"name":"a","value":3}],
        "tags":{"host":"h"}}"#;
    let decoded = Parser::new(&telegraf()).unwrap().read(&RawRecord::value(json.as_bytes())).unwrap();
    let seconds = decoded.events().map(|(_, event)| event.timestamp.map(|at| at.millis() / 1_000));
    assert_eq!(seconds.collect::<Vec<_>>(), [Some(10), Some(20), None]);
    assert!(decoded.has_own_times() && decoded.events().all(|(_, event)| event.device_id == "h"));
    let expected = [(0, "a".to_owned(), 1.0), (1, "b".into(), 2.5), (2, "a".into(), 3.0)];
    assert_eq!(metrics(&telegraf(), json), expected);
    // All other fields may be outside of the array, and the record may be the array.
    assert_eq!(
        metrics(
            &Fields { value: "v[*]".into(), ..Fields::default() },
            r#"{"device_id":"d","metric_name":"m","v":[1,"2",null,-3e0]}"#
        ),
        [(0, "m".to_owned(), 1.0), (1, "m".into(), 2.0), (3, "m".into(), -3.0)]
    );
    let top = fields("[*].host", "[*].m", "[*].v", "[*].t");
    let (events, _) = read(&top, r#" [{"host":"a","m":"x","v":1},{"host":"b","v":2}]"#);
    assert_eq!(events, [(0, "a".into(), Some("x".into()), 1.0), (1, "b".into(), None, 2.0)]);
    assert_eq!(read(&top, "{}").1.unwrap().0, RejectClass::Shape);
}

#[test]
fn each_member_of_an_object_is_an_event_whose_metric_is_its_name() {
    let json = r#"{"timestamp":1764000000,"sensors":{"hum\u0069dity":41,"temp":"21.5","off":null},"device_id":"d"}"#;
    assert_eq!(metrics(&sensors(), json), [(0, "humidity".to_owned(), 41.0), (1, "temp".into(), 21.5)]);
    let named = Fields { metric: "{kind}.{*}".into(), value: "s.*.v".into(), ..Fields::default() };
    let json = r#"{"device_id":"d","kind":"k","s":{"a":{"v":1},"b":{"v":2,"w":3}}}"#;
    assert_eq!(metrics(&named, json), [(0, "k.a".to_owned(), 1.0), (1, "k.b".into(), 2.0)]);
    let devices = Fields { device: "*".into(), value: "hosts.*.load".into(), ..Fields::default() };
    let (events, _) = read(&devices, r#"{"hosts":{"a":{"load":1},"b":{"load":2}},"metric_name":"load"}"#);
    assert_eq!(events[1], (1, "b".into(), Some("load".into()), 2.0));
}

#[test]
fn one_value_needs_no_list() {
    let decoded = |json: &'static str| Decoder::new(&sensors()).decode(&RawRecord::value(json.as_bytes())).unwrap();
    assert!(matches!(decoded(r#"{"device_id":"d","sensors":{"a":1}}"#), Decoded::One(_)));
    assert!(
        matches!(decoded(r#"{"device_id":"d","sensors":{"off":null,"a":1}}"#), Decoded::Several(_)),
        "its index is 1"
    );
}

#[test]
fn a_record_without_a_value_is_ignored() {
    for json in [r#"{"device_id":"d","sensors":{}}"#, r#"{"device_id":"d","sensors":{"a":null}}"#, r#"{"sensors":{}}"#]
    {
        assert_eq!(read(&sensors(), json), (Vec::new(), None), "{json}");
    }
    assert_eq!(read(&telegraf(), r#"{"metrics":[]}"#), (Vec::new(), None));
    // Without lenient forms these records are rejected.
    let strict = Fields { lenient: false, ..sensors() };
    assert_eq!(read(&strict, r#"{"device_id":"d","sensors":{"a":null}}"#).1.unwrap().0, RejectClass::MetricValue);
}

#[test]
fn one_invalid_value_rejects_the_record_or_only_itself() {
    for (json, class, says) in [
        (
            r#"{"device_id":"d","sensors":{"a":1,"b":"x","c":3}}"#,
            RejectClass::MetricValue,
            "`sensors.b` is not a number",
        ),
        (r#"{"device_id":"d","sensors":{"a":1,"b":[],"c":3}}"#, RejectClass::MetricValue, "`sensors.b` is an array"),
    ] {
        let (events, problem) = read(&sensors(), json);
        let (found, message) = problem.unwrap();
        assert!(events.is_empty() && found == class && message.contains(says), "{message}");
        let valid = Fields { on_partial: OnPartial::JudgeValid, ..sensors() };
        let (events, problem) = read(&valid, json);
        let places = events.iter().map(|(index, ..)| *index).collect::<Vec<_>>();
        assert!(places == [0, 2] && problem.is_some_and(|(_, message)| message.contains(says)));
        // A record without a valid value is rejected.
        let (events, problem) = read(&valid, &json.replace('1', "{}").replace('3', "true"));
        assert!(events.is_empty() && problem.is_some());
    }
    let (_, problem) =
        read(&telegraf(), r#"{"tags":{"host":"h"},"metrics":[{"name":"a","value":1},{"name":"b","val":2}]}"#);
    assert_eq!(problem.unwrap().1, "`metrics[1].value` is missing; the object has \"name\", \"val\"");
}

#[test]
fn a_container_that_is_absent_too_large_or_ambiguous_rejects_the_record() {
    let judged = Fields { on_partial: OnPartial::JudgeValid, ..sensors() };
    let many = |count: usize| {
        let all = (0..count).map(|n| format!("\"m{n}\":{n}")).collect::<Vec<_>>().join(",");
        format!(r#"{{"device_id":"d","sensors":{{{all}}}}}"#)
    };
    assert_eq!(read(&judged, &many(MAX_EVENTS)).0.len(), MAX_EVENTS);
    for (json, class, says) in [
        (many(MAX_EVENTS + 1), RejectClass::MetricValue, "has 1001 values; at most 1000"),
        (r#"{"device_id":"d"}"#.into(), RejectClass::MetricValue, "`sensors` is missing"),
        (r#"{"device_id":"d","sensors":[1]}"#.into(), RejectClass::MetricValue, "expected an object of values"),
        (r#"{"device_id":"d","sensors":null}"#.into(), RejectClass::MetricValue, "expected an object of values"),
        (r#"{"device_id":"d","sensors":{"a":1,"a":2}}"#.into(), RejectClass::Duplicate, "\"a\" twice"),
        (r#"{"device_id":"d","sensors":{},"sensors":{}}"#.into(), RejectClass::Duplicate, "is given twice"),
        (r#"{"device_id":"d","sensors":{"a":1}"#.into(), RejectClass::Json, ""),
        (r#"{"sensors":{"a":1}}"#.into(), RejectClass::DeviceId, "`device_id` is missing"),
    ] {
        let (events, problem) = read(&judged, &json);
        let (found, message) = problem.unwrap_or_else(|| panic!("{json}"));
        assert!(events.is_empty() && found == class && message.contains(says), "{found:?} {message}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_refused_with_the_key() {
    for (fields, key) in [
        (fields("d", "a[*].m", "v", "t"), "metric"),
        (fields("d", "m", "a[*].v", "b[*].t"), "time"),
        (fields("d", "m", "a[*].v", "a.*.t"), "time"),
        (fields("d", "m", "a[*].b[*].v", "t"), "value"),
        (fields("d", "m", "a.*.*", "t"), "value"),
        (fields("d", "m", "*", "t"), "value"),
        (fields("d", "m", "a[1].v", "t"), "value"),
        (fields("d", "m", "a.*", "t"), "metric"),
        (fields("d", "*", "a[*].v", "t"), "metric"),
        (fields("{x}/{*}", "m", "v", "t"), "device"),
        (fields("a", "m", "a[*].v", "t"), "device"),
        (fields("d", "m", "a[*]", "a[*].t"), "device"),
        (Fields { ignore: vec!["a[*].x=1".into()], ..Fields::default() }, "ignore"),
    ] {
        assert_eq!(Parser::new(&fields).err().map(|problem| problem.key), Some(key), "{fields:?}");
    }
    assert_eq!(sensors().unwritable().map(|problem| problem.key), Some("value"));
}
