//! What a peer's certificates prove, and why a handshake was refused.
//!
//! In:  a certificate chain, a bundle, a purpose and the time; or what rustls says of a failed handshake.
//! Out: [`Peer`] or [`PeerError`]; a stable id for each refusal.
//! Invariant: pure; a chain whose leaf claims another trust domain is refused as such, whatever else is wrong with it.
//! Source: SPIFFE X509-SVID section 5; RFC 5280 section 6.

use super::Bundle;
use super::clock::{system, unix};
use super::tls::provider;
use crate::model::Identity;
use rustls::AlertDescription;
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use webpki::{EndEntityCert, KeyUsage};

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The identity its certificate proves.
    pub identity: Identity,
    /// When the certificate expires.
    pub not_after: SystemTime,
}

/// What a peer does with its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It dialled us.
    Client,
    /// We dialled it.
    Server,
}

/// Why a peer's certificates prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It showed none.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// It cannot be read, or breaks a rule of RFC 5280.
    #[error("the peer's certificate is malformed")]
    Malformed(#[source] webpki::Error),
    /// It expired.
    #[error("the peer's certificate has expired")]
    Expired {
        /// When we looked.
        time: UnixTime,
        /// When it ended.
        not_after: UnixTime,
    },
    /// It is not valid yet.
    #[error("the peer's certificate is not valid yet: compare the clocks")]
    NotYetValid {
        /// When we looked.
        time: UnixTime,
        /// When it begins.
        not_before: UnixTime,
    },
    /// It leads to no root of the bundle.
    #[error("the peer's certificate is signed by no root of the bundle")]
    Untrusted,
    /// It belongs to another authority.
    #[error("the peer's identity {identity} is not of the trust domain {expected}")]
    ForeignTrustDomain {
        /// What it claims.
        identity: Box<Identity>,
        /// The authority we accept.
        expected: Arc<str>,
    },
    /// It names no workload, or more than one.
    #[error("the peer's certificate does not have exactly one URI that names a workload: {found:?}")]
    NoSpiffeId {
        /// The URIs it has.
        found: Vec<String>,
    },
    /// It is not for this side of a connection.
    #[error("the peer's certificate is not meant for its side of a connection")]
    WrongPurpose,
}

impl PeerError {
    /// A short stable id, for metrics and access records.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_client_certificate",
            Self::Malformed(_) => "bad_certificate",
            Self::Expired { .. } => "expired_certificate",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Untrusted => "untrusted_root",
            Self::ForeignTrustDomain { .. } => "foreign_trust_domain",
            Self::NoSpiffeId { .. } => "no_spiffe_id",
            Self::WrongPurpose => "wrong_purpose",
        }
    }
}

impl From<webpki::Error> for PeerError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; the rest is malformed in some way")]
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { time, not_after } => Self::Expired { time, not_after },
            webpki::Error::CertNotValidYet { time, not_before } => Self::NotYetValid { time, not_before },
            // A signature that does not verify is that of a stranger with our root's name.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Self::Untrusted,
            webpki::Error::RequiredEkuNotFoundContext(_) => Self::WrongPurpose,
            other => Self::Malformed(other),
        }
    }
}

impl From<PeerError> for rustls::Error {
    /// Keeps rustls's own variants where they exist, since they decide which alert the peer sees.
    fn from(error: PeerError) -> Self {
        let error = match error {
            PeerError::NoCertificate => return Self::NoCertificatesPresented,
            PeerError::Expired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
            PeerError::NotYetValid { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
            PeerError::Untrusted => CertificateError::UnknownIssuer,
            PeerError::WrongPurpose => CertificateError::InvalidPurpose,
            PeerError::Malformed(_) | PeerError::ForeignTrustDomain { .. } | PeerError::NoSpiffeId { .. } => {
                CertificateError::Other(rustls::OtherError(Arc::new(error)))
            }
        };
        Self::InvalidCertificate(error)
    }
}

/// Who a verified chain says the peer is.
///
/// **Errors**: the chain is empty, or its first certificate names no workload.
pub fn peer(certs: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
    let leaf = EndEntityCert::try_from(certs.first().ok_or(PeerError::NoCertificate)?)?;
    let (_, not_after) = validity(&leaf)?;
    Ok(Peer { identity: claimed(&leaf)?, not_after })
}

/// Checks everything a chain must satisfy, and says who the peer is.
pub(super) fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &Bundle,
    purpose: Purpose,
    now: UnixTime,
) -> Result<Peer, PeerError> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let claimed = claimed(&leaf);
    if let Ok(identity) = &claimed
        && identity.trust_domain != *bundle.trust_domain()
    {
        let (identity, expected) = (Box::new(identity.clone()), bundle.trust_domain().clone());
        return Err(PeerError::ForeignTrustDomain { identity, expected });
    }
    let usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server => KeyUsage::server_auth(),
    };
    let algorithms = provider().signature_verification_algorithms.all;
    leaf.verify_for_usage(algorithms, bundle.anchors(), intermediates, now, usage, None, None)?;
    let (_, not_after) = validity(&leaf)?;
    Ok(Peer { identity: claimed?, not_after })
}

/// The identity a certificate claims in its one URI.
fn claimed(leaf: &EndEntityCert<'_>) -> Result<Identity, PeerError> {
    let mut uris = leaf.valid_uri_names();
    if let (Some(uri), None) = (uris.next(), uris.next())
        && let Ok(identity) = uri.parse()
    {
        return Ok(identity);
    }
    Err(PeerError::NoSpiffeId { found: leaf.valid_uri_names().take(4).map(str::to_owned).collect() })
}

/// When a certificate begins and ends.
///
/// The path builder looks at the time of the first certificate before it looks at anything else, and names the bound
/// that was missed: asked for the first and the last second of all time, it tells both.
pub(super) fn validity(certificate: &EndEntityCert<'_>) -> Result<(SystemTime, SystemTime), webpki::Error> {
    let ask = |seconds| {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        certificate.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
    };
    let not_before = match ask(0) {
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => not_before,
        Some(error @ (webpki::Error::InvalidCertValidity | webpki::Error::BadDer | webpki::Error::BadDerTime)) => {
            return Err(error);
        }
        // Valid since 1970, when the time of certificates begins.
        Some(_) | None => unix(SystemTime::UNIX_EPOCH),
    };
    match ask(u64::MAX) {
        Some(webpki::Error::CertExpired { not_after, .. }) => Ok((system(not_before), system(not_after))),
        Some(error) => Err(error),
        None => Err(webpki::Error::InvalidCertValidity),
    }
}

/// Why a handshake failed, as a short stable id: those of [`PeerError::reason`] when we refused the peer, `peer_…`
/// when it refused us.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; the rest has one id")]
pub fn refusal(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_refusal(error),
        rustls::Error::NoCertificatesPresented => "no_client_certificate",
        rustls::Error::NoApplicationProtocol => "no_common_protocol",
        rustls::Error::PeerIncompatible(_) => "incompatible_tls",
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => "not_tls",
        rustls::Error::AlertReceived(alert) => alert_refusal(*alert),
        _ => "handshake_failed",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; the rest has one id")]
fn certificate_refusal(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired_certificate",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_yet_valid",
        CertificateError::UnknownIssuer => "untrusted_root",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "wrong_purpose",
        CertificateError::BadSignature => "bad_signature",
        CertificateError::Other(other) => other.0.downcast_ref().map_or("bad_certificate", PeerError::reason),
        _ => "bad_certificate",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; the rest has one id")]
fn alert_refusal(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => "peer_says_expired_certificate",
        AlertDescription::UnknownCA => "peer_says_untrusted_root",
        AlertDescription::CertificateRequired => "peer_says_no_client_certificate",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError => "peer_says_bad_certificate",
        AlertDescription::NoApplicationProtocol => "no_common_protocol",
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => "incompatible_tls",
        _ => "peer_says_handshake_failed",
    }
}
