//! Describes a rejected record for its message: recognises the formats of common producers.

use std::fmt::Write;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::forms::shown;
use super::{RejectClass, Rejection};

/// Maximum number of names that a message lists.
const MOST_NAMES: usize = 8;

/// Describes bytes that are not UTF-8, or not text.
pub(crate) fn binary(bytes: &[u8], error: std::str::Utf8Error) -> Rejection {
    let what = match bytes {
        [0x1f, 0x8b, ..] => "it is compressed with gzip: compress with Kafka's compression.type instead".to_owned(),
        [b'O', b'b', b'j', 1, ..] => "it is an Avro file; expected one JSON object".to_owned(),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it begins as UTF-16 does; expected UTF-8".to_owned(),
        _ => error.to_string(),
    };
    Rejection::new(RejectClass::Utf8, format_args!("the value is not UTF-8: {what}"))
}

/// Describes a value that a schema registry's client wrote: a zero byte, the schema's number, then Avro or Protobuf.
pub(crate) fn framed(bytes: &[u8]) -> Option<Rejection> {
    let [0, a, b, c, d, ..] = *bytes else { return None };
    let id = u32::from_be_bytes([a, b, c, d]);
    let what = format!(
        "the value begins with a schema registry's header (schema {id}), so it is Avro, Protobuf or JSON Schema; expected \
         plain JSON: let the producer or Kafka Connect use a JSON converter"
    );
    Some(Rejection::new(RejectClass::Json, what))
}

/// Describes text that is not one JSON object.
pub(crate) fn not_an_object(text: &str) -> Rejection {
    let reject = |class, what: &str| Rejection::new(class, format_args!("expected a JSON object{what}"));
    let inner = text.trim_matches([' ', '\t', '\r', '\n']);
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return match inner.as_bytes().first() {
            Some(b'[' | b'"') => Rejection::new(RejectClass::Json, error),
            Some(b'<') => reject(RejectClass::Json, "; the value looks like XML"),
            _ if text.starts_with('\u{feff}') => reject(RejectClass::Json, "; the value begins with a byte-order mark"),
            _ if is_line_protocol(inner) => reject(
                RejectClass::Json,
                "; the value looks like InfluxDB's line protocol (Telegraf: data_format = \"json\")",
            ),
            _ => reject(RejectClass::Json, ""),
        };
    }
    match inner.as_bytes().first() {
        Some(b'[') => reject(
            RejectClass::Shape,
            "; the value is an array (as collectd's write_kafka writes it): name paths into its elements, such as `[*].value`",
        ),
        Some(b'"') if serde_json::from_str::<String>(inner).is_ok_and(|text| text.trim_ascii().starts_with('{')) => {
            reject(RejectClass::Shape, "; the value is a string that holds JSON: the producer encodes it twice")
        }
        _ => reject(RejectClass::Shape, ""),
    }
}

/// Recognises InfluxDB's line protocol: `cpu,host=a usage_idle=97.5 1764000000000000000`.
fn is_line_protocol(text: &str) -> bool {
    let mut words = text.split(' ');
    let measurement = words.next().unwrap_or_default();
    let fields = words.next().unwrap_or_default();
    !measurement.is_empty() && !measurement.contains(['{', ':']) && fields.contains('=')
}

/// Returns what the object contains instead of a missing path. The text begins with a semicolon, or is empty.
pub(crate) fn instead(text: &str, path: &str) -> String {
    let Ok(names) = serde_json::from_str::<Names<'_>>(text) else { return String::new() };
    let has = |name: &str| names.0.iter().any(|(key, _)| key == name);
    if has("resourceMetrics") {
        return "; the object is OTLP/JSON, whose values are in arrays within arrays: let the collector write one JSON object for \
                each value or for each array"
            .into();
    }
    if has("metrics") && names.0.iter().any(|(key, value)| key == "metrics" && value.get().starts_with('[')) {
        return "; the object has an array `metrics`, as Telegraf's batches do: name paths into its elements, such as \
                `metrics[*].fields.value`, or set use_batch_format = false"
            .into();
    }
    if has("schema") && has("payload") && !path.starts_with("payload.") {
        return "; the object has Kafka Connect's envelope: begin the paths with `payload.`, or set \
                value.converter.schemas.enable = false"
            .into();
    }
    if names.0.is_empty() {
        return "; the object is empty".into();
    }
    let mut list = String::from("; the object has");
    for (at, (name, _)) in names.0.iter().take(MOST_NAMES).enumerate() {
        let _ = write!(list, "{}{}", if at == 0 { " " } else { ", " }, shown(name));
    }
    if names.0.len() > MOST_NAMES {
        list.push_str(", …");
    }
    list
}

/// Lists the names of an object and of the objects below it.
struct Names<'a>(Vec<(String, &'a RawValue)>);

impl<'a> serde::Deserialize<'a> for Names<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'a> serde::de::Visitor<'a> for Each {
            type Value = Names<'a>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<M: serde::de::MapAccess<'a>>(self, mut map: M) -> Result<Names<'a>, M::Error> {
                let mut names = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value::<&'a RawValue>()?;
                    // Further names are neither read nor listed.
                    if names.len() < 64 {
                        names.push((name, value));
                    }
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Each)
    }
}
