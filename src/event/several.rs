//! Decodes a record with several values.

use super::cell::Cell;
use super::collect::{CollectedFields, collect};
use super::decoded::Decoded;
use super::each::{self, Container};
use super::field_source::{FieldSource, MOST_PATHS, SourcePart};
use super::fields::OnPartial;
use super::reader::{Inside, Reader};
use super::{Event, RejectClass, Rejection};

/// Decodes the values of the container; `text` is the whole record. The record is ignored if it has no value.
///
/// # Errors
/// Returns the first problem of the container or of a value. With [`OnPartial::JudgeValid`] a problem of a value is an
/// error only if no value is valid.
pub(crate) fn read<'a>(container: &Container, text: &'a str, reader: Reader<'_, 'a>) -> Result<Decoded<'a>, Rejection> {
    let label = if container.path.is_empty() { "the array" } else { &container.path };
    let wrong = |why: &str| Rejection::new(RejectClass::MetricValue, format_args!("`{label}` {why}"));
    let json = match container.at {
        None => text,
        Some(at) => match reader.cells.get(at).copied().flatten() {
            Some(Cell::Json(json)) => json,
            _ => return Err(reader.missing(RejectClass::MetricValue, &container.path)),
        },
    };
    let all = each::elements(container.kind, json).map_err(|why| wrong(&why))?;
    if let Some(name) = each::repeated(&all) {
        let why = format!("`{label}` has {} twice", super::forms::shown(name));
        return Err(Rejection::new(RejectClass::Duplicate, why));
    }
    let (mut events, mut problem) = (Vec::with_capacity(all.len()), None);
    for (index, element) in all.iter().enumerate() {
        match read_element(container, element, index, reader) {
            Ok(Some(event)) => events.push((index as i32, event)),
            Ok(None) => {}
            Err(rejection) if reader.fields.on_partial == OnPartial::Reject => return Err(rejection),
            Err(rejection) => problem = problem.or(Some(rejection)),
        }
    }
    match problem {
        Some(rejection) if events.is_empty() => Err(rejection),
        partial => Ok(Decoded::of(events, partial, matches!(reader.places[3], FieldSource::One(SourcePart::Inner(_))))),
    }
}

/// Decodes one element; `None` if its value is null.
fn read_element<'a>(
    container: &Container,
    element: &each::Element<'a>,
    index: usize,
    reader: Reader<'_, 'a>,
) -> Result<Option<Event<'a>>, Rejection> {
    let mut found = CollectedFields::<MOST_PATHS>::default();
    let mut cells = [None; MOST_PATHS];
    let inside = |cells| Inside { container, cells, name: element.name.as_ref(), index };
    if container.inner.iter().any(String::is_empty) {
        // Without inner paths the element itself is the value, and has no other field.
        cells[0] = Some(Cell::Json(element.text));
    } else if element.text.starts_with('{') {
        let paths = std::array::from_fn(|at| container.inner.get(at).map(String::as_str));
        collect(element.text, &paths, &mut found).map_err(|e| Rejection::new(RejectClass::Json, e))?;
        cells = found.slots.map(|raw| raw.map(|raw| Cell::Json(raw.get())));
    } else if element.text != "null" {
        let reader = Reader { inside: Some(inside(&cells)), ..reader };
        return Err(reader.wrong(RejectClass::MetricValue, &container.star(), "is no object"));
    }
    let reader = Reader { inside: Some(inside(&cells)), text: element.text, ..reader };
    if let Some(path) = found.twice.iter().position(|twice| *twice) {
        return Err(reader.wrong(RejectClass::Duplicate, &container.label(path), "is given twice"));
    }
    let is_null = match &reader.places[2] {
        FieldSource::One(SourcePart::Inner(at)) => cells[*at] == Some(Cell::Json("null")),
        _ => false,
    };
    // A sensor without a reading is not an error.
    if (is_null || element.text == "null") && reader.forms.lenient {
        return Ok(None);
    }
    reader.event().map(Some)
}
