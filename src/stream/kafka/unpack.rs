//! Unpacks compressed batches for librdkafka within limits of memory.
//!
//! librdkafka 2.12.1 allocates as many bytes as a batch expands to. The linker option `--wrap` in build.rs lets its
//! decoder of batches call the functions below instead of its own. They stop at the limits. An oversized batch is
//! replaced by a placeholder: a batch of one record, from which [`read_placeholder`] gets the extent of the batch. If
//! the extent is unknown, the decoder reports an error at the offset, as for damaged data. `budget` bounds the memory of
//! many batches together.

mod allocation;
mod batch;
mod budget;
mod gzip;
mod lz4;
mod placeholder;
mod snappy;
mod zstd;

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use rdkafka::types::RDKafkaRespErr;

use crate::stream::client::{MAX_BATCH_BYTES, MAX_BATCH_RECORDS};
use allocation::Allocation;
pub(super) use batch::note_batch;
use batch::{NotedBatch, noted};
use budget::{LATER, ReservedMemory};
pub(super) use placeholder::{PLACEHOLDER, read_placeholder};
use snappy::SnappyPlan;

/// Reason why data was not unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnpackFailure {
    /// The data exceeds a limit.
    Oversized,
    /// The data is damaged.
    Damaged,
    /// The system has no memory.
    Memory,
}

impl UnpackFailure {
    fn code(self) -> RDKafkaRespErr {
        match self {
            UnpackFailure::Oversized | UnpackFailure::Damaged => RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_COMPRESSION,
            UnpackFailure::Memory => RDKafkaRespErr::RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE,
        }
    }
}

/// Returns whether the batch has too many records. librdkafka allocates some hundred bytes for each.
fn has_too_many(batch: Option<&NotedBatch>) -> bool {
    batch.is_some_and(|batch| batch.records > MAX_BATCH_RECORDS)
}

/// Reserves the memory of a batch. Returns `None` if the batch must wait for the next request. A batch of an older format
/// cannot wait, because librdkafka would pass it over.
fn reserve(batch: Option<&NotedBatch>, bytes: usize) -> Option<Option<ReservedMemory>> {
    let Some(batch) = batch else { return Some(None) };
    ReservedMemory::of(bytes, usize::try_from(batch.records).unwrap_or(0)).map(Some)
}

/// Unpacks the data of a batch, or returns a placeholder.
fn unpack(
    packed: &[u8],
    codec: impl FnOnce(&[u8]) -> Result<Allocation, UnpackFailure>,
) -> Result<Allocation, UnpackFailure> {
    let batch = noted(packed);
    let unpacked = if has_too_many(batch.as_ref()) {
        Err(UnpackFailure::Oversized)
    } else {
        codec(packed).and_then(Allocation::checked)
    };
    match (unpacked, batch) {
        (Err(UnpackFailure::Oversized), Some(batch)) => Allocation::of(&placeholder::placeholder(&batch)),
        (Ok(unpacked), batch) => match reserve(batch.as_ref(), unpacked.len()) {
            None => Allocation::of(&LATER),
            Some(memory) => Ok(unpacked.with(memory)),
        },
        (failed, _) => failed,
    }
}

/// Replaces librdkafka's function for gzip: returns the unpacked bytes, which the caller frees; null if it fails.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_gz_decompress(packed: *const u8, length: c_int, unpacked_length: *mut u64) -> *mut u8 {
    // SAFETY: librdkafka passes the address and length of the data, and a place for the length of the result.
    unsafe {
        let packed = std::slice::from_raw_parts(packed, usize::try_from(length).unwrap_or(0));
        unpack(packed, gzip::unpack).map_or(ptr::null_mut(), |unpacked| {
            let (start, length) = unpacked.into_raw();
            *unpacked_length = length as u64;
            start
        })
    }
}

/// Replaces librdkafka's function for lz4. Without `is_proper` the frame has the wrong checksum of old programs.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_lz4_decompress(
    _broker: *mut c_void,
    is_proper: c_int,
    _offset: i64,
    packed: *mut u8,
    length: usize,
    unpacked: *mut *mut u8,
    unpacked_length: *mut usize,
) -> RDKafkaRespErr {
    // SAFETY: librdkafka passes the address and length of the data, which this function may change, and places for
    // the result.
    unsafe {
        let result = match is_proper != 0 || lz4::mend(std::slice::from_raw_parts_mut(packed, length)) {
            true => unpack(std::slice::from_raw_parts(packed, length), lz4::unpack),
            false => Err(UnpackFailure::Damaged),
        };
        store(result, unpacked, unpacked_length)
    }
}

/// Replaces librdkafka's function for zstd.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_zstd_decompress(
    _broker: *mut c_void,
    packed: *const u8,
    length: usize,
    unpacked: *mut *mut u8,
    unpacked_length: *mut usize,
) -> RDKafkaRespErr {
    // SAFETY: librdkafka passes the address and length of the data, and places for the result.
    unsafe { store(unpack(std::slice::from_raw_parts(packed, length), zstd::unpack), unpacked, unpacked_length) }
}

/// Stores a result for librdkafka, which frees it.
///
/// # Safety
/// The pointers must be valid for writing.
unsafe fn store(
    result: Result<Allocation, UnpackFailure>,
    unpacked: *mut *mut u8,
    unpacked_length: *mut usize,
) -> RDKafkaRespErr {
    match result {
        Ok(result) => {
            // SAFETY: the caller guarantees it.
            unsafe { (*unpacked, *unpacked_length) = result.into_raw() };
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        }
        Err(why) => why.code(),
    }
}

unsafe extern "C" {
    fn __real_rd_kafka_snappy_uncompressed_length(packed: *const u8, length: usize, result: *mut usize) -> bool;
    fn __real_rd_kafka_snappy_uncompress(packed: *const u8, length: usize, to: *mut u8) -> c_int;
    fn __real_rd_kafka_snappy_java_uncompress(
        packed: *const u8,
        length: usize,
        unpacked_length: *mut usize,
        message: *mut c_char,
        message_size: usize,
    ) -> *mut u8;
}

/// Wraps librdkafka's function for the unpacked length of snappy data. librdkafka then allocates this length and calls
/// the next function. For an oversized batch, both functions use the placeholder.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_snappy_uncompressed_length(
    packed: *const u8,
    length: usize,
    result: *mut usize,
) -> bool {
    // SAFETY: librdkafka passes the address and length of the data, and a place for the result.
    unsafe {
        if !__real_rd_kafka_snappy_uncompressed_length(packed, length, result) {
            return false;
        }
        let batch = noted(std::slice::from_raw_parts(packed, length));
        let plan = if *result > MAX_BATCH_BYTES || has_too_many(batch.as_ref()) {
            let Some(batch) = batch else { return false };
            SnappyPlan::Replace(placeholder::placeholder(&batch))
        } else {
            reserve(batch.as_ref(), *result).map_or(SnappyPlan::Replace(LATER.to_vec()), SnappyPlan::Unpack)
        };
        if let SnappyPlan::Replace(data) = &plan {
            *result = data.len();
        }
        snappy::set(packed, plan);
        true
    }
}

/// Wraps librdkafka's function that unpacks snappy data into a buffer of the length that the function above returned.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_snappy_uncompress(packed: *const u8, length: usize, to: *mut u8) -> c_int {
    // SAFETY: librdkafka passes the address and length of the data, and a buffer for the length.
    unsafe {
        match snappy::take(packed) {
            Some(SnappyPlan::Replace(data)) => {
                ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
                0
            }
            plan => {
                let code = __real_rd_kafka_snappy_uncompress(packed, length, to);
                if let (0, Some(SnappyPlan::Unpack(Some(memory)))) = (code, plan) {
                    memory.keep(to);
                }
                code
            }
        }
    }
}

/// Wraps librdkafka's function for snappy data in the framing of snappy-java. The data follows the header of the frame.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_snappy_java_uncompress(
    packed: *const u8,
    length: usize,
    unpacked_length: *mut usize,
    message: *mut c_char,
    message_size: usize,
) -> *mut u8 {
    // SAFETY: librdkafka passes the address and length of the data, which follows the header of the frame. It also passes
    // a place for the length of the result, and a buffer for a message.
    unsafe {
        let frame = std::slice::from_raw_parts(packed.sub(snappy::JAVA_HEADER), length + snappy::JAVA_HEADER);
        let (bytes, batch) = (snappy::java_length(&frame[snappy::JAVA_HEADER..]), noted(frame));
        let replacement = if bytes > MAX_BATCH_BYTES || has_too_many(batch.as_ref()) {
            let Some(batch) = batch else { return ptr::null_mut() };
            placeholder::placeholder(&batch)
        } else if let Some(memory) = reserve(batch.as_ref(), bytes) {
            let data = __real_rd_kafka_snappy_java_uncompress(packed, length, unpacked_length, message, message_size);
            if let Some(memory) = memory.filter(|_| !data.is_null()) {
                memory.keep(data);
            }
            return data;
        } else {
            LATER.to_vec()
        };
        Allocation::of(&replacement).map_or(ptr::null_mut(), |replacement| {
            let (start, length) = replacement.into_raw();
            *unpacked_length = length;
            start
        })
    }
}

unsafe extern "C" {
    fn __real_rd_kafka_msgset_parse(
        answer: *mut c_void,
        request: *mut c_void,
        partition: *mut c_void,
        aborted: *mut c_void,
        version: *const c_void,
    ) -> RDKafkaRespErr;
    fn __real_rd_kafka_buf_new_shadow(data: *const c_void, size: usize, free: Option<FreeData>) -> *mut c_void;
}

/// Function that frees the data of a buffer.
type FreeData = unsafe extern "C" fn(*mut c_void);

/// Wraps librdkafka's function that decodes the answer for one partition.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_msgset_parse(
    answer: *mut c_void,
    request: *mut c_void,
    partition: *mut c_void,
    aborted: *mut c_void,
    version: *const c_void,
) -> RDKafkaRespErr {
    budget::begin_answer(answer, partition);
    // SAFETY: the caller is librdkafka, and its arguments are passed on unchanged.
    unsafe { __real_rd_kafka_msgset_parse(answer, request, partition, aborted, version) }
}

/// Wraps librdkafka's function that makes a buffer of data. A buffer of unpacked data gives their memory back when its
/// last record is freed.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_buf_new_shadow(
    data: *const c_void,
    size: usize,
    free: Option<FreeData>,
) -> *mut c_void {
    let free = if budget::is_new(data) { Some(budget::release as FreeData) } else { free };
    // SAFETY: the caller is librdkafka. Its function for unpacked data calls `free`, as `release` does.
    unsafe { __real_rd_kafka_buf_new_shadow(data, size, free) }
}

#[cfg(test)]
mod tests;
