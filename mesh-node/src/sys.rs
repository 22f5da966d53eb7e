//! The kernel, behind safe functions.
//!
//! Invariant: unsafe code and raw system calls of this crate are here and nowhere else.

pub mod bpf;
pub mod diag;
pub mod limit;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod read;
pub mod socket;
pub mod sysctl;
pub mod time;
