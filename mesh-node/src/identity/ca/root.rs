//! Roots as they lie in the CA's directory.
//!
//! In:  the directory.
//! Out: the roots that can be used, what is wrong with the others, and which one signs.
//! Invariant: a root whose files are damaged, foreign or exposed is named and left aside, and stops nobody.

use super::CaError;
use super::mint::{root_name, root_uri};
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

/// A root of ours.
#[derive(Clone)]
pub(super) struct Root {
    /// Its serial number, in hexadecimal digits.
    pub(super) serial: String,
    /// What peers trust.
    pub(super) certificate: CertificateDer<'static>,
    /// When it was made.
    pub(super) not_before: SystemTime,
    /// When it ends.
    pub(super) not_after: SystemTime,
    /// What signs; absent when only the certificate can be used.
    pub(super) key: Option<Arc<KeyPair>>,
}

/// What a directory holds.
pub(super) struct Roots {
    /// Those that can be used, by serial number.
    pub(super) roots: Vec<Root>,
    /// What is wrong with the others.
    pub(super) faults: Vec<CaError>,
}

/// Reads every root.
pub(super) fn load(dir: &Path, trust_domain: &TrustDomain) -> Result<Roots, CaError> {
    let mut found = Roots { roots: Vec::new(), faults: Vec::new() };
    for path in files::list(dir, "crt")? {
        match load_certificate(&path, trust_domain) {
            Ok(mut root) => {
                match load_key(&path, &root) {
                    Ok(key) => root.key = Some(Arc::new(key)),
                    Err(fault) => found.faults.push(fault),
                }
                found.roots.push(root);
            }
            Err(fault) => found.faults.push(fault),
        }
    }
    Ok(found)
}

fn damaged(path: &Path, reason: impl Into<String>) -> CaError {
    CaError::Damaged { path: path.to_owned(), reason: reason.into() }
}

/// The bytes of the one section of a PEM file.
fn section(path: &Path) -> Result<Vec<u8>, CaError> {
    let bytes = files::read_private(path)?.ok_or_else(|| damaged(path, "it is missing"))?;
    let section = pem::parse(bytes).map_err(|error| damaged(path, explain(&error)))?;
    Ok(section.into_contents())
}

fn load_certificate(path: &Path, trust_domain: &TrustDomain) -> Result<Root, CaError> {
    let certificate = CertificateDer::from(section(path)?);
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
    Ok(Root { serial, certificate, not_before, not_after, key: None })
}

fn load_key(certificate_path: &Path, root: &Root) -> Result<KeyPair, CaError> {
    let path = certificate_path.with_extension("key");
    let der = PrivatePkcs8KeyDer::from(section(&path)?);
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| damaged(&path, explain(&error)))?;
    let parsed = EndEntityCert::try_from(&root.certificate).map_err(CaError::Encode)?;
    if key.subject_public_key_info() != parsed.subject_public_key_info().as_ref() {
        return Err(damaged(&path, "it is not the key of its certificate"));
    }
    Ok(key)
}

/// The root to sign with: the newest that everybody has had time to trust, else the one known the longest.
pub(super) fn signer(roots: &[Root], now: SystemTime, overlap: Duration) -> Option<(&Root, &KeyPair)> {
    let unexpired = || roots.iter().filter(|root| now < root.not_after);
    let able = || unexpired().filter_map(|root| Some((root, root.key.as_deref()?)));
    let age = |(root, _): &(&Root, &KeyPair)| (root.not_before, root.serial.clone());
    let known = able().filter(|(root, _)| root.not_before + overlap <= now).max_by_key(age);
    known.or_else(|| able().min_by_key(age))
}

/// Is the newest root that can sign past half its life?
pub(super) fn is_aging(roots: &[Root], now: SystemTime) -> bool {
    let newest = roots.iter().filter(|root| root.key.is_some()).max_by_key(|root| root.not_before);
    newest.is_none_or(|root| {
        let life = root.not_after.duration_since(root.not_before).unwrap_or_default();
        root.not_before + life / 2 <= now
    })
}
