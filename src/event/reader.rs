//! Selects the four fields of an event from the values found in a record. A field comes from a path, from the record's
//! key or headers, or from an element of an array or object.

use std::borrow::Cow;

use super::cell::{Cell, checked, name, number, time};
use super::each::{Container, ContainerKind};
use super::field_source::{FieldSource, SourcePart};
use super::fields::Fields;
use super::forms::Forms;
use super::{Event, RejectClass, Rejection, hint};
use crate::foreign;

/// Maximum number of characters of a member's name in a message.
const MAX_SHOWN: usize = 40;

/// Reason why a key or a header cannot be used.
pub(crate) enum UnusableBytes {
    /// The record has the header twice.
    Twice,
    /// The bytes are binary data.
    Binary,
    /// The bytes are not UTF-8.
    NotUtf8,
}

/// The parts of one record that are not JSON.
pub(crate) struct Around<'a> {
    /// Key of the record; it may be null.
    pub key: Option<&'a [u8]>,
    /// Headers, if the settings need them.
    pub headers: Vec<(Cow<'a, str>, Option<&'a [u8]>)>,
}

impl<'a> Around<'a> {
    /// Returns the content of the key or of a header.
    pub(crate) fn text(&self, part: &SourcePart) -> Result<Option<&'a str>, UnusableBytes> {
        let bytes = match part {
            SourcePart::Key => self.key,
            SourcePart::Header(name) => {
                let mut all = self.headers.iter().filter(|(key, _)| **key == **name);
                let first = all.next();
                if all.next().is_some() {
                    return Err(UnusableBytes::Twice);
                }
                first.and_then(|(_, value)| *value)
            }
            SourcePart::Text(_) | SourcePart::Path(_) | SourcePart::Inner(_) | SourcePart::Name => None,
        };
        match bytes {
            Some([0, _, _, _, _, _, ..]) => Err(UnusableBytes::Binary),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| UnusableBytes::NotUtf8),
            None => Ok(None),
        }
    }
}

/// Selects the four fields from the values found in one record.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'r, 'a> {
    /// Settings that name the sources.
    pub fields: &'r Fields,
    /// Paths of the record, in the order of the numbers in [`SourcePart::Path`].
    pub paths: &'r [String],
    /// Sources of device, metric, value and time.
    pub places: &'r [FieldSource; 4],
    /// Values at the paths of the record.
    pub cells: &'r [Option<Cell<'a>>],
    /// Key and headers of the record.
    pub around: &'r Around<'a>,
    /// Spellings that are accepted.
    pub forms: &'r Forms,
    /// The object in which a missing field was searched, for messages; empty if there is none.
    pub text: &'r str,
    /// Element to read, for a record with several values.
    pub inside: Option<Inside<'r, 'a>>,
}

/// One element of the container.
#[derive(Clone, Copy)]
pub(crate) struct Inside<'r, 'a> {
    /// Container of the element.
    pub container: &'r Container,
    /// Values at the paths within the element.
    pub cells: &'r [Option<Cell<'a>>],
    /// Name of the member of an object.
    pub name: Option<&'r Cow<'a, str>>,
    /// Zero-based position in the container.
    pub index: usize,
}

impl<'a> Reader<'_, 'a> {
    /// Builds the event from the four fields.
    ///
    /// # Errors
    /// Returns the first problem, in the order device, metric, value, time.
    pub(crate) fn event(&self) -> Result<Event<'a>, Rejection> {
        let (fields, forms) = (self.fields, self.forms);
        let [device, metric, value, at] = self.places;
        let device_id = self
            .name(device, RejectClass::DeviceId)?
            .ok_or_else(|| self.missing(RejectClass::DeviceId, &fields.device))?;
        let metric_name = self.name(metric, RejectClass::MetricName)?;
        let metric_value = match self.one(value, RejectClass::MetricValue)? {
            Some(cell) => {
                number(cell, forms).map_err(|why| self.wrong(RejectClass::MetricValue, &fields.value, &why))?
            }
            None => return Err(self.missing(RejectClass::MetricValue, &fields.value)),
        };
        let timestamp = match self.one(at, RejectClass::Timestamp)? {
            Some(cell) => time(cell, forms).map_err(|why| self.wrong(RejectClass::Timestamp, &fields.time, &why))?,
            None => None,
        };
        Ok(Event { device_id, metric_name, metric_value, timestamp })
    }

    /// Returns the rejection of a field; `why` follows its name.
    pub(crate) fn wrong(&self, class: RejectClass, field: &str, why: &str) -> Rejection {
        let Some(Inside { container, name, index, .. }) = self.inside else {
            return Rejection::new(class, format_args!("`{field}` {why}"));
        };
        // The message names the element instead of the `*`.
        let field = match container.kind {
            ContainerKind::Array => field.replacen("[*]", &format!("[{index}]"), 1),
            ContainerKind::Object => {
                let name = foreign::bytes(name.map(|name| name.as_bytes()).unwrap_or_default(), MAX_SHOWN);
                field.replacen(&format!("{}.*", container.path), &format!("{}.{name}", container.path), 1)
            }
        };
        Rejection::new(class, format_args!("`{field}` {why}"))
    }

    /// Returns the rejection for an absent field.
    pub(crate) fn missing(&self, class: RejectClass, field: &str) -> Rejection {
        let instead = if self.text.is_empty() { String::new() } else { hint::instead(self.text, field) };
        self.wrong(class, field, &format!("is missing{instead}"))
    }

    /// Returns the name of a part as written in the settings.
    fn label(&self, part: &SourcePart) -> String {
        match part {
            SourcePart::Text(text) => text.to_string(),
            SourcePart::Path(at) => self.paths[*at].clone(),
            SourcePart::Inner(at) => self.inside.map_or_else(String::new, |inside| inside.container.label(*at)),
            SourcePart::Name => "*".into(),
            SourcePart::Key => "$key".into(),
            SourcePart::Header(name) => format!("$header.{name}"),
        }
    }

    fn cell(&self, part: &SourcePart, class: RejectClass) -> Result<Option<Cell<'a>>, Rejection> {
        if let SourcePart::Path(at) = part {
            return Ok(self.cells.get(*at).copied().flatten());
        }
        if let SourcePart::Inner(at) = part {
            return Ok(self.inside.and_then(|inside| inside.cells.get(*at).copied().flatten()));
        }
        let text = self.around.text(part).map_err(|why| match why {
            UnusableBytes::Twice => self.wrong(RejectClass::Duplicate, &self.label(part), "is given twice"),
            UnusableBytes::NotUtf8 => self.wrong(class, &self.label(part), "is not UTF-8"),
            UnusableBytes::Binary => {
                let why = "is binary, as a schema registry's clients and Kafka's serializers of numbers write it; expected text";
                self.wrong(class, &self.label(part), why)
            }
        })?;
        Ok(text.map(Cell::Text))
    }

    fn one(&self, place: &FieldSource, class: RejectClass) -> Result<Option<Cell<'a>>, Rejection> {
        match place {
            FieldSource::One(part) => self.cell(part, class),
            FieldSource::Record | FieldSource::Several(_) => Ok(None),
        }
    }

    fn named(&self, part: &SourcePart, class: RejectClass) -> Result<Option<Cow<'a, str>>, Rejection> {
        if *part == SourcePart::Name {
            return Ok(self.inside.and_then(|inside| inside.name.cloned()));
        }
        let Some(cell) = self.cell(part, class)? else { return Ok(None) };
        let is_absent_when_empty = class != RejectClass::DeviceId;
        name(cell, self.forms, is_absent_when_empty).map_err(|why| self.wrong(class, &self.label(part), &why))
    }

    /// Converts to a device or a metric.
    fn name(&self, place: &FieldSource, class: RejectClass) -> Result<Option<Cow<'a, str>>, Rejection> {
        let found = match place {
            FieldSource::Record => return Ok(None),
            FieldSource::One(part) => self.named(part, class)?,
            FieldSource::Several(parts) => self.joined(parts, class, self.field(class))?,
        };
        found.map(|text| checked(text, self.field(class), class)).transpose()
    }

    /// Returns the setting that names the source of a name.
    fn field(&self, class: RejectClass) -> &str {
        let fields = self.fields;
        if class == RejectClass::DeviceId { &fields.device } else { &fields.metric }
    }

    /// Joins the parts to a name. A metric without any of its parts is absent. Otherwise a missing part is an error,
    /// because the name would be that of another series.
    fn joined(&self, parts: &[SourcePart], class: RejectClass, field: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        let mut all = String::new();
        let (mut missing, mut has_any) = (None, false);
        for part in parts {
            if let SourcePart::Text(text) = part {
                all.push_str(text);
                continue;
            }
            match self.named(part, class)?.filter(|text| !text.is_empty()) {
                Some(text) => {
                    all.push_str(&text);
                    has_any = true;
                }
                None => missing = missing.or(Some(part)),
            }
        }
        match missing {
            Some(_) if !has_any && class != RejectClass::DeviceId => Ok(None),
            Some(part) => {
                let mut rejection = self.missing(class, &self.label(part));
                rejection.message = format!("{} (a part of `{field}`)", rejection.message);
                Err(rejection)
            }
            None => Ok(Some(Cow::Owned(all))),
        }
    }
}
