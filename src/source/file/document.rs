//! Splits JSON that is not one object per line: an array of objects, or objects printed over several lines. It splits
//! value by value, so that an array of any length needs the memory of one member.

use super::batch::{BatchRow, MAX_RECORD};
use super::input::InputFile;
use super::split_step::{SplitStep, too_long};
use crate::error::{Error, Result};

/// Splits the available bytes into JSON values.
#[derive(Debug)]
pub(crate) struct JsonSplitter {
    index: i64,
    /// One-based line of the first available byte.
    line: u64,
    /// Line on which the array of records begins.
    array: Option<u64>,
    /// State of the scan of the first value.
    scan: Scan,
}

#[derive(Debug, Default)]
struct Scan {
    /// Number of bytes that were scanned.
    bytes: usize,
    /// Number of open objects and arrays.
    depth: usize,
    is_in_string: bool,
}

impl JsonSplitter {
    /// Creates a splitter for the beginning of a file.
    pub(crate) fn new() -> Self {
        JsonSplitter { index: 0, line: 1, array: None, scan: Scan::default() }
    }

    /// Splits off the next available record; `take` receives it before its bytes are consumed.
    ///
    /// # Errors
    /// 65 for a value of more than [`MAX_RECORD`] bytes, and for a file that ends within a value or an array.
    pub(crate) fn next(&mut self, input: &mut InputFile, take: &mut dyn FnMut(BatchRow<'_>)) -> Result<SplitStep> {
        if self.scan.bytes == 0 {
            self.skip(input);
        }
        let at_hand = input.at_hand();
        if at_hand.is_empty() {
            return match (input.has_ended(), self.array) {
                (false, _) => Ok(SplitStep::Hungry),
                (true, None) => Ok(SplitStep::End),
                (true, Some(line)) => Err(self.cut_off(input, "array", line)),
            };
        }
        let Some(end) = self.scan.value(at_hand, input.has_ended()) else {
            return match at_hand.len() > MAX_RECORD {
                true => Err(too_long(input, "JSON value", self.line)),
                false if input.has_ended() => Err(self.cut_off(input, "JSON value", self.line)),
                false => Ok(SplitStep::Hungry),
            };
        };
        if end > MAX_RECORD {
            return Err(too_long(input, "JSON value", self.line));
        }
        let bytes = &at_hand[..end];
        take(BatchRow { index: self.index, line: self.line, bytes });
        self.index += 1;
        self.line += line_ends(bytes);
        self.scan = Scan::default();
        input.consume(end);
        Ok(SplitStep::Record)
    }

    /// Skips the bytes between records: spaces, commas, and the brackets of the array.
    fn skip(&mut self, input: &mut InputFile) {
        let mut passed = 0;
        for byte in input.at_hand() {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                b',' if self.array.is_some() => {}
                b'[' if self.array.is_none() => self.array = Some(self.line),
                b']' if self.array.is_some() => self.array = None,
                _ => break,
            }
            passed += 1;
        }
        input.consume(passed);
    }

    fn cut_off(&self, input: &InputFile, what: &str, line: u64) -> Error {
        Error::data(format_args!(
            "{}:{line}: the file ends within the {what} that begins here; it is cut off, or a bracket or a quote is not closed",
            input.name()
        ))
    }
}

/// Returns whether the first value of a text ends in it.
pub(crate) fn is_whole(text: &[u8]) -> bool {
    Scan::default().value(text, false).is_some()
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

impl Scan {
    /// Returns where the first value of `text` ends, or `None` if its end is not there.
    fn value(&mut self, text: &[u8], is_all: bool) -> Option<usize> {
        if !matches!(text[0], b'{' | b'[' | b'"') {
            // A number or a word; the first byte always belongs to it.
            let after = text[1..].iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']'));
            self.bytes = text.len();
            return after.map(|at| at + 1).or(is_all.then_some(text.len()));
        }
        while self.bytes < text.len() {
            let rest = &text[self.bytes..];
            if self.is_in_string {
                match memchr::memchr2(b'"', b'\\', rest) {
                    Some(at) if rest[at] == b'"' => {
                        self.is_in_string = false;
                        self.bytes += at + 1;
                    }
                    // An escape whose second byte is missing is scanned again.
                    Some(at) if at + 1 == rest.len() => {
                        self.bytes += at;
                        return None;
                    }
                    Some(at) => self.bytes += at + 2,
                    None => self.bytes = text.len(),
                }
            } else {
                match rest[0] {
                    b'"' => self.is_in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.bytes += 1;
            }
            if self.depth == 0 && !self.is_in_string {
                return Some(self.bytes);
            }
        }
        None
    }
}
