//! Many records that look alike: a program writes its events with the same bytes around the values. When what is around them
//! is, byte for byte, what it was in an event that was read with care, only the values are left to be read.

use std::borrow::Cow;

use super::scan::{JsonScan, Spans, name};
use super::timestamp::MinuteCache;
use super::{Event, Fields, Parser, RawRecord, Rejection};

/// Events of other forms, one after the other, after which one of them is taken for the usual one.
const PATIENCE: u32 = 16;

/// Raised when records are read in another way, so that what an older program judged is replayed as it read it. The state
/// topic keeps it with the settings.
pub const DECODING: u32 = 1;

/// Decodes values, which may but need not look alike.
#[derive(Debug)]
pub struct Decoder {
    parser: Parser,
    shape: Option<Shape>,
    /// Since an event had the shape.
    misses: u32,
    minute: MinuteCache,
}

/// What is around the values.
#[derive(Debug)]
struct Shape {
    /// In their order: what comes before a value, and which one it is, by [`Fields`].
    parts: Vec<(Box<[u8]>, usize)>,
    end: Box<[u8]>,
}

impl Decoder {
    /// For records with these fields. Settings that cannot be used are taken as an older program took them: they were never
    /// checked then.
    pub fn new(fields: &Fields) -> Self {
        Decoder::with(Parser::new(fields).unwrap_or_else(|_| Parser::literal(fields)))
    }

    /// As the programs of that version of [`DECODING`] read records.
    pub fn as_of(version: u32, fields: &Fields) -> Self {
        if version == DECODING { Decoder::new(fields) } else { Decoder::with(Parser::literal(fields)) }
    }

    fn with(parser: Parser) -> Self {
        Decoder { parser, shape: None, misses: 0, minute: MinuteCache::default() }
    }

    /// As [`Parser::read`], with which this agrees always.
    ///
    /// # Errors
    /// The same.
    pub fn decode<'a>(&mut self, record: &RawRecord<'a>) -> Result<Option<Event<'a>>, Rejection> {
        let bytes = record.value.unwrap_or_default();
        if let Some(event) = self.shape.as_ref().and_then(|shape| shape.read(bytes, &mut self.minute)) {
            self.misses = 0;
            return Ok(Some(event));
        }
        self.learn(record)
    }

    /// Reads a record that does not have the shape.
    fn learn<'a>(&mut self, record: &RawRecord<'a>) -> Result<Option<Event<'a>>, Rejection> {
        let bytes = record.value.unwrap_or_default();
        let (event, spans) = self.parser.located(record)?;
        self.misses += 1;
        if let Some(spans) = spans.filter(|_| self.shape.is_none() || self.misses > PATIENCE) {
            self.shape = Some(Shape::of(bytes, &spans));
        }
        Ok(event)
    }

    /// Whether it has the shape.
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

    /// A string ends before a quote, a number before what is no digit, and what follows is compared: so the text has no other
    /// structure than that of the shape.
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
