//! Where objects and pods come from.
//!
//! Out: [`mod@file`] and [`kube`]: the users' objects; [`cni`] and [`running`]: what the container runtime attached to
//! this node.
//! Invariant: a source says when it has told everything it knows; nothing is swept before.

pub mod cni;
pub mod file;
pub mod kube;
pub mod running;
