//! Calico: network policies.
//!
//! In:  selectors as written.
//! Out: the model's word for them.
//! Source: Calico `projectcalico.org/v3`.

mod label;
mod selector;

pub use label::Whose;
pub use selector::{SelectorError, parse as selector};
