//! The daemon's own memory.
//!
//! Out: [`trim`].
//! Source: mimalloc, `mi_collect`; `dl_iterate_phdr(3)`; `madvise(2)`, `MADV_DONTNEED` of mappings of files.
#![expect(unsafe_code, reason = "the allocator is a library of C, and so is what knows where the program is")]

use std::ffi::{c_int, c_void};

/// Gives back what it took to start. Of this thread's heap, what it has freed: the allocator does so by itself only while it is
/// busy, and would keep what a thread needed once. Of the program, the pages that were needed once: those that are needed again are
/// mapped again, from where the kernel keeps the file.
pub fn trim() {
    // SAFETY: it takes no pointer, and may be called from any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
    // SAFETY: `unmap` is what it calls back, and needs no data.
    unsafe { libc::dl_iterate_phdr(Some(unmap), std::ptr::null_mut()) };
}

/// Unmaps the pages of a program or library that nobody writes.
///
/// # Safety
/// `object` describes a loaded object, as `dl_iterate_phdr` does.
unsafe extern "C" fn unmap(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: it takes no pointer.
    let Ok(page) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return 0 };
    // SAFETY: the caller vouches for it, and for as many headers as it says there.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let Ok(start) = usize::try_from(base + header.p_vaddr) else { continue };
        let Ok(size) = usize::try_from(header.p_memsz) else { continue };
        // Pages that it shares with another segment stay.
        let (first, end) = (start.next_multiple_of(page), (start + size) / page * page);
        if first < end {
            // SAFETY: a segment that is not written is as it is in its file, from which the kernel maps it again.
            unsafe { libc::madvise(std::ptr::without_provenance_mut(first), end - first, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::trim;

    static OF_THE_PROGRAM: [u8; 4 << 20] = [7; 4 << 20];

    /// Pages that are mapped of files.
    fn mapped_kb() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).expect("since 4.5");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn sum() -> u64 {
        std::hint::black_box(&OF_THE_PROGRAM).iter().map(|&byte| u64::from(byte)).sum()
    }

    #[test]
    fn what_the_program_needed_once_is_given_back_and_found_again() {
        let before = sum();
        let mapped = mapped_kb();
        trim();
        let left = mapped_kb();
        assert!(left + 4000 < mapped, "{mapped} KB were mapped, and {left} still are");
        assert_eq!(sum(), before);
    }
}
