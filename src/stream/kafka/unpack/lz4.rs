//! Unpacks frames of lz4, with the library in librdkafka.

use std::ffi::{c_uint, c_void};
use std::ptr;

use super::UnpackFailure;
use super::allocation::Allocation;

unsafe extern "C" {
    fn LZ4F_createDecompressionContext(context: *mut *mut c_void, version: c_uint) -> usize;
    fn LZ4F_freeDecompressionContext(context: *mut c_void) -> usize;
    fn LZ4F_decompress(
        context: *mut c_void,
        to: *mut u8,
        to_size: *mut usize,
        from: *const u8,
        from_size: *mut usize,
        options: *const c_void,
    ) -> usize;
    fn LZ4F_isError(code: usize) -> c_uint;
    fn XXH32(data: *const u8, size: usize, seed: c_uint) -> c_uint;
}

/// `LZ4F_VERSION`.
const VERSION: c_uint = 100;
/// Largest ratio of the unpacked to the packed size.
const RATIO: usize = 255;
/// First bytes of a frame.
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// Context of the library.
struct LzContext(*mut c_void);

impl Drop for LzContext {
    fn drop(&mut self) {
        // SAFETY: the library created the context, which nothing uses afterwards.
        unsafe { LZ4F_freeDecompressionContext(self.0) };
    }
}

/// Returns whether the header has the unpacked size, and the place of its checksum.
fn header(packed: &[u8]) -> Option<(bool, usize)> {
    let has_size = packed.strip_prefix(&MAGIC)?.first()? >> 3 & 1 == 1;
    let at = if has_size { 14 } else { 6 };
    (at < packed.len()).then_some((has_size, at))
}

/// Corrects the checksum of a header, which programs before Kafka 0.10 computed wrongly. Returns whether there is one.
pub(super) fn mend(packed: &mut [u8]) -> bool {
    let Some((_, at)) = header(packed) else { return false };
    // SAFETY: the bytes before the checksum are a part of the data.
    packed[at] = (unsafe { XXH32(packed[4..].as_ptr(), at - 4, 0) } >> 8) as u8;
    true
}

/// Returns the number of bytes to allocate first.
fn estimate(packed: &[u8]) -> usize {
    let declared = match header(packed) {
        Some((true, _)) => packed[6..].first_chunk::<8>().map(|size| u64::from_le_bytes(*size)),
        _ => None,
    };
    let declared = declared.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= packed.len() * RATIO);
    declared.filter(|size| *size > 0).unwrap_or(packed.len() * 4)
}

/// Unpacks a frame.
pub(super) fn unpack(packed: &[u8]) -> Result<Allocation, UnpackFailure> {
    let mut context = LzContext(ptr::null_mut());
    // SAFETY: the call creates the context.
    if unsafe { LZ4F_isError(LZ4F_createDecompressionContext(&raw mut context.0, VERSION)) } != 0 {
        return Err(UnpackFailure::Memory);
    }
    let mut unpacked = Allocation::new(estimate(packed))?;
    let mut rest = packed;
    while !rest.is_empty() {
        let ((to, mut written), mut read) = (unpacked.spare()?, rest.len());
        // SAFETY: the library reads at most `read` bytes and writes at most `written` bytes; it stores the real numbers.
        let left =
            unsafe { LZ4F_decompress(context.0, to, &raw mut written, rest.as_ptr(), &raw mut read, ptr::null()) };
        // SAFETY: the call returns a number or an error.
        if unsafe { LZ4F_isError(left) } != 0 {
            return Err(UnpackFailure::Damaged);
        }
        // SAFETY: the library has written these bytes.
        unsafe { unpacked.advance(written) };
        rest = &rest[read.min(rest.len())..];
        if left == 0 {
            break;
        }
    }
    if rest.is_empty() { Ok(unpacked) } else { Err(UnpackFailure::Damaged) }
}
