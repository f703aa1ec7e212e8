//! Splits a file into lines, one record each; blank lines are skipped.

use super::batch::{BatchRow, MAX_RECORD};
use super::input::InputFile;
use super::split_step::{SplitStep, too_long};
use crate::error::Result;

/// Splits the available bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    index: i64,
    line: u64,
    /// Number of available bytes without a line end.
    scanned: usize,
}

impl LineSplitter {
    /// Splits off the next available record; `take` receives it before its bytes are consumed.
    ///
    /// # Errors
    /// 65 for a line of more than [`MAX_RECORD`] bytes.
    pub(crate) fn next(&mut self, input: &mut InputFile, take: &mut dyn FnMut(BatchRow<'_>)) -> Result<SplitStep> {
        loop {
            let at_hand = input.at_hand();
            let (end, next) = match memchr::memchr(b'\n', &at_hand[self.scanned..]) {
                Some(at) => (self.scanned + at, self.scanned + at + 1),
                None if at_hand.len() > MAX_RECORD => return Err(too_long(input, "line", self.line + 1)),
                None if !input.has_ended() => {
                    self.scanned = at_hand.len();
                    return Ok(SplitStep::Hungry);
                }
                None if at_hand.is_empty() => return Ok(SplitStep::End),
                None => (at_hand.len(), at_hand.len()),
            };
            if end > MAX_RECORD {
                return Err(too_long(input, "line", self.line + 1));
            }
            let bytes = &at_hand[..end];
            let bytes = if next > end { bytes.strip_suffix(b"\r").unwrap_or(bytes) } else { bytes };
            self.line += 1;
            let is_record = !bytes.iter().all(u8::is_ascii_whitespace);
            if is_record {
                take(BatchRow { index: self.index, line: self.line, bytes });
                self.index += 1;
            }
            input.consume(next);
            self.scanned = 0;
            if is_record {
                return Ok(SplitStep::Record);
            }
        }
    }
}
