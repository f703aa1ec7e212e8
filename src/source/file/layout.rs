//! Which cells of a table's rows are the four values, by its header line.

use std::borrow::Cow;

use super::Options;
use super::cells::{Cells, DELIMITERS};
use crate::error::{Error, Result};
use crate::event::{Class, Event, Fields, Forms, Rejection};
use crate::foreign;

/// See the module.
#[derive(Debug)]
pub struct Layout {
    delimiter: u8,
    /// Of device, metric, value and time.
    columns: [Option<usize>; 4],
    /// Names of the columns, fit to be shown.
    names: Vec<String>,
}

/// The four, in messages: what it is, and what names its column.
const NAMES: [(&str, &str); 4] = [
    ("device", "--device-field or fields.device"),
    ("metric", "--metric-field or fields.metric"),
    ("value", "--value-field or fields.value"),
    ("time", "--time-field or fields.time"),
];
const DEVICE: usize = 0;
const METRIC: usize = 1;
const VALUE: usize = 2;
const TIME: usize = 3;
/// Most names of columns in a message, and characters of one.
const NAMED: usize = 40;
const NAME: usize = 60;

impl Layout {
    /// Of a header line. `delimiter` is what separates its cells, if that is known.
    ///
    /// # Errors
    /// 65 when there is no column of the value, or none of a name that the user gave; or two of one name.
    pub fn of(file: &str, line: &[u8], delimiter: Option<u8>, options: &Options<'_>) -> Result<Self> {
        let delimiter = delimiter.unwrap_or_else(|| {
            // Of several with as many cells the first.
            let best = DELIMITERS.iter().rev().max_by_key(|d| {
                let headers = headers(line, **d);
                (place(&headers, &options.fields.value).is_some(), headers.len())
            });
            *best.unwrap_or(&b',')
        });
        let headers = headers(line, delimiter);
        let mut columns = [None; 4];
        for ((at, path), must) in paths(options.fields).into_iter().enumerate().zip(options.required()) {
            let mut places = headers.iter().enumerate().filter(|(_, header)| header.as_slice() == path.as_bytes());
            columns[at] = places.next().map(|(place, _)| place);
            let (what, option) = NAMES[at];
            if let (Some(first), Some((second, _))) = (columns[at], places.next()) {
                return Err(Error::data(format_args!(
                    "{file} has two columns `{path}` ({} and {}): which one is the {what} cannot be known; \
                     rename one in the header line",
                    first + 1,
                    second + 1
                )));
            }
            if must && columns[at].is_none() {
                return Err(missing(file, at, path, option, &headers));
            }
        }
        Ok(Layout { delimiter, columns, names: headers.iter().map(|header| shown(header)).collect() })
    }

    /// Whether a line has a column of the value, and others.
    pub fn is_header(line: &[u8], delimiter: Option<u8>, fields: &Fields) -> bool {
        let one = delimiter.map(|delimiter| [delimiter; 4]);
        one.unwrap_or(DELIMITERS).iter().any(|delimiter| {
            let headers = headers(line, *delimiter);
            headers.len() > 1 && place(&headers, &fields.value).is_some()
        })
    }

    /// Names of the columns, as they may be shown.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a column has the device.
    pub fn has_device(&self) -> bool {
        self.columns[DEVICE].is_some()
    }

    /// What separates cells.
    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The event in a row. `device` is the device of a table that has no such column.
    ///
    /// # Errors
    /// Why it is none.
    pub fn event<'a>(&self, row: &'a [u8], device: &'a str, forms: &Forms) -> Result<Event<'a>, Rejection> {
        let mut found: [Option<Cow<'a, [u8]>>; 4] = [const { None }; 4];
        let mut width = 0;
        for cell in Cells::new(row, self.delimiter) {
            let cell = cell.ok_or_else(|| shape(format!("text follows the quote that closes cell {}", width + 1)))?;
            if let Some(at) = self.columns.iter().position(|column| *column == Some(width)) {
                found[at] = Some(cell);
            } else if width >= self.names.len() && !cell.trim_ascii().is_empty() {
                let cells = Cells::new(row, self.delimiter).count();
                return Err(shape(format!("the row has {cells} cells; the header line has {}", self.names.len())));
            }
            width += 1;
        }
        for (at, column) in self.columns.iter().enumerate() {
            if column.is_some() && found[at].is_none() {
                let what = NAMES[at].0;
                return Err(shape(format!(
                    "the row ends before its {what}: it has {width} of {} cells",
                    self.names.len()
                )));
            }
        }
        let mut text = |at: usize| found[at].take().map(utf8).transpose();
        let (device, metric) = (text(DEVICE)?.unwrap_or(Cow::Borrowed(device)), text(METRIC)?);
        let (value, time) = (text(VALUE)?.unwrap_or_default(), text(TIME)?.unwrap_or_default());
        match (device, metric) {
            (Cow::Borrowed(device), None) => Event::from_cells(forms, device, None, &value, &time),
            (Cow::Borrowed(device), Some(Cow::Borrowed(metric))) => {
                Event::from_cells(forms, device, Some(metric), &value, &time)
            }
            (device, metric) => Event::from_cells(forms, &device, metric.as_deref(), &value, &time).map(owned),
        }
    }
}

/// For names whose cells have quotes in them.
fn owned<'a>(event: Event<'_>) -> Event<'a> {
    Event {
        device_id: Cow::Owned(event.device_id.into_owned()),
        metric_name: event.metric_name.map(|name| Cow::Owned(name.into_owned())),
        ..event
    }
}

fn utf8(cell: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Rejection> {
    let not_text = |e: &dyn std::fmt::Display| Rejection { class: Class::Utf8, message: e.to_string() };
    match cell {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|e| not_text(&e)),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|e| not_text(&e)),
    }
}

fn shape(message: String) -> Rejection {
    Rejection { class: Class::Shape, message }
}

fn paths(fields: &Fields) -> [&str; 4] {
    [&fields.device, &fields.metric, &fields.value, &fields.time]
}

fn headers(line: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let cells = Cells::new(line, delimiter);
    cells.map(|cell| cell.map(|cell| cell.trim_ascii().to_vec()).unwrap_or_default()).collect()
}

fn place(headers: &[Vec<u8>], name: &str) -> Option<usize> {
    headers.iter().position(|header| header.as_slice() == name.as_bytes())
}

fn shown(header: &[u8]) -> String {
    foreign::bytes(header, NAME).to_string()
}

fn missing(file: &str, at: usize, path: &str, option: &str, headers: &[Vec<u8>]) -> Error {
    let similar = headers.iter().find(|header| header.eq_ignore_ascii_case(path.as_bytes()));
    let mut there = headers.iter().take(NAMED).map(|header| shown(header)).collect::<Vec<_>>().join(", ");
    if headers.len() > NAMED {
        there += &format!(" and {} more", headers.len() - NAMED);
    }
    let remedy = match similar {
        Some(similar) => format!("did you mean `{}`?", shown(similar)),
        None if at == VALUE && headers.iter().any(|header| is_number(header)) => {
            "a table begins with a header line that names its columns".to_owned()
        }
        None => format!("name the column with {option}"),
    };
    Error::data(format_args!("{file} has no column `{path}`; its header line has: {there}; {remedy}"))
}

fn is_number(header: &[u8]) -> bool {
    std::str::from_utf8(header).is_ok_and(|text| text.parse::<f64>().is_ok())
}
