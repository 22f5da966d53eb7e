//! The kernel suite: every program loads, and packets in pods' namespaces go where the design says.
//!
//! In:  a kernel, root, the commands `ip` of iproute2; nothing else of the mesh runs.
//! Invariant: each test has namespaces, pins and state of its own, named after it, and removes them.

mod restore;
mod stories;
mod support;
mod takeover;
mod verifier;
