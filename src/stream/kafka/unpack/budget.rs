//! Bounds the unpacked data of all batches, from their unpacking until their records are processed.
//!
//! An answer of a broker can have many batches, each of which expands to almost the limit. librdkafka unpacks all of them
//! before a reader gets the first record. A batch beyond a bound is left for the next request: its data is replaced by
//! [`LATER`]. librdkafka then takes the answer for an incomplete one, and continues at this batch.
//!
//! There is a bound for each partition, for each connection of a client to a broker, and for the process. A connection
//! without unpacked data always gets one batch. So a reader that waits, as the sink does for its database, does not stop
//! others. Neither do records of a partition that was revoked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Maximum number of bytes of a partition that are unpacked and not processed yet. One batch may always exceed it.
const PARTITION_SHARE: usize = 128 << 20;
/// The same for all partitions that one connection reads.
const CONNECTION_SHARE: usize = 256 << 20;
/// The same for the process.
const PROCESS_SHARE: usize = 384 << 20;
/// Number of bytes that a connection may have although the process has its share.
const RESERVE: usize = 16 << 20;
/// Memory that librdkafka allocates for a record, in bytes.
const RECORD: usize = 512;
/// Longest wait for memory in an answer of which nothing was unpacked. librdkafka requests what was left again at once.
const WAIT: Duration = Duration::from_millis(500);

/// Data of a batch whose first record is incomplete.
pub(super) const LATER: [u8; 1] = [0x80];

unsafe extern "C" {
    fn free(start: *mut c_void);
}

/// Bytes that are unpacked and not processed yet.
#[derive(Default)]
struct HeldBytes {
    /// By the address of librdkafka's object for the partition. The records keep the object alive.
    partitions: HashMap<usize, usize>,
    /// By connection.
    connections: HashMap<usize, usize>,
    total: usize,
}

impl HeldBytes {
    /// Returns whether a batch of this size must wait.
    fn is_full(&self, place: Place, size: usize) -> bool {
        let of_partition = self.partitions.get(&place.partition).copied().unwrap_or(0);
        let of_connection = self.connections.get(&place.connection).copied().unwrap_or(0);
        exceeds(of_partition, size, PARTITION_SHARE)
            || exceeds(of_connection, size, CONNECTION_SHARE)
            || (exceeds(of_connection, size, RESERVE) && exceeds(self.total, size, PROCESS_SHARE))
    }

    fn add(&mut self, place: Place, size: usize) {
        *self.partitions.entry(place.partition).or_default() += size;
        *self.connections.entry(place.connection).or_default() += size;
        self.total += size;
    }

    fn remove(&mut self, place: Place, size: usize) {
        for (map, key) in [(&mut self.partitions, place.partition), (&mut self.connections, place.connection)] {
            if let Some(bytes) = map.get_mut(&key) {
                *bytes -= size;
                if *bytes == 0 {
                    map.remove(&key);
                }
            }
        }
        self.total -= size;
    }
}

/// Returns whether a batch of this size exceeds the share together with these bytes. A batch alone never does.
fn exceeds(bytes: usize, size: usize, share: usize) -> bool {
    bytes > 0 && bytes + size > share
}

/// Whose memory a batch needs.
#[derive(Debug, Clone, Copy)]
struct Place {
    partition: usize,
    /// Number of the thread that decodes the answers. Each connection of a client has its own thread.
    connection: usize,
}

/// The answer that this thread decodes.
#[derive(Default)]
struct CurrentAnswer {
    /// Address of the answer. The next one can have the same address.
    address: usize,
    /// Partitions of the answer so far. Each occurs once in an answer.
    partitions: Vec<usize>,
    /// Bytes that were unpacked of it.
    unpacked: usize,
    has_waited: bool,
}

static HELD: LazyLock<Mutex<HeldBytes>> = LazyLock::new(Mutex::default);
static FREED: Condvar = Condvar::new();
/// Memory of unpacked data by its address.
static KEPT: LazyLock<Mutex<HashMap<usize, ReservedMemory>>> = LazyLock::new(Mutex::default);
/// Number of threads that have decoded answers.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CONNECTION: usize = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    static ANSWER: RefCell<CurrentAnswer> = RefCell::default();
    /// Address of the data that this thread has unpacked last.
    static NEW: Cell<usize> = const { Cell::new(0) };
}

/// Locks a mutex; a panic elsewhere does not matter, because each change is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this thread begins to decode the part of an answer that is for a partition.
pub(super) fn begin_answer(answer: *const c_void, partition: *const c_void) {
    let (address, partition) = (answer.addr(), partition.addr());
    ANSWER.with_borrow_mut(|current| {
        if current.address != address || current.partitions.contains(&partition) {
            *current = CurrentAnswer { address, ..CurrentAnswer::default() };
        }
        current.partitions.push(partition);
    });
}

/// Memory that a batch needs. Dropping it gives the memory back.
pub(super) struct ReservedMemory {
    size: usize,
    place: Place,
}

impl ReservedMemory {
    /// Reserves the memory of a batch with this number of bytes and records. Returns `None` if the batch must wait for
    /// the next request: too many before it are not processed yet.
    pub(crate) fn of(bytes: usize, records: usize) -> Option<Self> {
        let size = bytes + records * RECORD;
        ANSWER.with_borrow_mut(|answer| {
            let partition = answer.partitions.last().copied().unwrap_or(0);
            let place = Place { partition, connection: CONNECTION.with(|number| *number) };
            let wait = if answer.unpacked == 0 && !answer.has_waited { WAIT } else { Duration::ZERO };
            let waited = FREED.wait_timeout_while(lock(&HELD), wait, |held| held.is_full(place, size));
            let (mut held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                answer.has_waited = true;
                return None;
            }
            held.add(place, size);
            answer.unpacked += size;
            Some(ReservedMemory { size, place })
        })
    }

    /// Keeps the memory until librdkafka frees the data at this address.
    pub(crate) fn keep(self, data: *const u8) {
        NEW.set(data.addr());
        lock(&KEPT).insert(data.addr(), self);
    }
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        lock(&HELD).remove(self.place, self.size);
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

    /// Returns the address of a partition of a test.
    fn partition(place: &u8) -> *const c_void {
        std::ptr::from_ref(place).cast()
    }

    fn held(partition: *const c_void) -> usize {
        lock(&HELD).partitions.get(&partition.addr()).copied().unwrap_or(0)
    }

    #[test]
    fn memory_is_given_back_when_the_data_are_freed_or_not_needed() {
        let place = 0;
        let one = partition(&place);
        begin_answer(one, one);
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
        begin_answer(one, one);
        let first = ReservedMemory::of(MAX_BATCH_BYTES, 125_000).expect("a batch alone never waits");
        assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_none(), "the partition has more than its share");
        begin_answer(one, one);
        assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_none(), "also in the next answer");
        begin_answer(one, other);
        let of_other = ReservedMemory::of(MAX_BATCH_BYTES, 0).expect("the other partition has none");
        drop(first);
        begin_answer(one, one);
        let small = ReservedMemory::of(1_000, 0).unwrap();
        assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_some(), "memory is available again");
        drop((small, of_other));
        assert_eq!((held(one), held(other)), (0, 0));
    }

    #[test]
    fn many_partitions_share_the_memory_of_the_process_and_no_connection_waits_for_another() {
        let mut held = HeldBytes::default();
        let place = |connection, partition| Place { partition, connection };
        // The sink does not process its batches, because its database is away.
        for partition in 0.. {
            if held.is_full(place(1, partition), MAX_BATCH_BYTES) {
                break;
            }
            held.add(place(1, partition), MAX_BATCH_BYTES);
        }
        assert_eq!(held.total, CONNECTION_SHARE, "its connection has its share");
        for partition in 100..102 {
            assert!(!held.is_full(place(2, partition), MAX_BATCH_BYTES));
            held.add(place(2, partition), MAX_BATCH_BYTES);
        }
        assert_eq!(held.total, PROCESS_SHARE);
        assert!(held.is_full(place(2, 102), 1_000), "this connection has data to process");
        assert!(!held.is_full(place(3, 200), MAX_BATCH_BYTES), "this one has none");
        held.add(place(3, 200), 1_000);
        assert!(!held.is_full(place(3, 201), RESERVE / 2) && held.is_full(place(3, 201), RESERVE));
        (100..102).for_each(|partition| held.remove(place(2, partition), MAX_BATCH_BYTES));
        assert!(!held.is_full(place(2, 102), MAX_BATCH_BYTES), "it has processed its data");
    }

    #[test]
    fn an_answer_waits_once_for_memory_however_many_partitions_it_has() {
        let places = [0; 8];
        let full = partition(&places[0]);
        begin_answer(full, full);
        let _first = ReservedMemory::of(MAX_BATCH_BYTES, 0);
        let _second = ReservedMemory::of(MAX_BATCH_BYTES, 0);
        let began = std::time::Instant::now();
        let answer = partition(&places[1]);
        begin_answer(answer, full);
        for _ in 0..20 {
            assert!(ReservedMemory::of(MAX_BATCH_BYTES, 0).is_none());
        }
        assert!(ANSWER.with_borrow(|answer| answer.has_waited));
        begin_answer(answer, partition(&places[2]));
        assert!(ANSWER.with_borrow(|answer| answer.has_waited), "it is the same answer");
        begin_answer(answer, full);
        assert!(!ANSWER.with_borrow(|answer| answer.has_waited), "another answer has the same address");
        assert!(began.elapsed() >= WAIT);
    }
}
