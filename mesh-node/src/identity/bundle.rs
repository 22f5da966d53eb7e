//! The roots that peers' certificates must lead to.
//!
//! In:  root certificates.
//! Out: [`Bundle`], ordered, so that equal sets compare equal.
//! Invariant: a bundle belongs to one trust domain.
//! Source: SPIFFE Trust Domain and Bundle section 4; RFC 5280 section 6.1.1.

use super::clock::unix;
use super::peer::validity;
use crate::model::TrustDomain;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::time::SystemTime;
use webpki::EndEntityCert;

/// The roots of a trust domain.
#[derive(Clone, Debug)]
pub struct Bundle {
    trust_domain: TrustDomain,
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Root {
    certificate: Vec<u8>,
    not_after: SystemTime,
}

impl Bundle {
    /// A bundle of root certificates, which the caller has reason to trust.
    ///
    /// **Errors**: one of them is no certificate.
    pub fn new<'a>(
        trust_domain: TrustDomain,
        certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<Self, webpki::Error> {
        let mut roots = Vec::new();
        for certificate in certificates {
            let (_, not_after) = validity(&EndEntityCert::try_from(certificate)?)?;
            roots.push(Root { certificate: certificate.to_vec(), not_after });
        }
        roots.sort();
        roots.dedup();
        Self::of(trust_domain, roots)
    }

    fn of(trust_domain: TrustDomain, roots: Vec<Root>) -> Result<Self, webpki::Error> {
        let anchors = roots
            .iter()
            .map(|root| {
                let certificate = CertificateDer::from(root.certificate.as_slice());
                webpki::anchor_from_trusted_cert(&certificate).map(|anchor| anchor.to_owned())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { trust_domain, roots, anchors })
    }

    /// A bundle that trusts nobody.
    #[must_use]
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, roots: Vec::new(), anchors: Vec::new() }
    }

    /// The authority whose roots these are.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificates.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateDer<'_>> {
        self.roots.iter().map(|root| CertificateDer::from(root.certificate.as_slice()))
    }

    /// How many roots there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Is there no root?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The same without the roots that have expired.
    pub(super) fn at(&self, now: SystemTime) -> Self {
        let now = unix(now);
        let (roots, anchors) = self
            .roots
            .iter()
            .zip(&self.anchors)
            .filter(|(root, _)| unix(root.not_after) >= now)
            .map(|(root, anchor)| (root.clone(), anchor.clone()))
            .unzip();
        Self { trust_domain: self.trust_domain.clone(), roots, anchors }
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.roots == other.roots
    }
}

impl Eq for Bundle {}
