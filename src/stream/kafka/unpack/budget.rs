//! Bounds the unpacked data of all batches of a partition, from their unpacking until their records are processed.
//!
//! An answer of a broker can have many batches, each of which expands to almost the limit. librdkafka unpacks all of them
//! before a reader gets the first record. A batch beyond the bound is left for the next request: its data is replaced by
//! [`LATER`]. librdkafka then takes the answer for an incomplete one, and continues at this batch.
//!
//! Each partition of each client has a bound of its own. So a reader that waits, as the sink does for its database, does
//! not stop others. Neither do records of a partition that was revoked.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Maximum number of bytes of a partition that are unpacked and not processed yet. One batch may always exceed it.
const SHARE: usize = 128 << 20;
/// Memory that librdkafka allocates for a record, in bytes.
const RECORD: usize = 512;
/// Longest wait for memory before the first batch of an answer is left. librdkafka requests it again at once.
const WAIT: Duration = Duration::from_millis(100);

/// Data of a batch whose first record is incomplete.
pub(super) const LATER: [u8; 1] = [0x80];

unsafe extern "C" {
    fn free(start: *mut c_void);
}

/// Bytes that are unpacked and not processed yet, by the address of librdkafka's object for the partition. Their records
/// keep the object alive.
static HELD: LazyLock<Mutex<HashMap<usize, usize>>> = LazyLock::new(Mutex::default);
static FREED: Condvar = Condvar::new();
/// Memory of unpacked data by its address.
static KEPT: LazyLock<Mutex<HashMap<usize, ReservedMemory>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Partition of the answer that this thread decodes.
    static PARTITION: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has unpacked of the answer.
    static ANSWER: Cell<usize> = const { Cell::new(0) };
    /// Address of the data that this thread has unpacked last.
    static NEW: Cell<usize> = const { Cell::new(0) };
}

/// Locks a mutex; a panic elsewhere does not matter, because each change is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this thread begins to decode an answer for a partition.
pub(super) fn begin_answer(partition: *const c_void) {
    PARTITION.set(partition.addr());
    ANSWER.set(0);
}

/// Returns whether a batch of this size exceeds the share together with these bytes. A batch alone never does.
fn exceeds(bytes: usize, size: usize) -> bool {
    bytes > 0 && bytes + size > SHARE
}

/// Memory that a batch needs. Dropping it gives the memory back.
pub(super) struct ReservedMemory {
    size: usize,
    partition: usize,
}

impl ReservedMemory {
    /// Reserves the memory of a batch with this number of bytes and records. Returns `None` if the batch must wait for
    /// the next request: the partition has too many before it.
    pub(crate) fn of(bytes: usize, records: usize) -> Option<Self> {
        let (size, answer, partition) = (bytes + records * RECORD, ANSWER.get(), PARTITION.get());
        let is_full = |held: &mut HashMap<usize, usize>| exceeds(held.get(&partition).copied().unwrap_or(0), size);
        let wait = if answer == 0 { WAIT } else { Duration::ZERO };
        let waited = FREED.wait_timeout_while(lock(&HELD), wait, is_full);
        let (mut held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return None;
        }
        *held.entry(partition).or_default() += size;
        drop(held);
        ANSWER.set(answer + size);
        Some(ReservedMemory { size, partition })
    }

    /// Keeps the memory until librdkafka frees the data at this address.
    pub(crate) fn keep(self, data: *const u8) {
        NEW.set(data.addr());
        lock(&KEPT).insert(data.addr(), self);
    }
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        let mut held = lock(&HELD);
        if let Some(bytes) = held.get_mut(&self.partition) {
            *bytes -= self.size;
        }
        held.retain(|_, bytes| *bytes > 0);
        drop(held);
        FREED.notify_all();
    }
}

/// Returns whether this thread has unpacked these data last, and their memory is kept.
pub(super) fn is_new(data: *const c_void) -> bool {
    NEW.replace(0) == data.addr() && !data.is_null()
}

/// Frees unpacked data, and gives their memory back.
///
/// # Safety
/// The data must come from `malloc`, and nothing may use them afterwards.
pub(super) unsafe extern "C" fn release(data: *mut c_void) {
    // The address leaves the list before another thread can get it.
    let reserved = lock(&KEPT).remove(&data.addr());
    // SAFETY: the caller guarantees it.
    unsafe { free(data) };
    drop(reserved);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::MAX_BATCH_BYTES;

    /// Returns a place for a partition of a test.
    fn partition(place: &u8) -> *const c_void {
        std::ptr::from_ref(place).cast()
    }

    fn held(partition: *const c_void) -> usize {
        lock(&HELD).get(&partition.addr()).copied().unwrap_or(0)
    }

    #[test]
    fn memory_is_given_back_when_the_data_are_freed_or_not_needed() {
        let place = 0;
        let one = partition(&place);
        begin_answer(one);
        let reserved = ReservedMemory::of(1_000, 3).unwrap();
        assert_eq!(held(one), 1_000 + 3 * RECORD);
        let data = super::super::Allocation::of(b"data").unwrap().into_raw().0;
        reserved.keep(data);
        assert!(is_new(data.cast()));
        assert!(!is_new(data.cast()), "only the first buffer of the data frees them");
        assert_eq!(held(one), 1_000 + 3 * RECORD);
        // SAFETY: nothing else uses the data.
        unsafe { release(data.cast()) };
        assert_eq!(held(one), 0);
        drop(ReservedMemory::of(1_000, 0).unwrap());
        assert_eq!(held(one), 0);
    }

    #[test]
    fn a_batch_waits_for_the_next_request_only_behind_others_of_its_partition() {
        let places = [0, 1];
        let (one, other) = (partition(&places[0]), partition(&places[1]));
        begin_answer(one);
        let first = ReservedMemory::of(MAX_BATCH_BYTES, 250_000).expect("a batch alone never waits");
        assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_none(), "the partition has more than its share");
        begin_answer(one);
        assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_none(), "also in the next answer");
        begin_answer(other);
        let of_other = ReservedMemory::of(MAX_BATCH_BYTES, 0).expect("the other partition has none");
        drop(first);
        begin_answer(one);
        let small = ReservedMemory::of(1_000, 0).unwrap();
        assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_some(), "memory is available again");
        drop((small, of_other));
        assert_eq!((held(one), held(other)), (0, 0));
    }
}
