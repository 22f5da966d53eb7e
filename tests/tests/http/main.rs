//! HTTP through the mesh, as clients and servers meet it.

mod abuse;
mod arriving;
mod edge;
mod grpc;
mod limits;
mod names;
mod outside;
mod policy;
mod protocols;
mod resilience;
mod rollouts;
mod routing;
mod streams;
mod support;
