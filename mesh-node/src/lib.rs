//! The mesh's one daemon per node.
//!
//! The architecture, the code map and the invariants are in [`architecture`].

pub mod admin;
pub mod announce;
pub mod api;
pub mod app;
pub mod chain;
pub mod cluster;
pub mod compile;
pub mod config;
pub mod control;
pub mod identity;
pub mod model;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod share;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod steer;
pub mod sys;
pub mod telemetry;
pub mod translate;
pub mod why;
pub mod world;

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}
