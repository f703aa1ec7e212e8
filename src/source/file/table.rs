//! Splits a table: a header line, then rows. Lines that begin with `#` are comments.

use super::FileOptions;
use super::batch::{BatchRow, MAX_RECORD, SkippedLines};
use super::cells::{DELIMITERS, MAX_LINES, RowScan, UnendedRow};
use super::input::InputFile;
use super::layout::FileLayout;
use super::split_step::{SplitStep, too_long};
use crate::error::{Error, Result};
use crate::event::Forms;

/// Splits the available bytes into rows.
#[derive(Debug)]
pub(crate) struct RowSplitter {
    /// `None` until the header line is read.
    delimiter: Option<u8>,
    line_end: u8,
    header: Vec<u8>,
    /// A row that was read while looking for the header line, with its number.
    first: Option<(u64, Vec<u8>)>,
    index: i64,
    /// Number of lines that were read.
    lines: u64,
    scan: RowScan,
    passed: SkippedLines,
}

impl RowSplitter {
    /// Reads the header line and the lines before it.
    ///
    /// # Errors
    /// 65 if the table lacks a required column.
    pub(crate) fn open(input: &mut InputFile, options: &FileOptions<'_>) -> Result<(Self, FileLayout)> {
        let mut table = RowSplitter {
            delimiter: options.delimiter,
            line_end: line_end(input)?,
            header: Vec::new(),
            first: None,
            index: 0,
            lines: 0,
            scan: RowScan::default(),
            passed: SkippedLines::default(),
        };
        // A header line may begin with `#`, as those of gnuplot and of some loggers.
        let mut comment = None;
        while let Some((line, bytes)) = table.line(input)? {
            if bytes.len() <= 6 && bytes.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case(b"sep=")) {
                table.delimiter = table.delimiter.or(bytes.get(4).copied());
            } else if let Some(text) = bytes.strip_prefix(b"#") {
                comment = Some(text.trim_ascii_start().to_vec());
            } else {
                let is_header = |bytes: &[u8]| FileLayout::is_header(bytes, table.delimiter, options.fields);
                let header = match comment.take().filter(|comment| is_header(comment) && !is_header(&bytes)) {
                    Some(comment) => {
                        table.first = Some((line, bytes));
                        comment
                    }
                    None => bytes,
                };
                let mut layout = FileLayout::of(input.name(), &header, table.delimiter, options)?;
                (table.delimiter, table.header) = (Some(layout.delimiter()), header);
                if layout.wide().is_some() {
                    table.read_first(input)?;
                    let first = table.first.as_ref().map(|(_, bytes)| &bytes[..]);
                    let forms = Forms { decimal_comma: options.decimal_comma, ..options.parser.forms().clone() };
                    layout.choose(input.name(), &table.header, first, &forms)?;
                }
                return Ok((table, layout));
            }
        }
        let what = if comment.is_some() { "has comments only" } else { "is empty" };
        Err(Error::data(format_args!("{} {what}: there is no header line and no row", input.name())))
    }

    /// Returns the lines that were skipped since the last call.
    pub(crate) fn take_passed(&mut self) -> SkippedLines {
        std::mem::take(&mut self.passed)
    }

    /// Reads the first row, which shows which columns have numbers.
    fn read_first(&mut self, input: &mut InputFile) -> Result<()> {
        while self.first.is_none() {
            let mut first = None;
            let step = self.next(input, &mut |row| first = Some((row.line, row.bytes.to_vec())))?;
            self.first = first;
            match step {
                SplitStep::Record | SplitStep::Passed => {}
                SplitStep::End => return Ok(()),
                SplitStep::Hungry => input.more()?,
            }
        }
        // It is read again from `first`.
        self.index = 0;
        Ok(())
    }

    /// Returns the next line before the rows, and its number.
    fn line(&mut self, input: &mut InputFile) -> Result<Option<(u64, Vec<u8>)>> {
        let mut line = Vec::new();
        loop {
            let split = self.split(input, &mut |_, bytes| {
                line = bytes.to_vec();
                LineKind::Header
            })?;
            match split {
                Split::Hungry => input.more()?,
                Split::End => return Ok(None),
                Split::Line(number, _) => return Ok(Some((number, line))),
            }
        }
    }

    /// Splits off the next available row; `take` receives it before its bytes are consumed.
    ///
    /// # Errors
    /// 65 for a row of more than [`MAX_RECORD`] bytes or [`MAX_LINES`] lines, and for a file that ends within quotes.
    pub(crate) fn next(&mut self, input: &mut InputFile, take: &mut dyn FnMut(BatchRow<'_>)) -> Result<SplitStep> {
        if let Some((line, bytes)) = self.first.take() {
            take(BatchRow { index: 0, line, bytes: &bytes });
            self.index = 1;
            return Ok(SplitStep::Record);
        }
        let (index, header) = (self.index, std::mem::take(&mut self.header));
        let split = self.split(input, &mut |line, bytes| match bytes {
            [b'#', ..] => LineKind::Comment,
            _ if bytes == header => LineKind::Header,
            _ => {
                take(BatchRow { index, line, bytes });
                LineKind::Row
            }
        });
        self.header = header;
        match split? {
            Split::Hungry => return Ok(SplitStep::Hungry),
            Split::End => return Ok(SplitStep::End),
            Split::Line(_, LineKind::Row) => {
                self.index += 1;
                return Ok(SplitStep::Record);
            }
            Split::Line(line, LineKind::Comment) => self.passed.comments.add(line),
            Split::Line(line, LineKind::Header) => self.passed.headers.add(line),
        }
        Ok(SplitStep::Passed)
    }

    /// Skips one line that is not blank; `see` receives its number and its bytes.
    fn split(&mut self, input: &mut InputFile, see: &mut dyn FnMut(u64, &[u8]) -> LineKind) -> Result<Split> {
        loop {
            let at_hand = input.at_hand();
            if at_hand.is_empty() && input.has_ended() {
                return Ok(Split::End);
            }
            let line = self.lines + 1;
            let end = self.end(at_hand, input.has_ended()).map_err(|broken| open_quote(input, line, Some(broken)))?;
            if end.unwrap_or(at_hand.len()) > MAX_RECORD {
                return Err(too_long(input, "row", line));
            }
            let Some(end) = end else {
                return if input.has_ended() { Err(open_quote(input, line, None)) } else { Ok(Split::Hungry) };
            };
            let bytes = &at_hand[..end];
            let bytes = if self.line_end == b'\n' { bytes.strip_suffix(b"\r").unwrap_or(bytes) } else { bytes };
            let is_blank = bytes.iter().all(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
            let kind = if is_blank { None } else { Some(see(line, bytes)) };
            self.lines += 1 + memchr::memchr_iter(self.line_end, bytes).count() as u64;
            self.scan = RowScan::default();
            input.consume(end + 1);
            if let Some(kind) = kind {
                return Ok(Split::Line(line, kind));
            }
        }
    }

    fn end(&mut self, text: &[u8], is_all: bool) -> Result<Option<usize>, UnendedRow> {
        // A quote in a comment has no meaning.
        if text.first() == Some(&b'#') {
            return Ok(memchr::memchr(self.line_end, text).or(is_all.then_some(text.len())));
        }
        match self.delimiter {
            Some(delimiter) => self.scan.row(text, is_all, |byte| byte == delimiter, self.line_end),
            None => self.scan.row(text, is_all, |byte| DELIMITERS.contains(&byte), self.line_end),
        }
    }
}

/// Classes of the lines of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineKind {
    Row,
    Comment,
    Header,
}

/// Result of splitting off a line from the available bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// A line with this number and this class.
    Line(u64, LineKind),
    Hungry,
    End,
}

/// Returns the byte that ends lines: a line feed, unless the first line ends with a carriage return only.
fn line_end(input: &mut InputFile) -> Result<u8> {
    loop {
        match memchr::memchr2(b'\r', b'\n', input.at_hand()) {
            Some(at) if input.at_hand()[at] == b'\n' => return Ok(b'\n'),
            Some(at) if input.at_hand().len() > at + 1 => {
                return Ok(if input.at_hand()[at + 1] == b'\n' { b'\n' } else { b'\r' });
            }
            _ if input.has_ended() || input.at_hand().len() > MAX_RECORD => return Ok(b'\n'),
            _ => input.more()?,
        }
    }
}

fn open_quote(input: &InputFile, line: u64, broken: Option<UnendedRow>) -> Error {
    let how = match broken {
        None => "the file ends before it is closed".to_owned(),
        Some(UnendedRow::TooManyLines) => {
            format!("it is not closed within {MAX_LINES} lines, which is the limit of one row")
        }
        Some(UnendedRow::TextAfterQuote) => "text follows the next quote, some lines later".to_owned(),
    };
    Error::data(format_args!(
        "{}:{line}: a quote is opened in the row that begins here, and {how}. The rows from here on were not read; \
         close the quote, or write a quote within a cell as two",
        input.name()
    ))
}
