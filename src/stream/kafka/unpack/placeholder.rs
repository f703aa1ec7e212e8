//! The record that replaces an oversized batch. It has the batch's last offset, so that librdkafka continues after the
//! batch, from whichever offset it was read.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use super::batch::NotedBatch;
use crate::stream::client::OversizedBatch;

/// Length of the value of a placeholder.
pub(crate) const PLACEHOLDER: usize = 32;

/// Beginning of the value, which only this process knows. So no record of a topic is taken for a placeholder.
static SECRET: LazyLock<[u8; 16]> = LazyLock::new(|| {
    let half = || RandomState::new().hash_one(0).to_be_bytes();
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&half());
    secret[8..].copy_from_slice(&half());
    secret
});

/// Returns the data of a batch of format 2 with one record: the placeholder of this batch.
pub(super) fn placeholder(batch: &NotedBatch) -> Vec<u8> {
    // Without attributes; with the time of the batch.
    let mut record = vec![0, 0];
    put(&mut record, batch.last.into());
    // Without a key.
    put(&mut record, -1);
    put(&mut record, PLACEHOLDER as i64);
    record.extend_from_slice(SECRET.as_slice());
    record.extend_from_slice(&batch.last.to_be_bytes());
    record.extend_from_slice(&batch.records.to_be_bytes());
    record.extend_from_slice(&(batch.packed as u64).to_be_bytes());
    // Without headers.
    put(&mut record, 0);
    let mut data = Vec::with_capacity(record.len() + 1);
    put(&mut data, record.len() as i64);
    data.append(&mut record);
    data
}

/// Appends a number in the encoding of the protocol: zigzag, then 7 bits in each byte.
fn put(to: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest > 0x7f {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

/// Returns the batch that a record with this offset and value replaces; `None` for other records.
pub(crate) fn read_placeholder(offset: i64, value: &[u8]) -> Option<OversizedBatch> {
    let extent = value.strip_prefix(SECRET.as_slice())?;
    let number = |at: usize| Some(i32::from_be_bytes(extent.get(at..at + 4)?.try_into().ok()?));
    let (last, records) = (number(0)?, number(4)?);
    let packed = u64::from_be_bytes(extent.get(8..16)?.try_into().ok()?);
    Some(OversizedBatch {
        offsets: offset - i64::from(last)..offset + 1,
        records: records.unsigned_abs().into(),
        packed,
    })
}
