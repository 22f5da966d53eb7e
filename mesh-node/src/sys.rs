//! The kernel, behind safe functions.
//!
//! Invariant: unsafe code and raw system calls of this crate are here and nowhere else.

pub mod netns;
pub mod socket;
