//! Calico itself says what its policies mean: its own code and ours are asked the same.

mod felix;
mod ours;
mod random;
mod selectors;
mod store;
