//! What the users' policies say of a workload.
//!
//! In:  the `Model`'s policies and one workload.
//! Out: what is in force for it.
//! Invariant: pure; the result depends on the set of policies, not on their arrival.

pub mod mtls;

pub use mtls::{Modes, MtlsPolicies, mtls_modes};
