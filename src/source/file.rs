//! Records of a file or of standard input: JSON Lines, or CSV with a header line, one at a time, each with its exact bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use crate::config::resolved::FileFormat;
use crate::error::{Error, Result};
use crate::event::{self, Event, Fields, Rejection};

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Zero-based, over the records of the file.
    pub index: i64,
    /// One-based line on which it begins.
    pub line: u64,
    /// As it stands in the file, without the line's end.
    pub bytes: Vec<u8>,
    /// Boxed, as few rows have any.
    cells: Option<Box<Cells>>,
}

/// The four cells of a table's row, as far as the table has them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cells {
    device: Option<Vec<u8>>,
    metric: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: Option<Vec<u8>>,
}

impl Row {
    /// The event in it. `device` names a table's device when no column does.
    ///
    /// # Errors
    /// Why it is none.
    pub fn event<'a>(&'a self, fields: &Fields, device: &'a str) -> Result<Event<'a>, Rejection> {
        let Some(cells) = &self.cells else { return event::decode(Some(&self.bytes), fields) };
        let text = |cell: &'a Option<Vec<u8>>| match cell {
            None => Ok(None),
            Some(bytes) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|e| Rejection { class: event::Class::Utf8, message: e.to_string() }),
        };
        let short = |what: &str| Rejection { class: event::Class::Shape, message: format!("the line has no {what}") };
        let value = text(&cells.value)?.ok_or_else(|| short("value"))?;
        let device = text(&cells.device)?.unwrap_or(device);
        Event::from_cells(
            &event::Forms::default(),
            device,
            text(&cells.metric)?,
            value,
            text(&cells.time)?.unwrap_or(""),
        )
    }

    /// Whether it came from a table.
    pub fn is_table(&self) -> bool {
        self.cells.is_some()
    }
}

/// An open file.
pub enum Records {
    /// JSON Lines.
    Lines(Lines),
    /// CSV.
    Table(Box<Table>),
}

/// Opens a path, `-` being standard input.
///
/// # Errors
/// 66 when it cannot be read, 65 when a table lacks the value's column.
pub fn open(path: &str, format: FileFormat, fields: &Fields) -> Result<Records> {
    let cannot = |e: io::Error| Error::no_input(format_args!("cannot read {path}: {e}"));
    let from: Box<dyn Read + Send> =
        if path == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(cannot)?) };
    let mut input = BufReader::with_capacity(1 << 18, from);
    // Opening a directory succeeds; reading it does not.
    let begin = input.fill_buf().map_err(cannot)?;
    if begin.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    let is_table = match format {
        FileFormat::Csv => true,
        FileFormat::Jsonl => false,
        FileFormat::Auto => path.to_lowercase().ends_with(".csv"),
    };
    if is_table {
        Table::open(path, input, fields).map(Box::new).map(Records::Table)
    } else {
        Ok(Records::Lines(Lines { input, index: 0, line: 0 }))
    }
}

impl Records {
    /// Reads the next record, `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn read(&mut self) -> io::Result<Option<Row>> {
        match self {
            Records::Lines(lines) => lines.read(),
            Records::Table(table) => table.read(),
        }
    }

    /// Reads at most `most` records, without waiting for more once there is one; then whether there may be more, or why
    /// the file cannot be read any further.
    pub fn read_many(&mut self, most: usize) -> (Vec<Row>, io::Result<bool>) {
        let mut rows = Vec::new();
        while rows.len() < most {
            match self.read() {
                Ok(Some(row)) => rows.push(row),
                end => return (rows, end.map(|row| row.is_some())),
            }
            let at_hand = match self {
                Records::Lines(lines) => lines.input.buffer(),
                Records::Table(table) => &table.reader.get_ref().kept,
            };
            if memchr::memchr(b'\n', at_hand).is_none() {
                break;
            }
        }
        (rows, Ok(true))
    }
}

type Input = BufReader<Box<dyn Read + Send>>;

/// One record a line; blank lines are none.
pub struct Lines {
    input: Input,
    index: i64,
    line: u64,
}

impl Lines {
    fn read(&mut self) -> io::Result<Option<Row>> {
        loop {
            let mut bytes = Vec::new();
            if self.input.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            trim_end(&mut bytes);
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.index += 1;
            return Ok(Some(Row { index: self.index - 1, line: self.line, bytes, cells: None }));
        }
    }
}

fn trim_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

/// CSV with a header line.
pub struct Table {
    reader: csv::Reader<Tee>,
    device: Option<usize>,
    metric: Option<usize>,
    value: usize,
    time: Option<usize>,
    index: i64,
    /// Line ends passed so far.
    lines: u64,
}

/// Keeps what passes, so that a record's own bytes can be taken.
struct Tee {
    input: Input,
    /// Bytes from offset `from` of the input on.
    kept: Vec<u8>,
    from: u64,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

impl Tee {
    /// The bytes up to an offset of the input.
    fn take(&mut self, until: u64) -> Vec<u8> {
        let n = usize::try_from(until.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.kept.len());
        self.from += n as u64;
        self.kept.drain(..n).collect()
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl Table {
    fn open(path: &str, input: Input, fields: &Fields) -> Result<Self> {
        let tee = Tee { input, kept: Vec::new(), from: 0 };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(tee);
        let headers = reader
            .byte_headers()
            .map_err(|e| Error::no_input(format_args!("cannot read the header line of {path}: {e}")))?
            .clone();
        let column = |name: &str| headers.iter().position(|header| header.trim_ascii() == name.as_bytes());
        let value = column(&fields.value).ok_or_else(|| {
            let there = headers.iter().map(|h| String::from_utf8_lossy(h).into_owned()).collect::<Vec<_>>().join(", ");
            Error::data(format_args!(
                "{path} has no column `{}`; its header line has: {there}. Name the column with --value-field",
                fields.value
            ))
        })?;
        let until = reader.position().byte();
        let lines = line_ends(&reader.get_mut().take(until));
        let (device, metric, time) = (column(&fields.device), column(&fields.metric), column(&fields.time));
        Ok(Table { reader, device, metric, value, time, index: 0, lines })
    }

    fn read(&mut self) -> io::Result<Option<Row>> {
        let mut record = csv::ByteRecord::new();
        if !self.reader.read_byte_record(&mut record).map_err(io::Error::other)? {
            return Ok(None);
        }
        let until = self.reader.position().byte();
        let mut bytes = self.reader.get_mut().take(until);
        // Blank lines before it, and the second half of the line end before it.
        let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        // The csv crate's own number is that of the blank lines before the record.
        let all = line_ends(&bytes);
        let line = self.lines + line_ends(&bytes[..blank]) + 1;
        self.lines += all;
        bytes.drain(..blank);
        while matches!(bytes.last(), Some(b'\r' | b'\n')) {
            bytes.pop();
        }
        let cell = |column: Option<usize>| column.and_then(|at| record.get(at)).map(<[u8]>::to_vec);
        let metric = cell(self.metric).filter(|metric| !metric.is_empty());
        let cells = Cells { device: cell(self.device), metric, value: cell(Some(self.value)), time: cell(self.time) };
        self.index += 1;
        Ok(Some(Row { index: self.index - 1, line, bytes, cells: Some(Box::new(cells)) }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn rows(name: &str, text: &[u8], fields: &Fields) -> Vec<Row> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        File::create(&path).unwrap().write_all(text).unwrap();
        let mut records = open(path.to_str().unwrap(), FileFormat::Auto, fields).unwrap();
        std::iter::from_fn(|| records.read().unwrap()).collect()
    }

    fn columns(value: &str, time: &str) -> Fields {
        Fields { value: value.into(), time: time.into(), ..Fields::default() }
    }

    #[test]
    fn exact_lines_and_their_numbers_survive_quotes_blank_lines_and_crlf() {
        let text = b"timestamp,value\r\n2014-04-01 00:00:00,1\r\n\r\n\"2014-04-01\n00:05:00\",\"2\"\r\nx,3\r\n";
        let rows = rows("a.csv", text, &columns("value", "timestamp"));
        let seen = rows.iter().map(|r| (r.index, r.line, r.bytes.as_slice())).collect::<Vec<_>>();
        assert_eq!(
            seen,
            [
                (0, 2, &b"2014-04-01 00:00:00,1"[..]),
                (1, 4, &b"\"2014-04-01\n00:05:00\",\"2\""[..]),
                (2, 6, &b"x,3"[..])
            ]
        );
    }

    #[test]
    fn a_table_without_a_device_column_is_one_device() {
        let rows =
            rows("a.csv", b"\xef\xbb\xbfvalue,timestamp\n1.5,2014-04-01 00:00:00\n", &columns("value", "timestamp"));
        let event = rows[0].event(&columns("value", "timestamp"), "a").unwrap();
        assert_eq!((event.device_id.as_ref(), event.metric_value), ("a", 1.5));
        assert_eq!(event.timestamp.unwrap().to_string(), "2014-04-01T00:00:00.000Z");
    }

    #[test]
    fn short_rows_and_bad_cells_are_rejected_not_fatal() {
        let rows = rows(
            "a.csv",
            b"timestamp,value\n2014-04-01\n2014-04-01,nan\n2014-04-01,\xff\nnever,1\n",
            &columns("value", "timestamp"),
        );
        let classes = rows.iter().map(|r| r.event(&columns("value", "timestamp"), "a").unwrap_err().class);
        use event::Class::{MetricValue, Shape, Timestamp, Utf8};
        assert_eq!(classes.collect::<Vec<_>>(), [Shape, MetricValue, Utf8, Timestamp]);
    }

    #[test]
    fn blank_lines_are_no_records_of_json_lines() {
        let rows = rows("a.jsonl", b"{\"a\":1}\n\n  \n{\"b\":2}", &Fields::default());
        assert_eq!(rows.iter().map(|r| (r.index, r.line)).collect::<Vec<_>>(), [(0, 1), (1, 4)]);
    }

    #[test]
    fn a_table_without_the_value_column_says_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        std::fs::write(&path, "time,reading\n").unwrap();
        let error = open(path.to_str().unwrap(), FileFormat::Auto, &Fields::default()).err().unwrap();
        assert!(error.message.contains("time, reading") && error.message.contains("--value-field"), "{error}");
    }
}
