//! What the suites and the demo share.
//!
//! Out: [`bookinfo`], the small services of the demo.

pub mod bookinfo;
