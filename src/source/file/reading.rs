//! How the bytes of a record become an event: as JSON, or by a table's header line. Both go through the same parser of names,
//! values and times.

use super::layout::FileLayout;
use crate::event::{Event, Forms, Parser, RawRecord, Rejection};

/// See the module.
#[derive(Debug)]
pub struct FileReading {
    parser: Parser,
    /// Of a table's cells.
    forms: Forms,
    /// Of a table without a column for it.
    device: String,
    layout: Option<FileLayout>,
}

impl FileReading {
    /// `layout` is that of a table.
    pub fn new(parser: Parser, decimal_comma: bool, device: String, layout: Option<FileLayout>) -> Self {
        let forms = Forms { decimal_comma, ..parser.forms().clone() };
        FileReading { parser, forms, device, layout }
    }

    /// The event in a record; `None` when the settings pass it over.
    ///
    /// # Errors
    /// Why it is none.
    pub fn event<'a>(&'a self, bytes: &'a [u8]) -> Result<Option<Event<'a>>, Rejection> {
        self.read(bytes, &self.forms)
    }

    fn read<'a>(&'a self, bytes: &'a [u8], forms: &Forms) -> Result<Option<Event<'a>>, Rejection> {
        match &self.layout {
            None => self.parser.read(&RawRecord::value(bytes)),
            Some(layout) => layout.event(bytes, &self.device, &self.parser, forms),
        }
    }

    /// Whether records are the rows of a table.
    pub fn is_table(&self) -> bool {
        self.layout.is_some()
    }

    /// Names of a table's columns, as they may be shown.
    pub fn columns(&self) -> &[String] {
        self.layout.as_ref().map_or(&[], FileLayout::names)
    }

    /// The device of all rows, of a table that has no column for it.
    pub fn only_device(&self) -> Option<&str> {
        self.layout.as_ref().filter(|layout| layout.has_one_device()).map(|_| self.device.as_str())
    }

    /// Whether a table's row is an event if a comma is a decimal point.
    pub fn is_event_with_comma(&self, bytes: &[u8]) -> bool {
        let forms = Forms { decimal_comma: true, ..self.forms.clone() };
        self.is_table() && self.read(bytes, &forms).is_ok()
    }
}
