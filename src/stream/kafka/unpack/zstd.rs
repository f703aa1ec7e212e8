//! Unpacks zstd.

use std::ffi::{c_int, c_uint};

use super::UnpackFailure;
use super::allocation::Allocation;
use crate::stream::client::MAX_BATCH_BYTES;

unsafe extern "C" {
    fn ZSTD_getFrameContentSize(from: *const u8, from_size: usize) -> u64;
    fn ZSTD_decompress(to: *mut u8, to_size: usize, from: *const u8, from_size: usize) -> usize;
    fn ZSTD_isError(code: usize) -> c_uint;
    fn ZSTD_getErrorCode(code: usize) -> c_int;
}

/// `ZSTD_CONTENTSIZE_UNKNOWN` and `ZSTD_CONTENTSIZE_ERROR`.
const UNKNOWN: u64 = u64::MAX;
const ERROR: u64 = u64::MAX - 1;
/// `ZSTD_error_dstSize_tooSmall`.
const TOO_SMALL: c_int = 70;

/// Unpacks frames. The first of them usually has its unpacked size. Otherwise larger sizes are tried: the library
/// unpacks in one step, because the steps of a stream need a window of up to 128 MiB.
pub(super) fn unpack(packed: &[u8]) -> Result<Allocation, UnpackFailure> {
    // SAFETY: the call reads only the data.
    let mut size = match unsafe { ZSTD_getFrameContentSize(packed.as_ptr(), packed.len()) } {
        UNKNOWN => (packed.len() * 2).min(MAX_BATCH_BYTES),
        ERROR => return Err(UnpackFailure::Damaged),
        declared => usize::try_from(declared).unwrap_or(usize::MAX),
    };
    while size <= MAX_BATCH_BYTES {
        let mut unpacked = Allocation::new(size)?;
        let (to, length) = unpacked.spare()?;
        // SAFETY: the call writes at most `length` bytes.
        let (written, is_error) = unsafe {
            let written = ZSTD_decompress(to, length, packed.as_ptr(), packed.len());
            (written, ZSTD_isError(written) != 0)
        };
        if !is_error {
            // SAFETY: the library has written these bytes.
            unsafe { unpacked.advance(written) };
            return Ok(unpacked);
        }
        // SAFETY: the code is that of an error.
        if unsafe { ZSTD_getErrorCode(written) } != TOO_SMALL {
            return Err(UnpackFailure::Damaged);
        }
        // The last attempt is at the limit.
        size = if size < MAX_BATCH_BYTES { (size * 3).clamp(4_096, MAX_BATCH_BYTES) } else { usize::MAX };
    }
    Err(UnpackFailure::Oversized)
}
