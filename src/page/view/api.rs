//! `/api/anomalies`: the records as they are, with the place where the next page starts.

use serde::Serialize;

use super::list;
use crate::archive::Record;

/// The document.
#[derive(Serialize)]
pub struct Body<'a> {
    anomalies: &'a [Record],
    /// For `before`; null on the last page.
    next: Option<String>,
}

impl<'a> Body<'a> {
    /// Of a page of the list.
    pub fn of(data: &'a list::Data) -> Body<'a> {
        Body { anomalies: &data.page.records, next: data.page.next.as_ref().map(ToString::to_string) }
    }
}
