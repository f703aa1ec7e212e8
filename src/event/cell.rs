//! One value as found in the input, JSON or text, and its conversion to a name, number or time.

use std::borrow::Cow;

use super::forms::{Forms, shown};
use super::timestamp::Timestamp;
use super::{MAX_NAME, RejectClass, Rejection};

/// A value as found in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// Text of a valid JSON value.
    Json(&'a str),
    /// A cell of a table, the record's key, or a header.
    Text(&'a str),
}

impl<'a> Cell<'a> {
    /// Returns the content of a string, or the JSON text of another value; `None` for null.
    pub(crate) fn shown(self) -> Option<Cow<'a, str>> {
        match self {
            Cell::Text(text) => Some(Cow::Borrowed(text)),
            Cell::Json("null") => None,
            Cell::Json(raw) => string(raw).unwrap_or(Ok(Cow::Borrowed(raw))).ok(),
        }
    }
}

/// Returns the content of a JSON string; `None` for another JSON value.
fn string(raw: &str) -> Option<Result<Cow<'_, str>, String>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Ok(Cow::Borrowed(inner)));
    }
    Some(serde_json::from_str(raw).map(Cow::Owned).map_err(|e| format!("cannot be read: {e}")))
}

/// Converts to a name: a string, or an integer as the digits written. `None` if it is null, or `""` where that counts
/// as absent.
pub(crate) fn name<'a>(
    cell: Cell<'a>,
    forms: &Forms,
    is_absent_when_empty: bool,
) -> Result<Option<Cow<'a, str>>, String> {
    let text = match cell {
        Cell::Text(text) => Cow::Borrowed(text),
        Cell::Json("null") => return Ok(None),
        Cell::Json(raw) => match string(raw) {
            Some(text) => text?,
            None if forms.lenient && is_integer(raw) => Cow::Borrowed(raw),
            None if forms.lenient && is_number(raw) => {
                return Err(format!("is the number {}; expected a string or an integer", shown(raw)));
            }
            None => return Err(format!("is {}; expected a string", kind(raw))),
        },
    };
    Ok(Some(text).filter(|text| !(forms.lenient && is_absent_when_empty && text.is_empty())))
}

/// Returns whether the text is an integer with only one spelling: neither -0 nor an exponent.
fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    raw != "-0" && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Checks that a name is within the limits.
pub(crate) fn checked<'a>(text: Cow<'a, str>, field: &str, class: RejectClass) -> Result<Cow<'a, str>, Rejection> {
    let problem = match text.len() {
        0 if class == RejectClass::DeviceId => "is empty".to_owned(),
        n if n > MAX_NAME => format!("has {n} bytes; at most {MAX_NAME} are allowed"),
        _ if text.contains('\0') => "contains U+0000".to_owned(),
        _ => return Ok(text),
    };
    Err(Rejection::new(class, format_args!("`{field}` {problem}")))
}

/// Converts to a finite number.
pub(crate) fn number(cell: Cell<'_>, forms: &Forms) -> Result<f64, String> {
    let raw = match cell {
        Cell::Text(text) => return forms.number(text),
        Cell::Json(raw) => raw,
    };
    if is_number(raw) {
        let finite = raw.parse::<f64>().ok().filter(|number| number.is_finite());
        return finite.ok_or_else(|| "is beyond the range of a 64-bit float".into());
    }
    match string(raw).filter(|_| forms.lenient) {
        Some(text) => forms.number(&text?),
        None => Err(format!("is {}; expected a number", kind(raw))),
    }
}

/// Converts to a time; `None` if it is null, or `""` where that counts as absent.
pub(crate) fn time(cell: Cell<'_>, forms: &Forms) -> Result<Option<Timestamp>, String> {
    let raw = match cell {
        Cell::Text(text) => return forms.time(text),
        Cell::Json("null") => return Ok(None),
        Cell::Json(raw) => raw,
    };
    if is_number(raw) {
        return Timestamp::parse_epoch(raw, forms.unit).map(Some).ok_or_else(|| forms.bad_time(raw));
    }
    let text = string(raw).ok_or_else(|| format!("is {}; expected a time", kind(raw)))??;
    if forms.lenient {
        return forms.time(&text);
    }
    Timestamp::parse_rfc3339(&text).map(Some).ok_or_else(|| forms.bad_time(&text))
}

/// Returns whether a JSON text is a number.
fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Describes a JSON text for a message.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
