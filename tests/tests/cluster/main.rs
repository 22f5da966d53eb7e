//! The mesh in a real cluster: kubelet, containerd, kube-proxy, CoreDNS, Calico's plugin and felix.
//!
//! In:  the cluster and the images that `cargo xtask test` brings up; Istio's module for its sample and definitions.
//! Invariant: tests run side by side in Kubernetes namespaces of their own; those of `survival` run alone.

mod bookinfo;
mod joining;
mod policy;
mod rights;
mod standing;
mod strict;
mod support;
mod survival;
mod untouched;
mod wire;
mod witness;
