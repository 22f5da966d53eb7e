//! The users' objects as their APIs define them, with only the fields that are read.
//!
//! In:  documents of Kubernetes and Istio, as YAML or JSON.
//! Out: plain data, one type per kind.
//! Invariant: nothing is interpreted here; `null` and absence are the same.
//! Source: the Kubernetes API reference (core/v1, discovery.k8s.io/v1); Istio `security.istio.io/v1`,
//! `networking.istio.io/v1`; Gateway API `gateway.networking.k8s.io/v1`.

pub mod announcement;
pub mod apps;
pub mod core;
pub mod custom;
pub mod discovery;
pub mod istio;
pub mod listening;
pub mod meta;
pub mod secret;
