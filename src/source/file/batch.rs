//! Records that were read together: their bytes in one buffer, and where each lies.

use std::sync::Arc;

use super::reading::FileReading;
use crate::event::{Event, Rejection};

/// Longest record, in bytes. What is longer is an error, so that memory stays bounded.
pub const MAX_RECORD: usize = 16 << 20;
/// Bytes after which a batch is full.
const FULL: usize = 4 << 20;

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRow<'a> {
    /// Zero-based, over the records of the file.
    pub index: i64,
    /// One-based line on which it begins.
    pub line: u64,
    /// As it is in the file, without the end of its line.
    pub bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Place {
    index: i64,
    line: u64,
    start: usize,
    end: usize,
}

/// Lines of one kind: how many there are, and the first of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCount {
    /// How many.
    pub count: u64,
    /// One-based; 0 when there is none.
    pub first: u64,
}

impl LineCount {
    /// Counts one.
    pub fn add(&mut self, line: u64) {
        self.join(LineCount { count: 1, first: line });
    }

    /// Counts those of a later part of the file.
    pub fn join(&mut self, other: LineCount) {
        if self.count == 0 {
            self.first = other.first;
        }
        self.count += other.count;
    }
}

/// Lines of a table, after its header line, that are not rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedLines {
    /// Lines that begin with `#`.
    pub comments: LineCount,
    /// The header line again.
    pub headers: LineCount,
}

impl SkippedLines {
    /// Counts those of a later part of the file.
    pub fn join(&mut self, other: SkippedLines) {
        self.comments.join(other.comments);
        self.headers.join(other.headers);
    }
}

/// See the module.
#[derive(Debug)]
pub struct RecordBatch {
    reading: Arc<FileReading>,
    text: Vec<u8>,
    places: Vec<Place>,
    /// What was passed over between them.
    pub passed: SkippedLines,
}

impl RecordBatch {
    /// Without any record; `reading` is how those that come are understood.
    pub fn new(reading: Arc<FileReading>) -> Self {
        RecordBatch { reading, text: Vec::new(), places: Vec::new(), passed: SkippedLines::default() }
    }

    /// Appends a record.
    pub fn push(&mut self, row: BatchRow<'_>) {
        let start = self.text.len();
        self.text.extend_from_slice(row.bytes);
        self.places.push(Place { index: row.index, line: row.line, start, end: self.text.len() });
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether no more bytes should join.
    pub fn is_full(&self) -> bool {
        self.text.len() >= FULL
    }

    /// How its records are understood.
    pub fn reading(&self) -> &Arc<FileReading> {
        &self.reading
    }

    /// The record at a place below [`len`](Self::len).
    pub fn row(&self, at: usize) -> BatchRow<'_> {
        let Place { index, line, start, end } = self.places[at];
        BatchRow { index, line, bytes: &self.text[start..end] }
    }

    /// The event in that record; `None` when the settings pass it over.
    ///
    /// # Errors
    /// Why it is none.
    pub fn event(&self, at: usize) -> Result<Option<Event<'_>>, Rejection> {
        self.reading.event(self.row(at).bytes)
    }
}
