//! Reads batches of records in a thread: it reads while other threads judge, and a pipe may be silent for any time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::batch::BATCH_RECORDS;
use super::sort::Sorter;
use crate::error::{Error, Result};
use crate::source::file::{RecordBatch, Records};

/// Number of batches that are read ahead.
const BATCHES_AHEAD: usize = 2;

/// A batch and whether there may be more, or the error that ended the file.
pub(crate) type FedBatch = (RecordBatch, Result<bool>);

/// Reads the whole file; with `sort`, before the first batch is returned.
///
/// # Errors
/// 70 if no thread can be started.
pub(crate) fn start(records: Records, sort: bool) -> Result<Receiver<FedBatch>> {
    let (to, from) = sync_channel(BATCHES_AHEAD);
    std::thread::Builder::new()
        .name("reader".into())
        .spawn(move || if sort { sorted(records, &to) } else { as_it_is(records, &to) })
        .map_err(|e| Error::internal(format_args!("cannot start a thread: {e}")))?;
    Ok(from)
}

fn as_it_is(mut records: Records, to: &SyncSender<FedBatch>) {
    loop {
        let (batch, then) = records.batch(BATCH_RECORDS);
        let has_more = matches!(then, Ok(true));
        if to.send((batch, then)).is_err() || !has_more {
            return;
        }
    }
}

fn sorted(mut records: Records, to: &SyncSender<FedBatch>) {
    let reading = records.reading().clone();
    let mut sorter = Sorter::new(reading.clone());
    let end = loop {
        let (batch, then) = records.batch(BATCH_RECORDS);
        match sorter.take(&batch).and(then) {
            Ok(true) => {}
            end => break end,
        }
    };
    let end = sorter.hand_out(|batch| to.send((batch, Ok(true))).is_ok()).and(end);
    // If the receiver is gone, the error has no reader.
    drop(to.send((RecordBatch::new(reading), end)));
}
