//! Giving memory back to the system.

/// Has the allocator give back what it keeps of memory that was freed. Takes its locks, and some milliseconds: for a process
/// that is short of memory. Does nothing where the allocator is not glibc's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "no crate offers malloc_trim(3)")]
pub fn trim() {
    // SAFETY: it takes no pointer, and may be called at any time from any thread (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the allocator give back what it keeps of memory that was freed. Does nothing here: the allocator is not glibc's.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn trim() {}
