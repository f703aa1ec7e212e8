//! Unpacks gzip.

use std::io::Read;

use flate2::bufread::GzDecoder;

use super::UnpackFailure;
use super::allocation::Allocation;

/// Largest ratio of the unpacked to the packed size.
const RATIO: usize = 1_032;
/// Maximum number of bytes of one step.
const STEP: usize = 256 << 10;

/// Unpacks a stream. Its last bytes have its unpacked size, unless it is damaged or larger than 4 GiB.
pub(super) fn unpack(packed: &[u8]) -> Result<Allocation, UnpackFailure> {
    let declared = packed.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    // The additional byte shows the end without another allocation.
    let mut unpacked = Allocation::new(declared.min(packed.len() * RATIO) + 1)?;
    let mut stream = GzDecoder::new(packed);
    loop {
        let (spare, length) = unpacked.spare()?;
        let length = length.min(STEP);
        // SAFETY: the memory belongs to `unpacked`, and is initialized before it is used as a slice.
        let read = unsafe {
            spare.write_bytes(0, length);
            stream.read(std::slice::from_raw_parts_mut(spare, length))
        };
        match read {
            Ok(0) => return Ok(unpacked),
            // SAFETY: these bytes were written.
            Ok(read) => unsafe { unpacked.advance(read) },
            Err(_) => return Err(UnpackFailure::Damaged),
        }
    }
}
