//! Memory for unpacked data, which librdkafka frees.

use std::ffi::c_void;
use std::ptr;

use super::UnpackFailure;
use super::budget::ReservedMemory;
use crate::stream::client::MAX_BATCH_BYTES;

unsafe extern "C" {
    fn realloc(start: *mut c_void, size: usize) -> *mut c_void;
    fn free(start: *mut c_void);
}

/// Memory that grows up to the limit. librdkafka frees it with `free`.
pub(super) struct Allocation {
    start: *mut u8,
    capacity: usize,
    length: usize,
    /// Memory that is reserved for the data.
    memory: Option<ReservedMemory>,
}

impl Allocation {
    /// Allocates this number of bytes, at least 1, and at most one more than the limit.
    ///
    /// # Errors
    /// `Memory` if the system has no memory.
    pub(crate) fn new(capacity: usize) -> Result<Self, UnpackFailure> {
        let mut new = Allocation { start: ptr::null_mut(), capacity: 0, length: 0, memory: None };
        new.resize(capacity)?;
        Ok(new)
    }

    /// Allocates a copy of these bytes.
    ///
    /// # Errors
    /// `Memory` if the system has no memory.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, UnpackFailure> {
        let mut new = Self::new(bytes.len())?;
        // SAFETY: the new memory has at least this length.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), new.start, bytes.len()) };
        new.length = bytes.len();
        Ok(new)
    }

    fn resize(&mut self, capacity: usize) -> Result<(), UnpackFailure> {
        let capacity = capacity.clamp(1, MAX_BATCH_BYTES + 1);
        // SAFETY: the memory comes from `realloc`, or is null.
        let start = unsafe { realloc(self.start.cast(), capacity) };
        if start.is_null() {
            return Err(UnpackFailure::Memory);
        }
        (self.start, self.capacity) = (start.cast(), capacity);
        Ok(())
    }

    /// Returns start and length of the unused memory, of at least 1 byte. It grows if all is used.
    ///
    /// # Errors
    /// `Oversized` if the used memory exceeds the limit, `Memory` if the system has no memory.
    pub(crate) fn spare(&mut self) -> Result<(*mut u8, usize), UnpackFailure> {
        if self.length > MAX_BATCH_BYTES {
            return Err(UnpackFailure::Oversized);
        }
        if self.length == self.capacity {
            self.resize(self.capacity * 2)?;
        }
        // SAFETY: the used memory is a part of the allocated memory.
        Ok((unsafe { self.start.add(self.length) }, self.capacity - self.length))
    }

    /// Notes that this number of bytes of the unused memory is used now.
    ///
    /// # Safety
    /// These bytes must have been written.
    pub(crate) unsafe fn advance(&mut self, bytes: usize) {
        self.length = (self.length + bytes).min(self.capacity);
    }

    /// Returns this memory if it is within the limit.
    ///
    /// # Errors
    /// `Oversized` if the used memory exceeds the limit.
    pub(crate) fn checked(self) -> Result<Self, UnpackFailure> {
        if self.length > MAX_BATCH_BYTES { Err(UnpackFailure::Oversized) } else { Ok(self) }
    }

    /// Returns the number of bytes of the data.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Adds the memory that is reserved for the data.
    pub(crate) fn with(self, memory: Option<ReservedMemory>) -> Self {
        let mut with = self;
        with.memory = memory;
        with
    }

    /// Returns start and length of the data, without unused memory. The caller frees it.
    pub(crate) fn into_raw(mut self) -> (*mut u8, usize) {
        let length = self.length;
        if length < self.capacity {
            // Without memory the data remains where it is.
            let _ = self.resize(length);
        }
        let start = std::mem::replace(&mut self.start, ptr::null_mut());
        if let Some(memory) = self.memory.take() {
            memory.keep(start);
        }
        (start, length)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: the memory comes from `realloc`, or is null.
        unsafe { free(self.start.cast()) };
    }
}
