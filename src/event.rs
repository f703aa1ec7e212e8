//! The raw event: one record of `raw_events`, decoded and checked, or rejected with its reason.
//!
//! The four fields are found by configurable dotted paths; everything else in the object is skipped unread.
//! Knows nothing of series or Kafka.

mod forms;
mod instant;
mod scan;
mod shape;
mod spelling;
mod zone;

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use forms::Forms;
pub use instant::{Instant, TimeUnit};
pub use shape::Decoder;
pub use zone::Zone;

/// Longest `device_id` and `metric_name`, in bytes of UTF-8. (PostgreSQL cannot index names of kilobytes.)
pub const MAX_NAME: usize = 256;

/// A well-formed event. The value is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// 1 to [`MAX_NAME`] bytes, without U+0000.
    pub device_id: Cow<'a, str>,
    /// The same rules; `None` when null or absent.
    pub metric_name: Option<Cow<'a, str>>,
    /// Finite.
    pub metric_value: f64,
    /// `None` when null or absent: then the record's own time counts.
    pub timestamp: Option<Instant>,
}

/// Why a record is not an event; also a metric's label and the header `anomaly.error.class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// No value at all, or no bytes.
    Empty,
    /// Not UTF-8.
    Utf8,
    /// Not JSON.
    Json,
    /// JSON, but not an object; or a line that does not fit the table.
    Shape,
    /// One of the four fields twice.
    Duplicate,
    /// The device's name.
    DeviceId,
    /// The metric's name.
    MetricName,
    /// The value.
    MetricValue,
    /// The time.
    Timestamp,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 9] = [
        Class::Empty,
        Class::Utf8,
        Class::Json,
        Class::Shape,
        Class::Duplicate,
        Class::DeviceId,
        Class::MetricName,
        Class::MetricValue,
        Class::Timestamp,
    ];

    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Empty => "empty",
            Class::Utf8 => "utf8",
            Class::Json => "json",
            Class::Shape => "shape",
            Class::Duplicate => "duplicate_field",
            Class::DeviceId => "device_id",
            Class::MetricName => "metric_name",
            Class::MetricValue => "metric_value",
            Class::Timestamp => "timestamp",
        }
    }
}

/// A record that is not an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For counting and filtering.
    pub class: Class,
    /// For people: what is wrong and what was expected.
    pub message: String,
}

impl Rejection {
    fn new(class: Class, message: impl fmt::Display) -> Self {
        Rejection { class, message: message.to_string() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}

/// Where the four fields are in the object, as dotted paths. No path may begin another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Fields {
    /// `device_id`
    pub device: String,
    /// `metric_name`
    pub metric: String,
    /// `metric_value`
    pub value: String,
    /// `timestamp`
    pub time: String,
}

impl Default for Fields {
    fn default() -> Self {
        let [device, metric, value, time] =
            ["device_id", "metric_name", "metric_value", "timestamp"].map(str::to_owned);
        Fields { device, metric, value, time }
    }
}

impl Fields {
    fn paths(&self) -> [&str; 4] {
        [&self.device, &self.metric, &self.value, &self.time]
    }

    /// Two paths of which one begins the other, or `None`.
    pub fn clash(&self) -> Option<(&str, &str)> {
        let paths = self.paths();
        let begins = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        for (i, a) in paths.iter().enumerate() {
            for (j, b) in paths.iter().enumerate() {
                if i != j && begins(a, b) {
                    return Some((a, b));
                }
            }
        }
        None
    }
}

/// Decodes the value of one record; a [`Decoder`] does the same for many that look alike.
///
/// # Errors
/// The first thing found wrong, JSON's own form before the fields.
pub fn decode<'a>(value: Option<&'a [u8]>, fields: &Fields) -> Result<Event<'a>, Rejection> {
    located(value, fields).map(|(event, _)| event)
}

/// Also where its values were found, if it is of the usual form.
fn located<'a>(value: Option<&'a [u8]>, fields: &Fields) -> Result<(Event<'a>, Option<scan::Spans>), Rejection> {
    let bytes = value.unwrap_or_default();
    if bytes.is_empty() {
        let what = if value.is_none() { "null" } else { "empty" };
        return Err(Rejection::new(Class::Empty, format_args!("the value is {what}; expected a JSON object")));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Rejection::new(Class::Utf8, e))?;
    match scan::usual(text, fields) {
        Some((event, spans)) => Ok((event, Some(spans))),
        None => read(text, fields).map(|event| (event, None)),
    }
}

/// The careful reading, which knows every form and every error.
fn read<'a>(text: &'a str, fields: &Fields) -> Result<Event<'a>, Rejection> {
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        let class = match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Class::Shape,
            Err(_) => Class::Json,
        };
        return Err(Rejection::new(class, "expected a JSON object"));
    }
    let mut found = Found::default();
    collect(text, &fields.paths().map(Some), &mut found).map_err(|e| Rejection::new(Class::Json, e))?;
    if let Some(twice) = found.twice {
        return Err(Rejection::new(Class::Duplicate, format_args!("`{}` is given twice", fields.paths()[twice])));
    }
    let [device, metric, value, time] = found.slots;
    let device_id = name(device, &fields.device, Class::DeviceId)?
        .ok_or_else(|| Rejection::new(Class::DeviceId, format_args!("`{}` is missing", fields.device)))?;
    Ok(Event {
        device_id,
        metric_name: name(metric, &fields.metric, Class::MetricName)?,
        metric_value: number(value, &fields.value)?,
        timestamp: instant(time, &fields.time)?,
    })
}

impl<'a> Event<'a> {
    /// An event from the cells of a table, which are text. An empty metric and an empty time are absent ones.
    ///
    /// # Errors
    /// What is wrong with the first cell that is wrong: device, metric, value, then time.
    pub fn from_cells(
        forms: &Forms,
        device: &'a str,
        metric: Option<&'a str>,
        value: &str,
        time: &str,
    ) -> Result<Self, Rejection> {
        let device_id = checked(Cow::Borrowed(device), "device", Class::DeviceId)?;
        let metric = metric.filter(|metric| !metric.is_empty());
        let metric_name = metric.map(|m| checked(Cow::Borrowed(m), "metric", Class::MetricName)).transpose()?;
        let metric_value =
            forms.number(value).map_err(|why| Rejection::new(Class::MetricValue, format_args!("the value {why}")))?;
        let timestamp = forms.time(time).map_err(|why| Rejection::new(Class::Timestamp, why))?;
        Ok(Event { device_id, metric_name, metric_value, timestamp })
    }
}

/// Raw JSON of the four fields, as far as they have been seen.
#[derive(Default)]
struct Found<'a> {
    slots: [Option<&'a RawValue>; 4],
    twice: Option<usize>,
}

/// What is left of each field's path at one level of the object; `None` = not below here.
type Paths<'p> = [Option<&'p str>; 4];

/// Reads one object and those below it that a path leads to.
fn collect<'a>(text: &'a str, paths: &Paths<'_>, found: &mut Found<'a>) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    Object { paths, found }.deserialize(&mut json)?;
    json.end()
}

struct Object<'p, 'f, 'a> {
    paths: &'p Paths<'p>,
    found: &'f mut Found<'a>,
}

impl<'a> DeserializeSeed<'a> for Object<'_, '_, 'a> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(below) = map.next_key_seed(Key(self.paths))? {
            if below.iter().all(Option::is_none) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = map.next_value::<&'a RawValue>()?;
            if let Some(leaf) = below.iter().position(|rest| *rest == Some("")) {
                if self.found.slots[leaf].replace(raw).is_some() {
                    self.found.twice.get_or_insert(leaf);
                }
            } else if raw.get().starts_with('{') {
                collect(raw.get(), &below, self.found).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// Compares a key with the heads of the paths, without a copy; returns what is left of those that match.
struct Key<'p>(&'p Paths<'p>);

impl<'a, 'p> DeserializeSeed<'a> for Key<'p> {
    type Value = Paths<'p>;
    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Key<'p> {
    type Value = Paths<'p>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.map(|path| {
            let rest = path?.strip_prefix(key)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('.') }
        }))
    }
}

/// A string, absent when missing or null.
fn name<'a>(raw: Option<&'a RawValue>, field: &str, class: Class) -> Result<Option<Cow<'a, str>>, Rejection> {
    let Some(raw) = raw.map(RawValue::get).filter(|raw| *raw != "null") else { return Ok(None) };
    let text = match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        None => return Err(Rejection::new(class, format_args!("`{field}` is {}; expected a string", kind(raw)))),
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        Some(_) => {
            Cow::Owned(serde_json::from_str(raw).map_err(|e| Rejection::new(class, format_args!("`{field}`: {e}")))?)
        }
    };
    checked(text, field, class).map(Some)
}

fn checked<'a>(text: Cow<'a, str>, field: &str, class: Class) -> Result<Cow<'a, str>, Rejection> {
    let problem = match text.len() {
        0 if class == Class::DeviceId => "is empty".to_owned(),
        n if n > MAX_NAME => format!("has {n} bytes; at most {MAX_NAME} are allowed"),
        _ if text.contains('\0') => "contains U+0000".to_owned(),
        _ => return Ok(text),
    };
    Err(Rejection::new(class, format_args!("`{field}` {problem}")))
}

fn number(raw: Option<&RawValue>, field: &str) -> Result<f64, Rejection> {
    let reject = |what: &str| Err(Rejection::new(Class::MetricValue, format_args!("`{field}` {what}")));
    let Some(raw) = raw.map(RawValue::get) else { return reject("is missing") };
    if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return reject(&format!("is {}; expected a number", kind(raw)));
    }
    match raw.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => reject("is beyond the range of a 64-bit float"),
    }
}

fn instant(raw: Option<&RawValue>, field: &str) -> Result<Option<Instant>, Rejection> {
    let raw = match raw.map(RawValue::get) {
        None | Some("null") => return Ok(None),
        Some(raw) => raw,
    };
    let parsed = match raw.as_bytes()[0] {
        b'"' => serde_json::from_str::<Cow<'_, str>>(raw).ok().and_then(|text| Instant::parse_rfc3339(&text)),
        b'-' | b'0'..=b'9' => Instant::parse_epoch(raw, TimeUnit::Auto),
        _ => return Err(Rejection::new(Class::Timestamp, format_args!("`{field}` is {}", kind(raw)))),
    };
    parsed.map(Some).ok_or_else(|| bad_time(raw))
}

fn bad_time(text: &str) -> Rejection {
    let shown = text.chars().take(40).collect::<String>();
    Rejection::new(
        Class::Timestamp,
        format_args!(
            "{shown} is not a time; expected RFC 3339 (2026-11-23T17:00:00.123Z) or epoch seconds or milliseconds"
        ),
    )
}

/// What a JSON text is, for a message.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests;
