//! Decodes the bytes of a record: as JSON, or by a table's header line. Both use the same parser of names, values and
//! times.

use super::layout::FileLayout;
use super::wide::WideColumns;
use crate::event::{Decoded, Forms, Parser, RawRecord, Rejection};

/// The decoding of a file's records.
#[derive(Debug)]
pub(crate) struct FileReading {
    parser: Parser,
    /// Accepted spellings of values, with the decimal point of the file.
    forms: Forms,
    /// Device of a table without such a column.
    device: String,
    /// Layout of the table; `None` for JSON.
    layout: Option<FileLayout>,
}

impl FileReading {
    /// Creates the decoding; `layout` is that of a table.
    pub(crate) fn new(parser: Parser, decimal_comma: bool, device: String, layout: Option<FileLayout>) -> Self {
        let forms = Forms { decimal_comma, ..parser.forms().clone() };
        FileReading { parser, forms, device, layout }
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(crate) fn events<'a>(&'a self, bytes: &'a [u8]) -> Result<Decoded<'a>, Rejection> {
        self.read(bytes, &self.forms)
    }

    fn read<'a>(&'a self, bytes: &'a [u8], forms: &Forms) -> Result<Decoded<'a>, Rejection> {
        match &self.layout {
            None => self.parser.read(&RawRecord::value(bytes)),
            Some(layout) => layout.events(bytes, &self.device, &self.parser, forms),
        }
    }

    /// Returns whether records are the rows of a table.
    pub(crate) fn is_table(&self) -> bool {
        self.layout.is_some()
    }

    /// Returns the escaped names of a table's columns.
    pub(crate) fn columns(&self) -> &[String] {
        self.layout.as_ref().map_or(&[], FileLayout::names)
    }

    /// Returns the paths of `fields.ignore` that a file must have: columns of a table, and values that are compared with a
    /// text in JSON records. `PATH` and `!PATH` are for paths that JSON records may lack.
    pub(crate) fn ignored(&self) -> impl Iterator<Item = &str> {
        let is_required = |(_, compares): &(&str, bool)| self.is_table() || *compares;
        self.parser.ignored().filter(is_required).map(|(path, _)| path)
    }

    /// Returns whether the table has a column for a path of the parser, or whether the JSON record has a value there.
    pub(crate) fn has(&self, bytes: &[u8], path: &str) -> bool {
        match &self.layout {
            None => self.parser.has(bytes, path),
            Some(layout) => {
                self.parser.columns().iter().position(|column| column == path).is_none_or(|at| layout.has_column(at))
            }
        }
    }

    /// Returns the metrics of a wide table.
    pub(crate) fn wide(&self) -> Option<&WideColumns> {
        self.layout.as_ref().and_then(FileLayout::wide)
    }

    /// Returns the device of all rows, for a table without such a column.
    pub(crate) fn only_device(&self) -> Option<&str> {
        self.layout.as_ref().filter(|layout| layout.has_one_device()).map(|_| self.device.as_str())
    }

    /// Returns whether a row would be an event with a comma as decimal point.
    pub(crate) fn is_event_with_comma(&self, bytes: &[u8]) -> bool {
        let forms = Forms { decimal_comma: true, ..self.forms.clone() };
        self.is_table() && self.read(bytes, &forms).is_ok()
    }
}
