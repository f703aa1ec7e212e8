//! How the bytes of a record become an event: as JSON, or by a table's header line.

use super::layout::Layout;
use crate::event::{self, Event, Fields, Forms, Rejection};

/// See the module.
#[derive(Debug)]
pub struct Reading {
    fields: Fields,
    forms: Forms,
    /// Of a table without a column for it.
    device: String,
    layout: Option<Layout>,
}

impl Reading {
    /// `layout` is that of a table.
    pub fn new(fields: Fields, forms: Forms, device: String, layout: Option<Layout>) -> Self {
        Reading { fields, forms, device, layout }
    }

    /// The event in a record.
    ///
    /// # Errors
    /// Why it is none.
    pub fn event<'a>(&'a self, bytes: &'a [u8]) -> Result<Event<'a>, Rejection> {
        match &self.layout {
            None => event::decode(Some(bytes), &self.fields),
            Some(layout) => layout.event(bytes, &self.device, &self.forms),
        }
    }

    /// Whether records are the rows of a table.
    pub fn is_table(&self) -> bool {
        self.layout.is_some()
    }

    /// Names of a table's columns, as they may be shown.
    pub fn columns(&self) -> &[String] {
        self.layout.as_ref().map_or(&[], Layout::names)
    }

    /// The device of all rows, of a table that has no column for it.
    pub fn only_device(&self) -> Option<&str> {
        self.layout.as_ref().filter(|layout| !layout.has_device()).map(|_| self.device.as_str())
    }

    /// The event in a table's row if a comma is a decimal point.
    ///
    /// # Errors
    /// Why it is none; a record of JSON never is one.
    pub fn event_with_comma<'a>(&'a self, bytes: &'a [u8]) -> Result<Event<'a>, Rejection> {
        let forms = Forms { decimal_comma: true, ..self.forms.clone() };
        match &self.layout {
            None => self.event(bytes),
            Some(layout) => layout.event(bytes, &self.device, &forms),
        }
    }
}
