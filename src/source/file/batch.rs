//! Records that were read together: their bytes in one buffer, and their positions.

use std::sync::Arc;

use super::reading::FileReading;
use crate::event::{Decoded, Rejection};

/// Maximum length of a record in bytes. A longer one is an error, so that memory stays bounded.
pub(crate) const MAX_RECORD: usize = 16 << 20;
/// Number of bytes at which a batch is full.
const BATCH_BYTES: usize = 4 << 20;

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRow<'a> {
    /// Zero-based number among the records of the file.
    pub index: i64,
    /// One-based line on which it begins.
    pub line: u64,
    /// Bytes of the record in the file, without the line end.
    pub bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct RowPosition {
    index: i64,
    line: u64,
    start: usize,
    end: usize,
}

/// A kind of lines: their number, and the first of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LineCount {
    /// Number of lines of this kind.
    pub count: u64,
    /// One-based number of the first line; 0 if there is none.
    pub first: u64,
}

impl LineCount {
    /// Counts one more line of this kind.
    pub(crate) fn add(&mut self, line: u64) {
        self.join(LineCount { count: 1, first: line });
    }

    /// Adds the counts of a later part of the file.
    pub(crate) fn join(&mut self, other: LineCount) {
        if self.count == 0 {
            self.first = other.first;
        }
        self.count += other.count;
    }
}

/// Lines of a table, after its header line, that are not rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SkippedLines {
    /// Lines that begin with `#`.
    pub comments: LineCount,
    /// Repetitions of the header line.
    pub headers: LineCount,
}

impl SkippedLines {
    /// Adds the counts of a later part of the file.
    pub(crate) fn join(&mut self, other: SkippedLines) {
        self.comments.join(other.comments);
        self.headers.join(other.headers);
    }
}

/// Records that were read together.
#[derive(Debug)]
pub(crate) struct RecordBatch {
    reading: Arc<FileReading>,
    text: Vec<u8>,
    places: Vec<RowPosition>,
    /// Lines that were skipped between the records.
    pub passed: SkippedLines,
}

impl RecordBatch {
    /// Creates an empty batch; `reading` decodes its records.
    pub(crate) fn new(reading: Arc<FileReading>) -> Self {
        RecordBatch { reading, text: Vec::new(), places: Vec::new(), passed: SkippedLines::default() }
    }

    /// Appends a record to the batch.
    pub(crate) fn push(&mut self, row: BatchRow<'_>) {
        let start = self.text.len();
        self.text.extend_from_slice(row.bytes);
        self.places.push(RowPosition { index: row.index, line: row.line, start, end: self.text.len() });
    }

    /// Returns the number of records in the batch.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns whether the batch has no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns whether the batch has reached its size limit.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() >= BATCH_BYTES
    }

    /// Returns how its records are decoded.
    pub(crate) fn reading(&self) -> &Arc<FileReading> {
        &self.reading
    }

    /// Returns the record at an index below [`len`](Self::len).
    pub(crate) fn row(&self, at: usize) -> BatchRow<'_> {
        let RowPosition { index, line, start, end } = self.places[at];
        BatchRow { index, line, bytes: &self.text[start..end] }
    }

    /// Decodes that record.
    ///
    /// # Errors
    /// Why it is rejected.
    pub(crate) fn events(&self, at: usize) -> Result<Decoded<'_>, Rejection> {
        self.reading.events(self.row(at).bytes)
    }
}
