//! What the users' policies say of a workload.
//!
//! In:  the `Model`'s policies and one workload; a compiled chain and one connection or request.
//! Out: what is in force for it; a verdict, and the rule that gave it.
//! Invariant: pure; the result depends on the set of policies, not on their arrival.

pub mod chain;
pub mod flow;
mod group;
pub mod judge;
pub mod mtls;
pub mod path;

pub use chain::Chains;
pub use flow::{Flow, Party, Proof, Request, Sni, Spoken};
pub use group::Group;
pub use judge::{By, Told, Verdict, judge};
pub use mtls::{Modes, MtlsPolicies, mtls_modes};
