//! Roots as they are kept: `<serial>.crt` and `<serial>.key` in a directory or a Secret.
//!
//! In:  the directory, or named bytes.
//! Out: the roots that can be used, what is wrong with the others, and which one signs.
//! Invariant: a root whose files are damaged, foreign or exposed is named and left aside, and stops nobody.

use super::CaError;
use super::mint::{Authority, root_name, root_uri};
use crate::identity::explain;
use crate::identity::files;
use crate::identity::peer::validity;
use crate::model::TrustDomain;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use webpki::EndEntityCert;

/// A root.
#[derive(Clone)]
pub(in crate::identity) struct Root {
    /// Its serial number, in hexadecimal digits.
    pub(in crate::identity) serial: String,
    /// What peers trust.
    pub(in crate::identity) certificate: CertificateDer<'static>,
    /// When it was made.
    pub(in crate::identity) not_before: SystemTime,
    /// When it ends.
    pub(in crate::identity) not_after: SystemTime,
    /// Since when everybody can know it.
    pub(in crate::identity) trusted_since: SystemTime,
    /// What signs; absent when only the certificate can be used.
    pub(in crate::identity) authority: Option<Arc<Authority>>,
}

/// What a directory or a Secret holds.
pub(in crate::identity) struct Roots {
    /// Those that can be used, by serial number.
    pub(in crate::identity) roots: Vec<Root>,
    /// What is wrong with the others.
    pub(in crate::identity) faults: Vec<CaError>,
}

/// Reads every root of a directory.
pub(super) fn load(dir: &Path, trust_domain: &TrustDomain) -> Result<Roots, CaError> {
    let mut found = Roots { roots: Vec::new(), faults: Vec::new() };
    for path in files::list(dir, "crt")? {
        let certificate = read(&path);
        let key = || read(&path.with_extension("key"));
        found.add(&path, trust_domain, certificate, key);
    }
    Ok(found)
}

impl Roots {
    /// Takes up the root whose certificate is kept as `path`, and its key beside it.
    pub(in crate::identity) fn add(
        &mut self,
        path: &Path,
        trust_domain: &TrustDomain,
        certificate: Result<Vec<u8>, CaError>,
        key: impl FnOnce() -> Result<Vec<u8>, CaError>,
    ) {
        match certificate.and_then(|bytes| parse_certificate(path, &bytes, trust_domain)) {
            Ok(mut root) => {
                let path = path.with_extension("key");
                match key().and_then(|bytes| parse_key(&path, &bytes, &root)) {
                    Ok(authority) => root.authority = Some(Arc::new(authority)),
                    Err(fault) => self.faults.push(fault),
                }
                self.roots.push(root);
            }
            Err(fault) => self.faults.push(fault),
        }
    }
}

pub(in crate::identity) fn damaged(path: &Path, reason: impl Into<String>) -> CaError {
    CaError::Damaged { path: path.to_owned(), reason: reason.into() }
}

fn read(path: &Path) -> Result<Vec<u8>, CaError> {
    files::read_private(path)?.ok_or_else(|| damaged(path, "it is missing"))
}

/// The bytes of the one section of a PEM file.
fn section(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, CaError> {
    let section = pem::parse(bytes).map_err(|error| damaged(path, explain(&error)))?;
    Ok(section.into_contents())
}

fn parse_certificate(path: &Path, bytes: &[u8], trust_domain: &TrustDomain) -> Result<Root, CaError> {
    let certificate = CertificateDer::from(section(path, bytes)?);
    let parsed = EndEntityCert::try_from(&certificate).map_err(|error| damaged(path, explain(&error)))?;
    let serial: String = parsed.serial().iter().map(|byte| format!("{byte:02x}")).collect();
    if path.file_stem().is_none_or(|stem| stem.as_encoded_bytes() != serial.as_bytes()) {
        return Err(damaged(path, format!("its serial number is {serial}")));
    }
    if !parsed.subject().ends_with(root_name(&serial).as_bytes()) {
        return Err(damaged(path, "its subject is not the one this CA gives"));
    }
    let mut uris = parsed.valid_uri_names();
    if (uris.next(), uris.next()) != (Some(root_uri(trust_domain).as_str()), None) {
        return Err(CaError::ForeignRoot { path: path.to_owned(), expected: trust_domain.clone() });
    }
    let (not_before, not_after) = validity(&parsed).map_err(|error| damaged(path, explain(&error)))?;
    drop(uris);
    Ok(Root { serial, certificate, not_before, not_after, trusted_since: not_before, authority: None })
}

fn parse_key(path: &Path, bytes: &[u8], root: &Root) -> Result<Authority, CaError> {
    let der = PrivatePkcs8KeyDer::from(section(path, bytes)?);
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| damaged(path, explain(&error)))?;
    if !belongs(&key, &root.certificate)? {
        return Err(damaged(path, "it is not the key of its certificate"));
    }
    Authority::new(&root.certificate, key, Vec::new(), root.not_after).map_err(CaError::Mint)
}

/// Is this the key of that certificate?
pub(in crate::identity) fn belongs(key: &KeyPair, certificate: &CertificateDer<'_>) -> Result<bool, CaError> {
    let parsed = EndEntityCert::try_from(certificate).map_err(CaError::Encode)?;
    Ok(key.subject_public_key_info() == parsed.subject_public_key_info().as_ref())
}

/// The root to sign with: the newest that everybody has had time to trust, else the one known the longest.
pub(in crate::identity) fn signer(roots: &[Root], now: SystemTime, overlap: Duration) -> Option<&Root> {
    let able = || roots.iter().filter(|root| now < root.not_after && root.authority.is_some());
    let age = |root: &&Root| (root.trusted_since, root.not_before, root.serial.clone());
    let known = able().filter(|root| root.trusted_since + overlap <= now).max_by_key(age);
    known.or_else(|| able().min_by_key(age))
}

/// Is the newest root that can sign past half its life?
pub(in crate::identity) fn is_aging(roots: &[Root], now: SystemTime) -> bool {
    let newest = roots.iter().filter(|root| root.authority.is_some()).max_by_key(|root| root.not_before);
    newest.is_none_or(|root| {
        let life = root.not_after.duration_since(root.not_before).unwrap_or_default();
        root.not_before + life / 2 <= now
    })
}
