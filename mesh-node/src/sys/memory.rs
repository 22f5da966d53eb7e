//! The daemon's own memory.
//!
//! Source: mimalloc, `mi_collect`.
#![expect(unsafe_code, reason = "the allocator is a library of C")]

/// Gives what this thread has freed back to the kernel. The allocator does so by itself only while it is busy, and would keep
/// what a thread needed once.
pub fn trim() {
    // SAFETY: it takes no pointer, and may be called from any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
