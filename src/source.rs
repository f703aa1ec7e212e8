//! What the producer sends: synthetic devices, a file, or this machine's own metrics. A source says when its next event
//! is due; it sends nothing itself.

pub mod file;
pub mod generator;
pub mod host;
pub mod replay;

use std::time::Duration;

/// One event, ready to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `device_id`, when it is known.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Vec<u8>,
    /// Header `anomaly-label`: the kind of an injected anomaly.
    pub label: Option<&'static str>,
}

/// What a source says when it is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This one, now.
    Event(Sample),
    /// Nothing for this long.
    Wait(Duration),
    /// Nothing any more.
    End,
}

/// A sequence of events in time.
pub trait Source {
    /// What is due, `elapsed` after the start.
    ///
    /// # Errors
    /// When the source cannot be read any further.
    fn next(&mut self, elapsed: Duration) -> crate::error::Result<Next>;
}

/// One event as JSON, with the fields at their configured paths.
fn json(
    fields: &crate::event::Fields,
    device: &str,
    metric: Option<&str>,
    value: f64,
    at: Option<crate::event::Instant>,
) -> Vec<u8> {
    use serde_json::{Map, Value};
    fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
        match path.split_once('.') {
            None => {
                object.insert(path.to_owned(), value);
            }
            Some((head, rest)) => {
                let below = object.entry(head).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(below) = below {
                    put(below, rest, value);
                }
            }
        }
    }
    if fields.are_flat() {
        return flat(fields, device, metric, value, at).unwrap_or_default();
    }
    let mut object = Map::new();
    put(&mut object, &fields.device, device.into());
    if let Some(metric) = metric {
        put(&mut object, &fields.metric, metric.into());
    }
    put(&mut object, &fields.value, value.into());
    if let Some(at) = at {
        put(&mut object, &fields.time, at.to_string().into());
    }
    Value::Object(object).to_string().into_bytes()
}

/// The same without the object in between. Cannot fail: memory takes all, and the numbers are finite.
fn flat(
    fields: &crate::event::Fields,
    device: &str,
    metric: Option<&str>,
    value: f64,
    at: Option<crate::event::Instant>,
) -> serde_json::Result<Vec<u8>> {
    use serde::ser::{SerializeMap, Serializer};
    let mut json = Vec::with_capacity(160);
    let mut serializer = serde_json::Serializer::new(&mut json);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry(&fields.device, device)?;
    if let Some(metric) = metric {
        object.serialize_entry(&fields.metric, metric)?;
    }
    object.serialize_entry(&fields.value, &value)?;
    if let Some(at) = at {
        object.serialize_entry(&fields.time, &at)?;
    }
    object.end()?;
    Ok(json)
}
