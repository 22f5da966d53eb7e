//! Where changes of the world come from.
//!
//! Out: `world::Change`s, each source in its own order.
//! Invariant: nothing is interpreted beyond what an object's kind and name are.

pub mod file;
