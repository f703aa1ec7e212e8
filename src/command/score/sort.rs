//! Sorts any number of records by their times: parts that fit into memory are sorted there, written to a temporary
//! file, and merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::batch::BATCH_RECORDS;
use crate::error::{Error, Result};
use crate::source::file::{BatchRow, FileReading, RecordBatch, SkippedLines};

/// Number of bytes of records that are sorted in memory.
const PART: usize = 64 << 20;
/// Number of bytes of each part that are read at once.
const BUFFER: usize = 1 << 16;

/// The order: by time, then as in the file. A record without a time follows the record before it.
type SortKey = (i64, i64);

/// A record of the part in memory.
struct RecordPosition {
    key: SortKey,
    line: u64,
    start: usize,
    length: usize,
}

/// Sorts records in memory, with a file for those that do not fit.
pub(crate) struct Sorter {
    reading: Arc<FileReading>,
    text: Vec<u8>,
    places: Vec<RecordPosition>,
    passed: SkippedLines,
    /// Time of the last record that has one.
    time: i64,
    kept: Option<File>,
    /// Ends of the parts in the file.
    ends: Vec<u64>,
    limit: usize,
}

impl Sorter {
    /// Creates a sorter without records.
    pub(crate) fn new(reading: Arc<FileReading>) -> Self {
        Sorter {
            reading,
            text: Vec::new(),
            places: Vec::new(),
            passed: SkippedLines::default(),
            time: i64::MIN,
            kept: None,
            ends: Vec::new(),
            limit: PART,
        }
    }

    /// Adds the next records of the file.
    ///
    /// # Errors
    /// 69 if the temporary file cannot be written.
    pub(crate) fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        self.passed.join(batch.passed);
        for at in 0..batch.len() {
            let row = batch.row(at);
            if let Some(time) = batch.events(at).ok().and_then(|events| events.first()?.timestamp) {
                self.time = time.millis();
            }
            let place = RecordPosition {
                key: (self.time, row.index),
                line: row.line,
                start: self.text.len(),
                length: row.bytes.len(),
            };
            self.text.extend_from_slice(row.bytes);
            self.places.push(place);
            // The position of a short record needs more memory than the record.
            if self.text.len() + self.places.len() * size_of::<RecordPosition>() >= self.limit {
                self.keep().map_err(|e| cannot_keep(&e))?;
            }
        }
        Ok(())
    }

    /// Passes all records, in order, to `give`, as long as it returns true.
    ///
    /// # Errors
    /// 69 if the temporary file cannot be written or read.
    pub(crate) fn hand_out(mut self, mut give: impl FnMut(RecordBatch) -> bool) -> Result<()> {
        let mut batch = RecordBatch::new(self.reading.clone());
        batch.passed = self.passed;
        let reading = self.reading.clone();
        let mut push = |row: BatchRow<'_>| {
            batch.push(row);
            let is_full = batch.len() == BATCH_RECORDS || batch.is_full();
            !is_full || give(std::mem::replace(&mut batch, RecordBatch::new(reading.clone())))
        };
        if self.kept.is_some() {
            self.keep().and_then(|()| self.merge(&mut push)).map_err(|e| cannot_keep(&e))?;
        } else {
            self.places.sort_unstable_by_key(|place| place.key);
            let rows = self.places.iter().map(|place| row(place, &self.text));
            rows.map_while(|row| push(row).then_some(())).for_each(drop);
        }
        give(batch);
        Ok(())
    }

    /// Moves the part in memory to the file.
    fn keep(&mut self) -> std::io::Result<()> {
        let file = match self.kept.take() {
            Some(file) => file,
            None => tempfile::tempfile()?,
        };
        self.places.sort_unstable_by_key(|place| place.key);
        let mut end = self.ends.last().copied().unwrap_or_default();
        let mut to = BufWriter::with_capacity(1 << 20, &file);
        for place in &self.places {
            let BatchRow { index, line, bytes } = row(place, &self.text);
            let head = [place.key.0 as u64, index as u64, line, bytes.len() as u64];
            to.write_all(bytemuck::bytes_of(&head))?;
            to.write_all(bytes)?;
            end += (size_of_val(&head) + bytes.len()) as u64;
        }
        to.flush()?;
        drop(to);
        self.ends.push(end);
        self.text.clear();
        self.places.clear();
        self.kept = Some(file);
        Ok(())
    }

    fn merge(&self, push: &mut impl FnMut(BatchRow<'_>) -> bool) -> std::io::Result<()> {
        let Some(file) = &self.kept else { return Ok(()) };
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let mut parts = begins.zip(&self.ends).map(|(at, end)| Part::new(file, at, *end)).collect::<Vec<_>>();
        let mut next = BinaryHeap::with_capacity(parts.len());
        for (at, part) in parts.iter_mut().enumerate() {
            next.extend(part.next()?.map(|key| Reverse((key, at))));
        }
        while let Some(Reverse((key, at))) = next.pop() {
            let part = &mut parts[at];
            if !push(BatchRow { index: key.1, line: part.line, bytes: &part.bytes }) {
                break;
            }
            next.extend(part.next()?.map(|key| Reverse((key, at))));
        }
        Ok(())
    }
}

fn row<'t>(place: &RecordPosition, text: &'t [u8]) -> BatchRow<'t> {
    BatchRow { index: place.key.1, line: place.line, bytes: &text[place.start..place.start + place.length] }
}

fn cannot_keep(why: &std::io::Error) -> Error {
    let dir = std::env::temp_dir();
    Error::unavailable(format_args!(
        "--sort cannot keep its parts in {}: {why}; make room there, or name another directory in TMPDIR",
        dir.display()
    ))
}

/// A sorted part in the file, and its current record.
struct Part<'f> {
    from: BufReader<FileRange<'f>>,
    line: u64,
    bytes: Vec<u8>,
}

/// A range of the file.
struct FileRange<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl<'f> Part<'f> {
    fn new(file: &'f File, at: u64, end: u64) -> Self {
        let from = BufReader::with_capacity(BUFFER, FileRange { file, at, end });
        Part { from, line: 0, bytes: Vec::new() }
    }

    /// Reads the next record; returns its key.
    fn next(&mut self) -> std::io::Result<Option<SortKey>> {
        let mut head = [0_u64; 4];
        if self.from.buffer().is_empty() && self.from.get_ref().at == self.from.get_ref().end {
            return Ok(None);
        }
        self.from.read_exact(bytemuck::bytes_of_mut(&mut head))?;
        let [time, index, line, length] = head;
        self.line = line;
        self.bytes.resize(length as usize, 0);
        self.from.read_exact(&mut self.bytes)?;
        Ok(Some((time as i64, index as i64)))
    }
}

impl Read for FileRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Fields, Parser};

    /// Returns line numbers in the order of the output.
    fn sorted(texts: &[&str], limit: usize) -> Vec<u64> {
        let reading = Arc::new(FileReading::new(Parser::new(&Fields::default()).unwrap(), false, "d".into(), None));
        let mut batch = RecordBatch::new(reading.clone());
        for (text, index) in texts.iter().zip(0..) {
            batch.push(BatchRow { index, line: index as u64 + 1, bytes: text.as_bytes() });
        }
        let mut sorter = Sorter { limit, ..Sorter::new(reading) };
        sorter.take(&batch).unwrap();
        let mut lines = Vec::new();
        sorter
            .hand_out(|batch| {
                for row in (0..batch.len()).map(|at| batch.row(at)) {
                    assert_eq!(row.bytes, texts[row.index as usize].as_bytes());
                    lines.push(row.line);
                }
                true
            })
            .unwrap();
        lines
    }

    #[test]
    fn records_are_sorted_by_time_and_those_without_time_keep_their_place_whatever_fits_into_memory() {
        let event = |second: i64| format!(r#"{{"device_id":"d","metric_value":1,"timestamp":{second}}}"#);
        let texts = ["no event".to_owned(), event(5), event(3), "none".to_owned(), event(5), event(1)];
        let texts = texts.iter().map(String::as_str).collect::<Vec<_>>();
        for limit in [1, 100, 200, 1 << 20] {
            assert_eq!(sorted(&texts, limit), [1, 6, 3, 4, 2, 5], "{limit} bytes");
        }
    }

    #[test]
    fn many_parts_make_one_order() {
        let texts = (0..5_000)
            .map(|i| format!(r#"{{"device_id":"d","metric_value":1,"timestamp":{}}}"#, i * 7_919 % 5_000))
            .collect::<Vec<_>>();
        let texts = texts.iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(sorted(&texts, 20_000), sorted(&texts, PART));
    }
}
