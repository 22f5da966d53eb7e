//! Who signs certificates.
//!
//! In:  a [`Request`] with a key.
//! Out: a certificate chain and the bundle.
//! Invariant: the private key signs the request, and leaves the node with none of them.

pub(super) mod cluster;
mod csr;
mod pod_certificate;

use super::Bundle;
use crate::model::Identity;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A future behind a pointer, so that issuers can be exchanged at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A pod of this node that runs under an identity; its namespace is the identity's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    /// Its name.
    pub pod: Arc<str>,
    /// Its UID; empty when it is not known.
    pub uid: Arc<str>,
}

/// The identities wanted on a node, each with a pod that bears it.
pub type Wanted = BTreeMap<Arc<Identity>, Bearer>;

/// A certificate wanted.
pub struct Request<'a> {
    /// For whom.
    pub identity: &'a Identity,
    /// On whose behalf.
    pub bearer: &'a Bearer,
    /// The key made for it, which signs the request; its private half is told to nobody.
    pub key: &'a KeyPair,
    /// How long it should live; an issuer may give less.
    pub ttl: Duration,
}

/// Signs certificates and tells which roots to trust.
pub trait Issuer: Send + Sync {
    /// A chain for the request, the workload's certificate first, without the root.
    fn issue<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Vec<CertificateDer<'static>>, IssueError>>;

    /// The roots of the trust domain, and what is wrong with some of them. Asked every few seconds.
    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>>;
}

/// Why there is no certificate, or no bundle.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The issuer does not give certificates for this identity.
    #[error("the issuer refuses the identity {identity}: {reason}")]
    Refused {
        /// The identity.
        identity: Box<Identity>,
        /// The issuer's reason.
        reason: String,
    },
    /// The issuer cannot be reached or cannot sign.
    #[error("the issuer is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A root is damaged, foreign or exposed, and left aside.
    #[error("a root is not used")]
    UnusableRoot(#[source] Box<dyn Error + Send + Sync>),
    /// The issuer did not answer in time.
    #[error("the issuer did not answer within {0:?}")]
    TimedOut(Duration),
    /// What was issued does not prove the identity.
    #[error("what was issued cannot be used")]
    Unusable(#[source] Box<dyn Error + Send + Sync>),
}

impl IssueError {
    /// A short stable id, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::UnusableRoot(_) => "unusable_root",
            Self::TimedOut(_) => "timed_out",
            Self::Unusable(_) => "unusable_certificate",
        }
    }
}
