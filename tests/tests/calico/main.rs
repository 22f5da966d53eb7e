//! Calico itself says what its policies mean: its own code and ours are asked the same. And what all policies together mean is what
//! then happens to real flows.

mod dikastes;
mod felix;
mod live;
mod ours;
mod random;
mod selectors;
mod store;
