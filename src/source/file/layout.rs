//! Maps the columns of a table to the fields, by its header line.

use std::borrow::Cow;

use super::FileOptions;
use super::cells::{Cells, DELIMITERS};
use super::wide::WideColumns;
use crate::error::{Error, Result};
use crate::event::{Decoded, Event, Fields, Forms, MAX_EVENTS, Parser, RejectClass, Rejection};
use crate::foreign;

/// Maximum number of paths of a parser.
const PATHS: usize = 16;
/// Maximum number of column names in a message, and of characters of one.
const MAX_NAMED_COLUMNS: usize = 40;
const NAME: usize = 60;

/// The layout of a table, from its header line.
#[derive(Debug)]
pub(crate) struct FileLayout {
    delimiter: u8,
    /// For each column the number of the parser's path that it contains.
    columns: Vec<Option<usize>>,
    /// The parser's path of the device, if no column contains it.
    one_device: Option<usize>,
    /// Escaped names of the columns.
    names: Vec<String>,
    /// The metrics of a wide table.
    wide: Option<WideColumns>,
    /// The parser's path of the value.
    value: Option<usize>,
}

impl FileLayout {
    /// Reads a header line; `delimiter` is the delimiter, if it is known.
    ///
    /// # Errors
    /// 65 if there is no column with the value or with a name that the user gave, or if two columns have the same name.
    pub(crate) fn of(file: &str, line: &[u8], delimiter: Option<u8>, options: &FileOptions<'_>) -> Result<Self> {
        let delimiter = delimiter.unwrap_or_else(|| {
            // If several delimiters give as many cells, use the first.
            let best = DELIMITERS.iter().rev().max_by_key(|d| {
                let headers = headers(line, **d);
                (headers.iter().any(|header| is(header, &options.fields.value)), headers.len())
            });
            *best.unwrap_or(&b',')
        });
        let headers = headers(line, delimiter);
        let is_wide = options.is_wide(|path| headers.iter().any(|header| is(header, path)));
        if options.fields.value.contains('*') {
            return Err(Error::data(format_args!(
                "fields.value is `{}`, but {file} is a table: name the column of the values, or read each numeric column as a \
                 metric with --wide",
                options.fields.value
            )));
        }
        let mut columns = vec![None; headers.len()];
        let mut one_device = None;
        let value = options.parser.columns().iter().position(|path| *path == options.fields.value);
        for (path, at) in options.parser.columns().iter().zip(0..PATHS) {
            if is_wide && [&options.fields.metric, &options.fields.value].contains(&path) {
                continue;
            }
            let mut places = (0..headers.len()).filter(|place| is(&headers[*place], path));
            match (places.next(), places.next()) {
                (Some(first), Some(second)) => return Err(two(file, path, first, second)),
                (Some(place), None) => columns[place] = Some(at),
                (None, _) => {
                    if let Some(option) = options.required(path) {
                        return Err(missing(file, path, option, &headers));
                    }
                    if *path == options.fields.device {
                        one_device = Some(at);
                    }
                }
            }
        }
        let names = headers.iter().map(|header| shown(header)).collect();
        let wide = is_wide.then(WideColumns::default);
        Ok(FileLayout { delimiter, columns, one_device, names, wide, value })
    }

    /// Chooses the metrics of a wide table by its first row.
    ///
    /// # Errors
    /// 65 if there is none, if there are more than [`MAX_EVENTS`], or if two columns have the same name.
    pub(crate) fn choose(&mut self, file: &str, header: &[u8], first: Option<&[u8]>, forms: &Forms) -> Result<()> {
        let headers = headers(header, self.delimiter);
        let others = (0..headers.len()).filter(|column| self.columns[*column].is_none());
        let mut candidates = Vec::new();
        for column in others {
            let name = String::from_utf8_lossy(&headers[column]).into_owned();
            if let Some((other, _)) = candidates.iter().find(|(_, known)| *known == name && !name.is_empty()) {
                return Err(two(file, &shown(&headers[column]), *other, column));
            }
            candidates.push((column, name));
        }
        let wide = WideColumns::of(candidates, first, self.delimiter, forms);
        match wide.count() {
            0 => Err(Error::data(format_args!(
                "no column of {file} has a number in the first row; its header line has: {}; name the column of the values with \
                 --value-field or fields.value, or read 21,5 as a number with --decimal-comma",
                self.names.join(", ")
            ))),
            count if count > MAX_EVENTS => {
                Err(Error::data(format_args!("{file} has {count} numeric columns; at most {MAX_EVENTS} can be read")))
            }
            _ => {
                self.wide = Some(wide);
                Ok(())
            }
        }
    }

    /// Returns the metrics of a wide table.
    pub(crate) fn wide(&self) -> Option<&WideColumns> {
        self.wide.as_ref()
    }

    /// Returns whether a column contains the parser's path with this number.
    pub(crate) fn has_column(&self, at: usize) -> bool {
        self.columns.contains(&Some(at))
    }

    /// Returns whether a line has a column with the value, and other columns.
    pub(crate) fn is_header(line: &[u8], delimiter: Option<u8>, fields: &Fields) -> bool {
        let one = delimiter.map(|delimiter| [delimiter; 4]);
        one.unwrap_or(DELIMITERS).iter().any(|delimiter| {
            let headers = headers(line, *delimiter);
            headers.len() > 1 && headers.iter().any(|header| is(header, &fields.value))
        })
    }

    /// Returns the escaped names of the columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns whether no column contains the device.
    pub(crate) fn has_one_device(&self) -> bool {
        self.one_device.is_some()
    }

    /// Returns the delimiter of the table.
    pub(crate) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// Decodes a row. `device` is the device of a table without such a column.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(crate) fn events<'a>(
        &'a self,
        row: &'a [u8],
        device: &'a str,
        parser: &Parser,
        forms: &Forms,
    ) -> Result<Decoded<'a>, Rejection> {
        let event = self.event(row, device, parser, forms)?;
        match (event, &self.wide) {
            (None, _) => Ok(Decoded::Ignored),
            (Some(event), None) => Ok(Decoded::One(event)),
            (Some(base), Some(wide)) => wide.events(row, self.delimiter, &base, parser, forms),
        }
    }

    /// Decodes the fields of a row that are at one path; `None` if the settings ignore it. `device` is the device of a table without such a column.
    ///
    /// # Errors
    /// Why it is not an event.
    fn event<'a>(
        &self,
        row: &'a [u8],
        device: &'a str,
        parser: &Parser,
        forms: &Forms,
    ) -> Result<Option<Event<'a>>, Rejection> {
        let found = self.cells(row)?;
        let count = parser.columns().len().min(PATHS);
        let mut texts = [None; PATHS];
        let mut is_borrowed = true;
        for (text, cell) in texts.iter_mut().zip(&found) {
            *text = cell.as_deref().map(utf8).transpose()?;
            is_borrowed &= !matches!(cell, Some(Cow::Owned(_)));
        }
        if let Some(at) = self.one_device {
            texts[at] = Some(device);
        }
        // The values of a wide table follow.
        let value = self.value.filter(|_| self.wide.is_some());
        if let Some(at) = value {
            texts[at] = Some("0");
        }
        if !is_borrowed {
            return parser.row(&texts[..count], forms).map(|event| event.map(owned));
        }
        let mut borrowed: [Option<&'a str>; PATHS] = [None; PATHS];
        for (text, cell) in borrowed.iter_mut().zip(&found) {
            if let Some(Cow::Borrowed(bytes)) = cell {
                *text = Some(utf8(bytes)?);
            }
        }
        if let Some(at) = self.one_device {
            borrowed[at] = Some(device);
        }
        if let Some(at) = value {
            borrowed[at] = Some("0");
        }
        parser.row(&borrowed[..count], forms)
    }

    /// Returns the cells in the order of the parser.
    fn cells<'a>(&self, row: &'a [u8]) -> Result<[Option<Cow<'a, [u8]>>; PATHS], Rejection> {
        let mut found = [const { None }; PATHS];
        let mut width = 0;
        for cell in Cells::new(row, self.delimiter) {
            let cell = cell.ok_or_else(|| shape(format!("text follows the quote that closes cell {}", width + 1)))?;
            match self.columns.get(width) {
                Some(Some(at)) => found[*at] = Some(cell),
                Some(None) => {}
                None if cell.trim_ascii().is_empty() => {}
                None => {
                    let cells = Cells::new(row, self.delimiter).count();
                    return Err(shape(format!(
                        "the row has {cells} cells; the header line has {}",
                        self.columns.len()
                    )));
                }
            }
            width += 1;
        }
        match (width..self.columns.len()).find(|column| self.columns[*column].is_some()) {
            None => Ok(found),
            Some(column) => {
                let (name, all) = (&self.names[column], self.columns.len());
                Err(shape(format!("the row ends before `{name}`: it has {width} of {all} cells")))
            }
        }
    }
}

/// Removes quotes from names of columns.
fn owned<'a>(event: Event<'_>) -> Event<'a> {
    Event {
        device_id: Cow::Owned(event.device_id.into_owned()),
        metric_name: event.metric_name.map(|name| Cow::Owned(name.into_owned())),
        ..event
    }
}

fn utf8(cell: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(cell).map_err(|e| Rejection { class: RejectClass::Utf8, message: e.to_string() })
}

fn shape(message: String) -> Rejection {
    Rejection { class: RejectClass::Shape, message }
}

fn headers(line: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let cells = Cells::new(line, delimiter);
    cells.map(|cell| cell.map(|cell| cell.trim_ascii().to_vec()).unwrap_or_default()).collect()
}

fn is(header: &[u8], name: &str) -> bool {
    header == name.as_bytes()
}

fn shown(header: &[u8]) -> String {
    foreign::bytes(header, NAME).to_string()
}

fn two(file: &str, path: &str, first: usize, second: usize) -> Error {
    Error::data(format_args!(
        "{file} has two columns `{path}` ({} and {}), and which one has the values cannot be known; rename one in the \
         header line",
        first + 1,
        second + 1
    ))
}

fn missing(file: &str, path: &str, option: &str, headers: &[Vec<u8>]) -> Error {
    let similar = headers.iter().find(|header| header.eq_ignore_ascii_case(path.as_bytes()));
    let mut there = headers.iter().take(MAX_NAMED_COLUMNS).map(|header| shown(header)).collect::<Vec<_>>().join(", ");
    if headers.len() > MAX_NAMED_COLUMNS {
        there += &format!(" and {} more", headers.len() - MAX_NAMED_COLUMNS);
    }
    let remedy = match similar {
        Some(similar) => format!("did you mean `{}`?", shown(similar)),
        None if headers.iter().any(|header| is_number(header)) => {
            format!("a table begins with a header line that names its columns; or name the column with {option}")
        }
        None => format!("name the column with {option}"),
    };
    Error::data(format_args!("{file} has no column `{path}`; its header line has: {there}; {remedy}"))
}

fn is_number(header: &[u8]) -> bool {
    std::str::from_utf8(header).is_ok_and(|text| text.parse::<f64>().is_ok())
}
