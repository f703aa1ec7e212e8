//! Decodes and checks raw events: a record of `raw_events` becomes an event, or is rejected with a reason.
//!
//! Configurable paths name the four fields. The decoder skips everything else in the object without reading it. It
//! depends neither on series nor on Kafka.

mod cell;
mod collect;
mod decoded;
mod each;
mod field_source;
mod fields;
mod forms;
mod hint;
mod ignore;
mod parser;
mod reader;
mod reason;
mod scan;
mod several;
mod shape;
mod spelling;
mod timestamp;
mod zone;

use std::borrow::Cow;
use std::fmt;

use cell::checked;
pub use decoded::{Decoded, MAX_EVENTS};
pub use fields::{FieldProblem, Fields, OnPartial};
pub use forms::Forms;
pub use parser::Parser;
pub use reason::RejectReason;
pub use shape::{DECODING, Decoder};
pub use timestamp::{TimeUnit, Timestamp};
pub use zone::Zone;

/// Maximum length of `device_id` and `metric_name`, in bytes of UTF-8. (PostgreSQL cannot index names of kilobytes.)
pub const MAX_NAME: usize = 256;

/// A valid event. Its value is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Device: 1 to [`MAX_NAME`] bytes, without U+0000.
    pub device_id: Cow<'a, str>,
    /// Metric, with the same limits; `None` if null or absent.
    pub metric_name: Option<Cow<'a, str>>,
    /// Value; it is finite.
    pub metric_value: f64,
    /// Time; `None` if null or absent. The record's own time is used then.
    pub timestamp: Option<Timestamp>,
}

/// Class of a rejection: why a record is not an event. It is also a metric's label and the header
/// `anomaly.error.class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectClass {
    /// The record has no value, or an empty one.
    Empty,
    /// The value is not UTF-8.
    Utf8,
    /// The value is not JSON.
    Json,
    /// The value is JSON, but not an object; or a line does not fit the table.
    Shape,
    /// One of the four fields occurs twice.
    Duplicate,
    /// The device is missing or invalid.
    DeviceId,
    /// The metric is not a valid name.
    MetricName,
    /// The value is missing or invalid.
    MetricValue,
    /// The time has none of the accepted forms.
    Timestamp,
    /// The compressed batch of the records exceeds a limit.
    BatchSize,
}

impl RejectClass {
    /// All classes of rejections, each once.
    pub const ALL: [RejectClass; 10] = [
        RejectClass::Empty,
        RejectClass::Utf8,
        RejectClass::Json,
        RejectClass::Shape,
        RejectClass::Duplicate,
        RejectClass::DeviceId,
        RejectClass::MetricName,
        RejectClass::MetricValue,
        RejectClass::Timestamp,
        RejectClass::BatchSize,
    ];

    /// Returns the stable name of the class.
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
            RejectClass::BatchSize => "batch_size",
        }
    }
}

/// A rejected record: the class and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Class, for counting and filtering.
    pub class: RejectClass,
    /// Reason for people: what is wrong and what was expected.
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

/// Lazy access to the headers of a record. Reading them costs as much as all other decoding.
pub trait Headers {
    /// Returns the header `anomaly-label`, if it is UTF-8.
    fn label(&self) -> Option<&str>;

    /// Returns all headers in their order; a value may be null. Names that are not UTF-8 get replacement characters.
    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)>;
}

/// Implements the headers of a record that has none.
impl Headers for () {
    fn label(&self) -> Option<&str> {
        None
    }

    fn all(&self) -> Vec<(Cow<'_, str>, Option<&[u8]>)> {
        Vec::new()
    }
}

/// The parts of a record from which an event is decoded.
#[derive(Clone, Copy)]
pub struct RawRecord<'a> {
    /// Key of the record; it may be null.
    pub key: Option<&'a [u8]>,
    /// Value of the record; it may be null.
    pub value: Option<&'a [u8]>,
    /// Headers and label, read only if the settings need them.
    pub headers: &'a dyn Headers,
}

impl<'a> RawRecord<'a> {
    /// Creates a record from a value without key and headers, such as a line of a file.
    pub fn value(bytes: &'a [u8]) -> Self {
        RawRecord { key: None, value: Some(bytes), headers: &() }
    }
}

/// Decodes the first event of a record. Use a [`Parser`] for many records, and a [`Decoder`] for many that look alike.
///
/// # Errors
/// Returns the first problem found. Problems of the JSON text come before those of the fields. A null value and
/// unusable settings are errors here.
pub fn decode<'a>(value: Option<&'a [u8]>, fields: &Fields) -> Result<Event<'a>, Rejection> {
    let unusable = |problem: FieldProblem| Rejection::new(RejectClass::Shape, problem.title);
    let read = Parser::new(fields).map_err(unusable)?.read(&RawRecord { key: None, value, headers: &() })?;
    read.into_first().ok_or_else(|| {
        Rejection::new(RejectClass::Empty, "the value is null, or is to be ignored; expected a JSON object")
    })
}

impl<'a> Event<'a> {
    /// Decodes the cells of a table's row, which are text. An empty metric or time counts as absent.
    ///
    /// # Errors
    /// Returns the problem of the first invalid cell, in the order device, metric, value, time.
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
