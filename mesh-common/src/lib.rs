//! What two programs of the mesh must agree on.
//!
//! In:  nothing; this crate is constants and plain data.
//! Out: marks and routing constants, map keys and values, names of pinned objects, CNI messages.
//! Invariant: `no_std` without features, so that the eBPF programs can use it.
#![cfg_attr(not(feature = "cni"), no_std)]

#[cfg(feature = "cni")]
pub mod cni;
pub mod map;
pub mod pin;
#[cfg(feature = "user")]
mod pod;
pub mod route;
