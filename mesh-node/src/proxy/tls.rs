//! TLS as the proxy speaks it: between nodes rustls negotiates and the record layer works in place; to the outside all is rustls'.
//!
//! Out: [`handshake`], which turns a TCP connection and an identity into keys, and [`record`], which uses them; [`outside`].
//! Invariant: no certificate of the mesh is judged here; `identity` does that.
//! Source: RFC 8446; rustls' `kernel` module, which hands out the traffic secrets as for kernel TLS.

pub(crate) mod handshake;
pub(crate) mod outside;
pub(crate) mod record;
