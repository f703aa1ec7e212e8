//! Reads records of a file or of standard input, with their exact bytes: JSON Lines, JSON documents, or tables with a
//! header line, optionally compressed with gzip. It detects the format if it is not given. Memory does not depend on
//! the size of the file.

mod batch;
mod cells;
mod document;
mod input;
mod layout;
mod lines;
mod reading;
mod split_step;
mod table;
#[cfg(test)]
mod tests;
mod wide;

use std::path::Path;
use std::sync::Arc;

pub(crate) use batch::{BatchRow, LineCount, MAX_RECORD, RecordBatch, SkippedLines};
pub(crate) use reading::FileReading;

use crate::config::resolved::FileFormat;
use crate::error::{Error, Result};
use crate::event::{Fields, Parser};
use crate::foreign;
use document::JsonSplitter;
use input::InputFile;
use lines::LineSplitter;
use split_step::SplitStep;
use table::RowSplitter;

/// Options for reading a file.
#[derive(Debug, Clone)]
pub(crate) struct FileOptions<'a> {
    /// Format of the file, or automatic detection.
    pub format: FileFormat,
    /// Delimiter of a table; `None`: the one in its header line.
    pub delimiter: Option<u8>,
    /// In a table a comma is the decimal point.
    pub decimal_comma: bool,
    /// Sources of the four fields.
    pub fields: &'a Fields,
    /// Accepted spellings of these fields.
    pub parser: &'a Parser,
    /// Read each numeric column of a table as a metric, besides device and time.
    pub wide: bool,
    /// Whether the user named device, metric, value and time: a table without such a column is an error.
    pub named: [bool; 4],
}

impl FileOptions<'_> {
    /// Returns whether a table with these columns is wide. Unless the option says so, it is wide if it has a time, but
    /// neither a value nor a metric, and none of these two was named.
    fn is_wide(&self, has: impl Fn(&str) -> bool) -> bool {
        let Fields { metric, value, time, .. } = self.fields;
        let is_usual = *value == Fields::default().value && !self.named[2] && !self.named[1];
        self.wide || (is_usual && has(time) && !has(value) && !has(metric))
    }

    /// Returns the name of an option that is set and has no effect on JSON.
    fn only_for_tables(&self) -> Option<&'static str> {
        match () {
            () if self.wide => Some("--wide or producer.wide"),
            () if self.decimal_comma => Some("--decimal-comma or producer.decimal_comma"),
            () => self.delimiter.map(|_| "--delimiter"),
        }
    }

    /// Returns the name of a column, if a table must have it. The value is always required.
    fn required(&self, path: &str) -> Option<&'static str> {
        let Fields { device, metric, value, time, .. } = self.fields;
        let all = [
            (device, "--device-field or fields.device", self.named[0]),
            (metric, "--metric-field or fields.metric", self.named[1]),
            (value, "--value-field or fields.value, or each numeric column with --wide or producer.wide", true),
            (time, "--time-field or fields.time", self.named[3]),
        ];
        let is_of = |field: &str| field == path || field.contains(&format!("{{{path}}}"));
        all.iter().find(|(field, _, must)| *must && is_of(field)).map(|(_, option, _)| *option)
    }
}

/// An open file of records.
pub(crate) struct Records {
    input: InputFile,
    kind: RecordSplitter,
    reading: Arc<FileReading>,
}

enum RecordSplitter {
    Lines(LineSplitter),
    Document(JsonSplitter),
    Table(Box<RowSplitter>),
}

/// Opens a path; `-` is standard input.
///
/// # Errors
/// 64 if an option is for tables and the file is JSON, 66 if it cannot be read, 65 if it is not text, or a table without a
/// required column.
pub(crate) fn open(path: &str, options: &FileOptions<'_>) -> Result<Records> {
    let mut input = InputFile::open(path)?;
    let format = match options.format {
        FileFormat::Auto => recognised(path, &mut input)?,
        said => said,
    };
    if let Some(name) = options.only_for_tables().filter(|_| format != FileFormat::Csv && !input.at_hand().is_empty()) {
        return Err(Error::usage(format_args!(
            "{name} is for tables, and {} is JSON: omit it, or say that the format is csv",
            foreign::name(input.name())
        )));
    }
    let (kind, layout) = match format {
        FileFormat::Csv => {
            let (table, layout) = RowSplitter::open(&mut input, options)?;
            (RecordSplitter::Table(Box::new(table)), Some(layout))
        }
        FileFormat::Json => (RecordSplitter::Document(JsonSplitter::new()), None),
        FileFormat::Jsonl | FileFormat::Auto => (RecordSplitter::Lines(LineSplitter::default()), None),
    };
    let reading = Arc::new(FileReading::new(options.parser.clone(), options.decimal_comma, device_of(path), layout));
    Ok(Records { input, kind, reading })
}

/// Returns a file's name without directory and extensions.
pub(crate) fn device_of(path: &str) -> String {
    if path == "-" {
        return "stdin".into();
    }
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let Some(name) = stem(Path::new(path)) else { return path.to_owned() };
    let is_packed = path.to_ascii_lowercase().ends_with(".gz");
    if is_packed { stem(Path::new(&name)).unwrap_or(name) } else { name }
}

/// Detects the format by the extension, then by the first bytes.
fn recognised(path: &str, input: &mut InputFile) -> Result<FileFormat> {
    let lower = path.to_lowercase();
    let name = lower.strip_suffix(".gz").unwrap_or(&lower);
    let has = |extensions: &[&str]| extensions.iter().any(|extension| name.ends_with(extension));
    if has(&[".csv", ".tsv", ".psv", ".tab"]) {
        return Ok(FileFormat::Csv);
    }
    let is_json = has(&[".json", ".jsonl", ".ndjson"]);
    loop {
        let is_all = input.has_ended() || input.at_hand().len() > MAX_RECORD;
        if let Some(format) = begins(input.at_hand().trim_ascii_start(), is_json, is_all) {
            return Ok(format);
        }
        input.more()?;
    }
}

/// Detects the format of a text by its beginning; `None` if more of it is needed.
fn begins(text: &[u8], is_json: bool, is_all: bool) -> Option<FileFormat> {
    let or = |format| is_all.then_some(format);
    match text.first() {
        None => or(FileFormat::Jsonl),
        Some(b'[') => Some(FileFormat::Json),
        Some(b'{') => {
            // An object that continues in the next line, which does not begin another one, is printed over several
            // lines.
            let Some(end) = memchr::memchr(b'\n', text) else { return or(FileFormat::Jsonl) };
            if document::is_whole(&text[..end]) {
                return Some(FileFormat::Jsonl);
            }
            match text[end..].trim_ascii_start().first() {
                None => or(FileFormat::Jsonl),
                Some(b'"' | b'}' | b',' | b']') => Some(FileFormat::Json),
                Some(_) => Some(FileFormat::Jsonl),
            }
        }
        Some(_) => Some(if is_json { FileFormat::Jsonl } else { FileFormat::Csv }),
    }
}

impl Records {
    /// Returns how records are decoded.
    pub(crate) fn reading(&self) -> &Arc<FileReading> {
        &self.reading
    }

    /// Reads at most `most` records, and does not wait for more once there is one. Returns whether there may be more.
    /// Records before an error are in the batch.
    pub(crate) fn batch(&mut self, most: usize) -> (RecordBatch, Result<bool>) {
        let mut batch = RecordBatch::new(self.reading.clone());
        let has_more = self.fill(&mut batch, most);
        if let RecordSplitter::Table(table) = &mut self.kind {
            batch.passed = table.take_passed();
        }
        (batch, has_more)
    }

    fn fill(&mut self, batch: &mut RecordBatch, most: usize) -> Result<bool> {
        let input = &mut self.input;
        while batch.len() < most && !batch.is_full() {
            let mut take = |row: BatchRow<'_>| batch.push(row);
            let step = match &mut self.kind {
                RecordSplitter::Lines(lines) => lines.next(input, &mut take)?,
                RecordSplitter::Document(document) => document.next(input, &mut take)?,
                RecordSplitter::Table(table) => table.next(input, &mut take)?,
            };
            match step {
                SplitStep::Record | SplitStep::Passed => {}
                SplitStep::End => return Ok(false),
                SplitStep::Hungry if !batch.is_empty() && input.may_keep_silent() => break,
                SplitStep::Hungry => input.more()?,
            }
        }
        Ok(true)
    }
}
