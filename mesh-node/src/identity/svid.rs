//! A certificate with its key, as it is used and as it lies on disk.
//!
//! In:  a chain and a private key, from an issuer or from a file.
//! Out: [`Svid`]; its PEM form, key first.
//! Invariant: key, certificate and identity belong together.
//! Source: SPIFFE X509-SVID sections 2 to 4; RFC 7468.

use super::peer::{self, Purpose, validity};
use super::tls::provider;
use super::{Bundle, PeerError, clock};
use crate::model::Identity;
use pem::Pem;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::time::SystemTime;
use webpki::EndEntityCert;

const KEY_TAG: &str = "PRIVATE KEY";
const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// One identity's certificate and key.
#[derive(Clone, Debug)]
pub(super) struct Svid {
    /// Chain and key, ready for rustls.
    pub(super) key: Arc<CertifiedKey>,
    /// When it begins.
    pub(super) not_before: SystemTime,
    /// When it ends.
    pub(super) not_after: SystemTime,
}

/// Why a certificate and a key are not somebody's SVID.
#[derive(Debug, thiserror::Error)]
pub(super) enum SvidError {
    #[error("this is not PEM")]
    Pem(#[source] pem::PemError),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("key and certificate do not belong together, or cannot be read")]
    Key(#[source] rustls::Error),
    #[error("the certificate does not prove the identity")]
    Certificate(#[source] PeerError),
    #[error("the certificate is that of {found}")]
    OtherIdentity { found: Identity },
}

impl Svid {
    /// Takes what was issued for a key.
    pub(super) fn new(
        identity: &Identity,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, SvidError> {
        let found = peer::peer(&chain).map_err(SvidError::Certificate)?.identity;
        if found != *identity {
            return Err(SvidError::OtherIdentity { found });
        }
        let key = CertifiedKey::from_der(chain, key, provider()).map_err(SvidError::Key)?;
        let leaf = key.end_entity_cert().map_err(SvidError::Key)?;
        let (not_before, not_after) = EndEntityCert::try_from(leaf)
            .and_then(|leaf| validity(&leaf))
            .map_err(|error| SvidError::Certificate(error.into()))?;
        Ok(Self { key: Arc::new(key), not_before, not_after })
    }

    /// Takes what [`to_pem`] wrote.
    pub(super) fn from_pem(identity: &Identity, bytes: &[u8]) -> Result<Self, SvidError> {
        let sections = pem::parse_many(bytes).map_err(SvidError::Pem)?;
        let tagged = |tag| sections.iter().filter(move |section| section.tag() == tag);
        let key = tagged(KEY_TAG).next().ok_or(SvidError::Missing("the private key"))?;
        let chain: Vec<_> =
            tagged(CERTIFICATE_TAG).map(|section| CertificateDer::from(section.contents().to_vec())).collect();
        if chain.is_empty() {
            return Err(SvidError::Missing("the certificate"));
        }
        Self::new(identity, chain, PrivatePkcs8KeyDer::from(key.contents().to_vec()).into())
    }

    /// Would peers with this bundle accept it, on either side of a connection?
    pub(super) fn check(&self, bundle: &Bundle, now: SystemTime) -> Result<(), PeerError> {
        let (leaf, intermediates) = self.key.cert.split_first().ok_or(PeerError::NoCertificate)?;
        for purpose in [Purpose::Client, Purpose::Server] {
            peer::verify(leaf, intermediates, bundle, purpose, clock::unix(now))?;
        }
        Ok(())
    }
}

/// A key and its chain in one text, so that one rename replaces both.
pub(super) fn to_pem(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> String {
    let mut sections = vec![Pem::new(KEY_TAG, key.secret_der())];
    sections.extend(chain.iter().map(certificate_section));
    encode(&sections)
}

pub(super) fn certificate_section(certificate: &CertificateDer<'_>) -> Pem {
    Pem::new(CERTIFICATE_TAG, certificate.as_ref())
}

/// PEM with the line ends of Unix.
pub(super) fn encode(sections: &[Pem]) -> String {
    pem::encode_many_config(sections, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
