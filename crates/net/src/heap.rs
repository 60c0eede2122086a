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

/// Lets go of the program's pages: those of its code and constants that nothing touches any more, as what reads the command
/// line and the first configuration, are not this process's memory from then on. The others come back, each with its
/// neighbours, when they are touched: from the page cache, in about a microsecond.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "no crate offers dl_iterate_phdr(3)")]
pub fn forget_program() {
    /// Of the first object, which is the program; a library's pages are others' too.
    unsafe extern "C" fn forget(
        object: *mut libc::dl_phdr_info,
        _: usize,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: dl_iterate_phdr hands over a valid object, with that many headers.
        let (base, headers) = unsafe {
            let object = &*object;
            let count = usize::from(object.dlpi_phnum);
            (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, count))
        };
        let page = rustix::param::page_size();
        for header in headers.iter().filter(|it| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_W == 0) {
            let begin = base + header.p_vaddr as usize;
            // Whole pages within the segment alone: what follows it may be written to.
            let (first, end) =
                (begin.next_multiple_of(page), (begin + header.p_memsz as usize) / page * page);
            if first < end {
                // SAFETY: the pages are of a file, mapped and never written to, so that they read the same afterwards.
                unsafe {
                    libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED);
                }
            }
        }
        1
    }
    // SAFETY: the callback matches the type, and keeps nothing of what it is handed.
    unsafe {
        libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut());
    }
}

/// Lets go of the program's pages that nothing touches any more. Does nothing on this system.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn forget_program() {}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The pages of files that are this process's memory.
    fn pages_of_files() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(2).unwrap().parse().unwrap()
    }

    #[test]
    fn the_programs_pages_go_and_it_still_runs() {
        let before = pages_of_files();
        forget_program();
        let after = pages_of_files();
        assert!(after < before, "{after} of {before} pages are left");
        forget_program();
        assert_eq!(format!("{:.2}", f64::from(after as u32) / f64::from(after as u32)), "1.00");
    }
}
