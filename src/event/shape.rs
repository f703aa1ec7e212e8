//! Decoder for many records of the same form. A program usually writes the same bytes around the values of its events.
//! If these bytes equal those of a completely decoded event, only the values are read.

use std::borrow::Cow;

use super::scan::{JsonScan, Spans, name};
use super::timestamp::MinuteCache;
use super::{Decoded, Event, Fields, Parser, RawRecord, Rejection};

/// Number of consecutive events of other forms after which one of them becomes the expected form.
const EVENTS_BEFORE_CHANGE: u32 = 16;

/// Version of the decoding. It is raised when records are decoded differently, so that a replay decodes as the older
/// program did. The state topic stores it with the settings.
pub const DECODING: u32 = 1;

/// Decodes values, and is fastest if they have the same form.
#[derive(Debug)]
pub struct Decoder {
    parser: Parser,
    shape: Option<Shape>,
    /// Number of events since the last one with the expected form.
    misses: u32,
    minute: MinuteCache,
}

/// The bytes around the values.
#[derive(Debug)]
struct Shape {
    /// Parts in their order: the bytes before a value, and the number of the field as in [`Fields`].
    parts: Vec<(Box<[u8]>, usize)>,
    end: Box<[u8]>,
}

impl Decoder {
    /// Creates a decoder for records with these fields. Unusable settings are treated as by an older program, which did
    /// not check them.
    pub fn new(fields: &Fields) -> Self {
        Decoder::with(Parser::new(fields).unwrap_or_else(|_| Parser::literal(fields)))
    }

    /// Creates a decoder that works like that of version [`DECODING`].
    pub fn as_of(version: u32, fields: &Fields) -> Self {
        if version == DECODING { Decoder::new(fields) } else { Decoder::with(Parser::literal(fields)) }
    }

    fn with(parser: Parser) -> Self {
        Decoder { parser, shape: None, misses: 0, minute: MinuteCache::default() }
    }

    /// Decodes a record, with the same result as [`Parser::read`].
    ///
    /// # Errors
    /// Returns the first problem found, as [`Parser::read`] does.
    pub fn decode<'a>(&mut self, record: &RawRecord<'a>) -> Result<Decoded<'a>, Rejection> {
        let bytes = record.value.unwrap_or_default();
        if let Some(event) = self.shape.as_ref().and_then(|shape| shape.read(bytes, &mut self.minute)) {
            self.misses = 0;
            return Ok(Decoded::One(event));
        }
        self.learn(record)
    }

    /// Decodes a record that does not have the expected form.
    fn learn<'a>(&mut self, record: &RawRecord<'a>) -> Result<Decoded<'a>, Rejection> {
        let bytes = record.value.unwrap_or_default();
        let (events, spans) = self.parser.located(record)?;
        self.misses += 1;
        if let Some(spans) = spans.filter(|_| self.shape.is_none() || self.misses > EVENTS_BEFORE_CHANGE) {
            self.shape = Some(Shape::of(bytes, &spans));
        }
        Ok(events)
    }

    /// Returns whether the record has the expected form.
    #[cfg(test)]
    pub(super) fn knows(&mut self, value: &[u8]) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.read(value, &mut self.minute).is_some())
    }
}

impl Shape {
    fn of(text: &[u8], spans: &Spans) -> Self {
        let mut places =
            spans.iter().zip(0..).filter_map(|(span, field)| Some((span.clone()?, field))).collect::<Vec<_>>();
        places.sort_by_key(|(span, _)| span.start);
        let mut after = 0;
        let mut parts = Vec::with_capacity(places.len());
        for (span, field) in places {
            parts.push((text[after..span.start].into(), field));
            after = span.end;
        }
        Shape { parts, end: text[after..].into() }
    }

    /// Reads a text that has the expected form. A string ends before a quote, and a number before a character that is
    /// no digit. The bytes after it are compared. So the text has the structure of the expected form, and no other.
    fn read<'a>(&self, text: &'a [u8], minute: &mut MinuteCache) -> Option<Event<'a>> {
        let mut scan = JsonScan { rest: text };
        let (mut device, mut metric, mut value, mut time) = (None, None, None, None);
        for (before, field) in &self.parts {
            scan.rest = scan.rest.strip_prefix(&before[..])?;
            match field {
                0 => device = Some(name(scan.plain()?)?),
                1 => metric = Some(name(scan.plain()?)?),
                2 => value = Some(scan.number()?),
                _ => time = Some(minute.read(scan.plain()?)?),
            }
        }
        (*scan.rest == *self.end).then_some(())?;
        Some(Event {
            device_id: Cow::Borrowed(device?),
            metric_name: metric.map(Cow::Borrowed),
            metric_value: value?,
            timestamp: time,
        })
    }
}
