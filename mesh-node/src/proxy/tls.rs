//! TLS 1.3 as the proxy speaks it: rustls negotiates, the record layer works in place.
//!
//! Out: [`handshake`], which turns a TCP connection and an identity into keys, and [`record`], which uses them.
//! Invariant: no certificate is judged here; `identity` does that.
//! Source: RFC 8446; rustls' `kernel` module, which hands out the traffic secrets as for kernel TLS.

pub(crate) mod handshake;
pub(crate) mod record;
