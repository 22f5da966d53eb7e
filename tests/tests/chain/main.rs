//! The plugin in the container runtime's chain: how it gets there, and what it does when it is called.

mod place;
mod plugin;
mod scripted;
