//! Certificates in the making.
//!
//! In:  what a certificate should say, and the time.
//! Out: signed certificates.
//! Invariant: a workload's certificate says no more than SPIFFE asks for, and never outlives its root.
//! Source: SPIFFE X509-SVID sections 2 to 4 and appendix A; RFC 5280 sections 4.1 and 4.2.

use super::CaError;
use crate::identity::svid::encode;
use crate::model::{Identity, TrustDomain};
use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// How far a node's clock may be behind: a certificate begins so long before it is made.
pub(in crate::identity) const SKEW: Duration = Duration::from_secs(60);

/// A root, as it is kept.
pub(in crate::identity) struct NewRoot {
    pub(in crate::identity) serial: String,
    pub(in crate::identity) key_pem: String,
    pub(in crate::identity) certificate_pem: String,
}

/// What signs the certificates of workloads: a root, or an intermediate under one.
pub(in crate::identity) struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    /// What a workload shows between its certificate and the root; the signing one first.
    intermediates: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
}

impl Authority {
    /// An authority that signs with `key`, which belongs to `certificate`.
    ///
    /// **Errors**: the certificate is not one of an authority, or cannot be read.
    pub(in crate::identity) fn new(
        certificate: &CertificateDer<'_>,
        key: KeyPair,
        intermediates: Vec<CertificateDer<'static>>,
        not_after: SystemTime,
    ) -> Result<Self, rcgen::Error> {
        let issuer = rcgen::Issuer::from_ca_cert_der(certificate, key)?;
        Ok(Self { issuer, intermediates, not_after })
    }
}

/// The common name of a root: distinct for each, so that a chain leads to one root only.
pub(super) fn root_name(serial: &str) -> String {
    format!("mesh root {serial}")
}

/// The SPIFFE ID of a root: its trust domain.
pub(super) fn root_uri(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}")
}

fn subject(serial: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, root_name(serial));
    name
}

/// Sixteen random bytes that read as a positive number without a leading zero.
fn serial() -> Result<[u8; 16], CaError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

/// Makes a root that is valid from now on.
pub(in crate::identity) fn root(
    trust_domain: &TrustDomain,
    ttl: Duration,
    now: SystemTime,
) -> Result<NewRoot, CaError> {
    let number = serial()?;
    let serial: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&number));
    params.distinguished_name = subject(&serial);
    params.subject_alt_names = vec![uri(&root_uri(trust_domain))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now.into();
    params.not_after = whole_second_after(now + ttl);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Mint)?;
    let certificate = params.self_signed(&key).map_err(CaError::Mint)?;
    Ok(NewRoot {
        serial,
        key_pem: encode(&[Pem::new("PRIVATE KEY", key.serialized_der())]),
        certificate_pem: encode(&[Pem::new("CERTIFICATE", certificate.der().as_ref())]),
    })
}

/// Signs a workload's certificate, which lives for `ttl` from now on. Returns it with what leads to the root.
///
/// **Units**: from first to last second it is `ttl` and [`SKEW`], and no longer than what signs.
pub(in crate::identity) fn svid(
    authority: &Authority,
    (identity, key): (&Identity, &dyn PublicKeyData),
    ttl: Duration,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    // Without a subject, the name in the extension is critical.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(&identity.to_string())?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - SKEW).into();
    params.not_after = whole_second_after(now + ttl).min(authority.not_after.into());
    let certificate = params.signed_by(&key, &authority.issuer).map_err(CaError::Mint)?;
    Ok([vec![certificate.into()], authority.intermediates.clone()].concat())
}

fn uri(text: &str) -> Result<SanType, CaError> {
    Ok(SanType::URI(text.try_into().map_err(CaError::Mint)?))
}

/// Certificates know whole seconds only; cutting one off would matter to a short life.
fn whole_second_after(time: SystemTime) -> OffsetDateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    (UNIX_EPOCH + Duration::from_secs(seconds)).into()
}
