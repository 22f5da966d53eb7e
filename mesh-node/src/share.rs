//! Ways to hold the same thing once.
//!
//! Out: [`Map`], of which a changed copy shares what did not change; [`Interner`], which gives equal values one place;
//!      [`Claims`], which knows who else claims what one holds.
//! Invariant: no knowledge of what is held.

mod claims;
mod intern;
mod map;

pub use claims::Claims;
pub use intern::Interner;
pub use map::Map;
