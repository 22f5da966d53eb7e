//! Ways to hold the same thing once.
//!
//! Out: [`Map`], of which a changed copy shares what did not change, and [`AddressMap`], the same by address;
//!      [`Interner`], which gives equal values one place; [`Claims`], which knows who else claims what one holds.
//! Invariant: no knowledge of what is held.

mod addresses;
mod claims;
mod intern;
mod map;

pub use addresses::{Address, AddressMap};
pub use claims::Claims;
pub use intern::{Handle, Interner};
pub use map::Map;
