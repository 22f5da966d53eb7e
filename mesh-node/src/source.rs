//! Where objects and pods come from.
//!
//! Out: [`mod@file`] and [`kube`]: the users' objects; [`cni`] and [`running`]: what the container runtime attached to
//! this node; [`daemons`]: what the mesh's own daemons tell.
//! Invariant: a source says when it has told everything it knows; nothing is swept before.

pub mod cni;
pub mod daemons;
pub mod file;
pub mod kube;
pub mod running;
