//! The batch that the present thread of librdkafka decodes.
//!
//! The functions that unpack data get only the data. librdkafka checks the checksum of a batch before it unpacks it, and
//! [`note_batch`] reads the header at that time. [`noted`] finds the batch again by the place of its data.

use std::cell::Cell;

/// Length of the header of a batch after its checksum: attributes, last offset delta, two times, producer with epoch
/// and sequence, number of records.
const HEADER: usize = 40;

/// Header of a batch of format 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotedBatch {
    /// Place of the packed data.
    data: (usize, usize),
    /// Last offset, relative to the first.
    pub last: i32,
    /// Number of records.
    pub records: i32,
    /// Length of the packed data in bytes.
    pub packed: usize,
}

thread_local! {
    static NOTED: Cell<Option<NotedBatch>> = const { Cell::new(None) };
}

/// Reads the header of the batch whose bytes after the checksum are these, and notes it for this thread.
pub(crate) fn note_batch(checked: &[u8]) {
    NOTED.set(read(checked));
}

/// Returns the batch with this packed data; `None` if its header was not recognized.
pub(super) fn noted(packed: &[u8]) -> Option<NotedBatch> {
    NOTED.get().filter(|batch| batch.data == place(packed))
}

fn place(data: &[u8]) -> (usize, usize) {
    (data.as_ptr().addr(), data.len())
}

/// Reads the header; `None` if the batch is not compressed, or is of an older format. There the version takes the place of
/// unused attributes, and the data begins at another place. Only a message of version 0 with a key of 30 bytes has its
/// data there too. The length of its value then takes the place of the number of records.
fn read(checked: &[u8]) -> Option<NotedBatch> {
    let (header, data) = checked.split_at_checked(HEADER)?;
    let number = |at: usize| Some(i32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let (last, records) = (number(2)?, number(36)?);
    let is_compressed = header[0] == 0 && header[1] & 0x07 != 0;
    let is_older = last == 30 && usize::try_from(records) == Ok(data.len());
    let is_whole = records > 0 && i64::from(records) <= i64::from(last) + 1;
    let packed = data.len();
    (is_compressed && !is_older && is_whole).then(|| NotedBatch { data: place(data), last, records, packed })
}
