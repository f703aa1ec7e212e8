//! The raw event: one record of `raw_events`, decoded and checked, or rejected with its reason.
//!
//! The four fields are found by configurable paths; everything else in the object is skipped unread.
//! Knows nothing of series or Kafka.

mod cell;
mod collect;
mod fields;
mod forms;
mod hint;
mod ignore;
mod timestamp;
mod parser;
mod field_source;
mod scan;
mod shape;
mod spelling;
mod zone;

use std::borrow::Cow;
use std::fmt;

use cell::checked;
pub use fields::{FieldProblem, Fields};
pub use forms::Forms;
pub use parser::Parser;
pub use shape::{DECODING, Decoder};
pub use timestamp::{TimeUnit, Timestamp};
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
    pub timestamp: Option<Timestamp>,
}

/// Why a record is not an event; also a metric's label and the header `anomaly.error.class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectClass {
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

impl RejectClass {
    /// All of them.
    pub const ALL: [RejectClass; 9] = [
        RejectClass::Empty,
        RejectClass::Utf8,
        RejectClass::Json,
        RejectClass::Shape,
        RejectClass::Duplicate,
        RejectClass::DeviceId,
        RejectClass::MetricName,
        RejectClass::MetricValue,
        RejectClass::Timestamp,
    ];

    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            RejectClass::Empty => "empty",
            RejectClass::Utf8 => "utf8",
            RejectClass::Json => "json",
            RejectClass::Shape => "shape",
            RejectClass::Duplicate => "duplicate_field",
            RejectClass::DeviceId => "device_id",
            RejectClass::MetricName => "metric_name",
            RejectClass::MetricValue => "metric_value",
            RejectClass::Timestamp => "timestamp",
        }
    }
}

/// A record that is not an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For counting and filtering.
    pub class: RejectClass,
    /// For people: what is wrong and what was expected.
    pub message: String,
}

impl Rejection {
    fn new(class: RejectClass, message: impl fmt::Display) -> Self {
        Rejection { class, message: message.to_string() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)
    }
}

/// What else a record has, beside key and value. Reading it costs as much as all the rest.
pub trait Headers {
    /// Header `anomaly-label`, if it is UTF-8.
    fn label(&self) -> Option<&str>;

    /// All headers in their order; a value may be null. A name that is not UTF-8 is read with replacement characters.
    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)>;
}

/// None.
impl Headers for () {
    fn label(&self) -> Option<&str> {
        None
    }

    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
        Vec::new()
    }
}

/// The parts of a record that an event can be in.
#[derive(Clone, Copy)]
pub struct RawRecord<'a> {
    /// Bytes, or null.
    pub key: Option<&'a [u8]>,
    /// Bytes, or null.
    pub value: Option<&'a [u8]>,
    /// Read only when the settings need them.
    pub headers: &'a dyn Headers,
}

impl<'a> RawRecord<'a> {
    /// A value without key and headers, such as a line of a file.
    pub fn value(bytes: &'a [u8]) -> Self {
        RawRecord { key: None, value: Some(bytes), headers: &() }
    }
}

/// Decodes one value alone. A [`Parser`] does so for many, a [`Decoder`] for many that look alike.
///
/// # Errors
/// The first thing found wrong, JSON's own form before the fields. A null value, and settings that cannot be used, are errors
/// here.
pub fn decode<'a>(value: Option<&'a [u8]>, fields: &Fields) -> Result<Event<'a>, Rejection> {
    let unusable = |problem: FieldProblem| Rejection::new(RejectClass::Shape, problem.title);
    let read = Parser::new(fields).map_err(unusable)?.read(&RawRecord { key: None, value, headers: &() })?;
    read.ok_or_else(|| {
        Rejection::new(RejectClass::Empty, "the value is null, or is to be ignored; expected a JSON object")
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
        let device_id = checked(Cow::Borrowed(device), "device", RejectClass::DeviceId)?;
        let metric = metric.filter(|metric| !metric.is_empty());
        let metric_name = metric.map(|m| checked(Cow::Borrowed(m), "metric", RejectClass::MetricName)).transpose()?;
        let metric_value = forms
            .number(value)
            .map_err(|why| Rejection::new(RejectClass::MetricValue, format_args!("the value {why}")))?;
        let timestamp = forms.time(time).map_err(|why| Rejection::new(RejectClass::Timestamp, why))?;
        Ok(Event { device_id, metric_name, metric_value, timestamp })
    }
}

#[cfg(test)]
mod tests;
