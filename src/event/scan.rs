//! Fast scan of the usual event in one pass: a flat object of plain strings and short numbers. Everything else, invalid
//! or only rare, goes to the complete decoder in [`super::decode`]. This file therefore never decides what is an error.

use std::borrow::Cow;
use std::ops::Range;

use super::{Event, Fields, MAX_NAME, Timestamp};

/// Powers of ten that an f64 represents exactly, as far as needed. A quotient of two exact numbers is rounded once, as
/// by `str::parse` (Clinger, "How to read floating point numbers accurately", 1990).
const TENS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Positions of the four values in the text, in the order of [`Fields`]; strings without their quotes.
pub(crate) type Spans = [Option<Range<usize>>; 4];

/// Scans `text`; `None` if it does not have the usual form. A path of several names leads to an inner object, which is
/// not the usual form.
pub(crate) fn usual<'a>(text: &'a str, fields: &Fields) -> Option<(Event<'a>, Spans)> {
    let mut scan = JsonScan { rest: text.as_bytes() };
    let (mut device, mut metric, mut value, mut time) = (None, None, None, None);
    let mut spans = Spans::default();
    scan.space();
    scan.take(b'{')?;
    loop {
        scan.space();
        // A field that occurs twice is an error, which this file does not decide. Usually fields come in this order.
        let span = |found: &[u8], after: &JsonScan<'_>, quotes| {
            let end = text.len() - after.rest.len() - quotes;
            Some(end - found.len()..end)
        };
        if device.is_none() && scan.key(&fields.device) {
            let found = scan.name()?;
            spans[0] = span(found.as_bytes(), &scan, 1);
            device = Some(found);
        } else if metric.is_none() && scan.key(&fields.metric) {
            let found = scan.name()?;
            spans[1] = span(found.as_bytes(), &scan, 1);
            metric = Some(found);
        } else if value.is_none() && scan.key(&fields.value) {
            let before = scan.rest;
            value = Some(scan.number()?);
            spans[2] = span(&before[..before.len() - scan.rest.len()], &scan, 0);
        } else if time.is_none() && scan.key(&fields.time) {
            let found = scan.string()?;
            spans[3] = span(found, &scan, 1);
            time = Some(Timestamp::parse_rfc3339(std::str::from_utf8(found).ok()?)?);
        } else {
            let key = scan.string()?;
            [&fields.device, &fields.metric, &fields.value, &fields.time]
                .iter()
                .all(|field| field.as_bytes() != key)
                .then_some(())?;
            scan.colon()?;
            scan.scalar()?;
        }
        scan.space();
        match scan.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    scan.space();
    scan.rest.is_empty().then_some(())?;
    let event = Event {
        device_id: Cow::Borrowed(device?),
        metric_name: metric.map(Cow::Borrowed),
        metric_value: value?,
        timestamp: time,
    };
    Some((event, spans))
}

/// A number with the value 1 in each of its eight bytes.
const ONE_IN_EACH_BYTE: u64 = u64::MAX / 255;

/// Sets the highest bit of each byte that ends a plain string: a quote, a backslash or a control character. Only the
/// lowest set bit is reliable, and it is the first match (H. Warren, "Hacker's Delight", 6-1).
fn special(eight: u64) -> u64 {
    let zero = |x: u64| x.wrapping_sub(ONE_IN_EACH_BYTE) & !x;
    let quote = zero(eight ^ (ONE_IN_EACH_BYTE * b'"' as u64));
    let backslash = zero(eight ^ (ONE_IN_EACH_BYTE * b'\\' as u64));
    let control = eight.wrapping_sub(ONE_IN_EACH_BYTE * 0x20) & !eight;
    (quote | backslash | control) & (ONE_IN_EACH_BYTE * 0x80)
}

/// Returns a name if its length is within the limits.
pub(crate) fn name(bytes: &[u8]) -> Option<&str> {
    let name = (1..=MAX_NAME).contains(&bytes.len()).then_some(bytes)?;
    if is_ascii(name) {
        // SAFETY: ASCII is UTF-8. The standard check reads short texts byte by byte.
        return Some(unsafe { std::str::from_utf8_unchecked(name) });
    }
    std::str::from_utf8(name).ok()
}

/// Returns whether all bytes are ASCII. Compares eight bytes at once; the last comparison overlaps.
fn is_ascii(bytes: &[u8]) -> bool {
    let (eights, rest) = bytes.as_chunks::<8>();
    let all = match bytes.last_chunk::<8>() {
        Some(last) => eights.iter().fold(u64::from_ne_bytes(*last), |all, eight| all | u64::from_ne_bytes(*eight)),
        None => rest.iter().fold(0, |all, byte| all | u64::from(*byte)),
    };
    all & (ONE_IN_EACH_BYTE * 0x80) == 0
}

/// The part of a text that is still to be scanned.
pub(crate) struct JsonScan<'a> {
    pub rest: &'a [u8],
}

impl<'a> JsonScan<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn colon(&mut self) -> Option<()> {
        self.space();
        self.take(b':')?;
        self.space();
        Some(())
    }

    /// Skips this key and its colon if they come next; returns whether they did.
    #[inline]
    fn key(&mut self, key: &str) -> bool {
        let before = self.rest;
        let is_there = before.len() > key.len() + 2
            && before[0] == b'"'
            && before[key.len() + 1] == b'"'
            && before[1..=key.len()] == *key.as_bytes();
        if is_there {
            self.rest = &before[key.len() + 2..];
            if self.colon().is_some() {
                return true;
            }
            self.rest = before;
        }
        false
    }

    /// Reads a string without escapes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let inner = self.plain()?;
        self.take(b'"')?;
        Some(inner)
    }

    /// Returns the text before the next quote, backslash or control character.
    #[inline]
    pub(crate) fn plain(&mut self) -> Option<&'a [u8]> {
        let mut end = 0;
        loop {
            let Some(eight) = self.rest[end..].first_chunk() else {
                // Fewer than eight bytes are left.
                end += self.rest[end..].iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20))?;
                break;
            };
            let found = special(u64::from_le_bytes(*eight));
            if found != 0 {
                end += (found.trailing_zeros() / 8) as usize;
                break;
            }
            end += 8;
        }
        let (plain, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(plain)
    }

    fn name(&mut self) -> Option<&'a str> {
        self.string().and_then(name)
    }

    /// Adds digits to a number; returns the number of digits.
    fn digits(&mut self, number: &mut u64) -> usize {
        let before = self.rest.len();
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            *number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.rest = rest;
        }
        before - self.rest.len()
    }

    /// Reads a number without exponent, of at most 15 digits, so that its digits and the power of ten are exact.
    pub(crate) fn number(&mut self) -> Option<f64> {
        let is_negative = self.rest.first() == Some(&b'-');
        self.rest = &self.rest[usize::from(is_negative)..];
        let has_leading_zero = self.rest.first() == Some(&b'0');
        let mut digits = 0;
        let whole = self.digits(&mut digits);
        if whole == 0 || (has_leading_zero && whole > 1) {
            return None;
        }
        let mut fraction = 0;
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            fraction = self.digits(&mut digits);
            (fraction > 0).then_some(())?;
        }
        if whole + fraction > 15 || matches!(self.rest, [b'e' | b'E', ..]) {
            return None;
        }
        let size = digits as f64 / TENS[fraction];
        Some(if is_negative { -size } else { size })
    }

    /// Skips a value that contains no other values.
    fn scalar(&mut self) -> Option<()> {
        match self.rest.first()? {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => {
                let words = [&b"true"[..], b"false", b"null"];
                self.rest = words.iter().find_map(|word| self.rest.strip_prefix(*word))?;
                Some(())
            }
        }
    }
}
