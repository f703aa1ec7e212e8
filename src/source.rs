//! Sources of events for the producer: synthetic devices, a file, or this machine's own metrics. A source says when its
//! next event is due, and sends nothing itself.

pub(crate) mod file;
pub(crate) mod generator;
pub(crate) mod host;
pub(crate) mod pace;
pub(crate) mod reasons;
pub(crate) mod replay;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::event::{Fields, Timestamp};

/// One event, ready to send.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceEvent {
    /// Device, if it is known.
    pub key: Option<Vec<u8>>,
    /// Value of the record, in bytes.
    pub value: Vec<u8>,
    /// Header `anomaly-label`: the kind of an injected anomaly.
    pub label: Option<&'static str>,
}

/// Answer of a source to a request for its next event.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceStep {
    /// This event is due now.
    Event(SourceEvent),
    /// No event is due for this time.
    Wait(Duration),
    /// The source has no further event.
    End,
}

/// A sequence of events in time.
pub trait EventSource {
    /// Returns the event that is due `elapsed` after the start.
    ///
    /// # Errors
    /// If the source cannot be read further.
    fn next(&mut self, elapsed: Duration) -> crate::error::Result<SourceStep>;

    /// Logs what was not sent, unless the source has logged it. The producer calls it when it stops, whatever the reason.
    fn log_summary(&mut self) {}
}

/// Writes events as JSON, with the fields at their configured paths.
#[derive(Debug)]
struct Writer {
    fields: Fields,
    /// The keys as written, such as `"device_id":`; `None` if some are in inner objects.
    keys: Option<[String; 4]>,
}

impl Writer {
    fn new(fields: &Fields) -> Self {
        let paths = [&fields.device, &fields.metric, &fields.value, &fields.time];
        let is_flat = paths.iter().all(|path| !path.contains('.'));
        let keys = is_flat.then(|| paths.map(|path| format!("{}:", Value::from(path.as_str()))));
        Writer { fields: fields.clone(), keys }
    }

    fn event(&self, device: &str, metric: Option<&str>, value: f64, at: Option<Timestamp>) -> Vec<u8> {
        let Some(keys) = &self.keys else { return self.nested(device, metric, value, at) };
        let mut json = Vec::with_capacity(160);
        put(&mut json, &keys[0], device);
        if let Some(metric) = metric {
            put(&mut json, &keys[1], metric);
        }
        put(&mut json, &keys[2], &value);
        if let Some(at) = at {
            put(&mut json, &keys[3], &at);
        }
        json.push(b'}');
        json
    }

    fn nested(&self, device: &str, metric: Option<&str>, value: f64, at: Option<Timestamp>) -> Vec<u8> {
        let fields = &self.fields;
        let mut object = Map::new();
        insert(&mut object, &fields.device, device.into());
        if let Some(metric) = metric {
            insert(&mut object, &fields.metric, metric.into());
        }
        insert(&mut object, &fields.value, value.into());
        if let Some(at) = at {
            insert(&mut object, &fields.time, at.to_string().into());
        }
        Value::Object(object).to_string().into_bytes()
    }
}

/// Appends a field to an object.
fn put<T: Serialize + ?Sized>(json: &mut Vec<u8>, key: &str, value: &T) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    json.extend_from_slice(key.as_bytes());
    // This cannot fail: memory accepts all bytes, and numbers are finite.
    let _ = serde_json::to_writer(json, value);
}

fn insert(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let below = object.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                insert(below, rest, value);
            }
        }
    }
}
