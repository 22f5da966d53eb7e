//! Calico itself says what its policies mean: its own code and ours are asked the same.

mod random;
mod selectors;
mod store;
