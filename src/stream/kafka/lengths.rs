//! Guards a check in librdkafka's decoder of batches, and notes the batch that it decodes.
//!
//! After a batch with a wrong checksum, librdkafka 2.12.1 continues to decode at a wrong place. A length that it finds
//! there may be negative, and becomes a huge number. The sum with the present place then exceeds the range of `size_t`,
//! and an assertion ends the process. The linker option `--wrap` in build.rs lets the decoder call the function below.
//! It refuses such lengths, so that the decoder reports a malformed batch.

use std::ffi::{c_int, c_void};

use super::unpack::note_batch;

/// Largest length that a batch can have: lengths are i32 in the protocol.
const MAX_LENGTH: usize = i32::MAX as usize;

unsafe extern "C" {
    /// The function of librdkafka: makes a slice of the next `size` bytes. It returns 0 if there are fewer bytes.
    fn __real_rd_slice_narrow_copy_relative(from: *const c_void, to: *mut c_void, size: usize) -> c_int;
    /// Stores the address of the bytes at the present place of a slice. Returns the number of those that follow it.
    fn rd_slice_peeker(slice: *const c_void, at: *mut *const u8) -> usize;
}

/// Makes a slice as librdkafka does; returns 0 also for lengths that no batch can have.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_slice_narrow_copy_relative(from: *const c_void, to: *mut c_void, size: usize) -> c_int {
    if size > MAX_LENGTH {
        return 0;
    }
    // SAFETY: the caller is librdkafka, and its arguments are passed on unchanged. The bytes at the present place of
    // its slice are alive during this call.
    unsafe {
        let mut at = std::ptr::null();
        let length = rd_slice_peeker(from, &raw mut at);
        // librdkafka checks the checksum of each batch with this call, before it unpacks the batch.
        if length >= size && !at.is_null() {
            note_batch(std::slice::from_raw_parts(at, size));
        }
        __real_rd_slice_narrow_copy_relative(from, to, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn rd_slice_narrow_copy_relative(from: *const c_void, to: *mut c_void, size: usize) -> c_int;
    }

    #[test]
    fn a_negative_length_in_a_damaged_batch_is_refused_before_librdkafka_uses_it() {
        for length in [-1_isize, -4, isize::MIN] {
            // SAFETY: the guard refuses the length before it uses the pointers. Without it this test crashes.
            let refused =
                unsafe { rd_slice_narrow_copy_relative(std::ptr::null(), std::ptr::null_mut(), length as usize) };
            assert_eq!(refused, 0, "{length}");
        }
    }
}
