//! The authority of a cluster: roots in a Secret, and one that an operator may supply.
//!
//! In:  the Secrets, what is published, the time.
//! Out: what signs now, what must be published.
//! Invariant: a root signs only once it has been published for the overlap, unless nothing else can sign; a supplied
//! authority is preferred to our own, under the same rule.
//! Invariant: a root is written by create or by replacement of the version that was read, so that no race makes two.
//! Source: the embedded CA's rules; Istio, "Plug in CA Certificates", for the keys of a supplied authority.

use crate::identity::Bundle;
use crate::identity::ca::CaError;
use crate::identity::ca::mint::{self, Authority};
use crate::identity::ca::root::{self, Root, Roots, belongs, damaged};
use crate::identity::clock::unix;
use crate::identity::explain;
use crate::identity::names::{CA_SECRET, SUPPLIED_SECRET};
use crate::identity::peer::{Purpose, validity, verify};
use crate::identity::trust::{self, Published, fingerprint};
use crate::model::{Identity, TrustDomain};
use k8s_openapi::ByteString;
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use webpki::EndEntityCert;

/// The keys and values of a Secret.
pub(super) type Content = BTreeMap<String, ByteString>;

/// Every root of a cluster.
#[derive(Clone, Default)]
pub(super) struct Anchors {
    /// Those that the mesh made.
    pub(super) made: Vec<Root>,
    /// Those that an operator supplied; at most one of them can sign.
    pub(super) supplied: Vec<Root>,
}

impl Anchors {
    fn all(&self) -> impl Iterator<Item = &Root> {
        self.supplied.iter().chain(&self.made)
    }

    /// Has an operator supplied what can sign?
    pub(super) fn is_supplied(&self) -> bool {
        self.supplied.iter().any(|root| root.authority.is_some())
    }

    /// Takes over since when each root has been published, and says what to publish from now on.
    pub(super) fn publish(&mut self, published: &Published, now: SystemTime) -> Published {
        let there: BTreeSet<_> = published.roots.iter().map(fingerprint).collect();
        for root in self.supplied.iter_mut().chain(&mut self.made) {
            let print = fingerprint(&root.certificate);
            let since = published.since.get(&print).filter(|_| there.contains(&print));
            root.trusted_since = since.copied().unwrap_or(now).min(now);
        }
        let mut next = Published::default();
        for root in self.all().filter(|root| now <= root.not_after) {
            if next.since.insert(fingerprint(&root.certificate), root.trusted_since).is_none() {
                next.roots.push(root.certificate.clone());
            }
        }
        next
    }

    /// What signs at this time.
    pub(super) fn signer(&self, now: SystemTime, overlap: Duration) -> Option<&Authority> {
        let known = |root: &&Root| root.trusted_since + overlap <= now && now < root.not_after;
        let supplied = self.supplied.iter().filter(|root| root.authority.is_some());
        let chosen = supplied
            .clone()
            .find(known)
            .or_else(|| root::signer(&self.made, now, overlap))
            .or_else(|| supplied.clone().find(|root| now < root.not_after));
        chosen.and_then(|root| root.authority.as_deref())
    }
}

/// How errors name a key of a Secret.
fn path(secret: &str, key: &str) -> PathBuf {
    Path::new("secret").join(secret).join(key)
}

/// Reads the roots that the mesh made.
pub(super) fn made(content: &Content, trust_domain: &TrustDomain) -> Roots {
    let mut found = Roots { roots: Vec::new(), faults: Vec::new() };
    for (key, value) in content {
        if let Some(serial) = key.strip_suffix(".crt") {
            let private = format!("{serial}.key");
            let missing = || damaged(&path(CA_SECRET, &private), "it is missing");
            let private = || content.get(&private).map(|value| value.0.clone()).ok_or_else(missing);
            found.add(&path(CA_SECRET, key), trust_domain, Ok(value.0.clone()), private);
        }
    }
    found
}

/// The content of a Secret with one more root. Returns the root's serial number.
pub(super) fn with_root(
    content: &mut Content,
    trust_domain: &TrustDomain,
    ttl: Duration,
    now: SystemTime,
) -> Result<String, CaError> {
    let new = mint::root(trust_domain, ttl, now)?;
    content.insert(format!("{}.key", new.serial), ByteString(new.key_pem.into_bytes()));
    content.insert(format!("{}.crt", new.serial), ByteString(new.certificate_pem.into_bytes()));
    Ok(new.serial)
}

/// Reads an authority that an operator supplies: `ca-cert.pem` signs with `ca-key.pem`, `cert-chain.pem` leads from it
/// to a root of `root-cert.pem`.
///
/// **Errors**: something is missing, or the authority could sign nothing that a peer accepts.
pub(super) fn supplied(content: &Content, trust_domain: &TrustDomain, now: SystemTime) -> Result<Vec<Root>, CaError> {
    let fault = |key: &str, reason: String| damaged(&path(SUPPLIED_SECRET, key), reason);
    let text = |key: &str| {
        let value = content.get(key).ok_or_else(|| fault(key, "it is missing".to_owned()))?;
        String::from_utf8(value.0.clone()).map_err(|error| fault(key, error.to_string()))
    };
    let certificates = |key: &str| trust::parse(key, &text(key)?).map_err(|error| fault(key, explain(&error)));
    let own = certificates("ca-cert.pem")?.swap_remove(0);
    let roots = certificates("root-cert.pem")?;
    // A root that signs by itself has none, or an empty one.
    let has_chain = content.get("cert-chain.pem").is_some_and(|chain| !chain.0.trim_ascii().is_empty());
    let chain = if has_chain { certificates("cert-chain.pem")? } else { Vec::new() };

    let key = PrivateKeyDer::from_pem_slice(text("ca-key.pem")?.as_bytes());
    let key = key.map_err(|error| fault("ca-key.pem", error.to_string()))?;
    let key = KeyPair::try_from(&key).map_err(|error| fault("ca-key.pem", error.to_string()))?;
    if !belongs(&key, &own)? {
        return Err(fault("ca-key.pem", "it is not the key of ca-cert.pem".to_owned()));
    }

    // A peer trusts the roots, so it is not shown them; the signing certificate comes first.
    let mut intermediates: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in [&own].into_iter().chain(&chain) {
        if !roots.contains(certificate) && !intermediates.contains(certificate) {
            intermediates.push(certificate.clone());
        }
    }
    let mut parsed = Vec::new();
    for certificate in roots {
        let (not_before, not_after) = ends(&certificate).map_err(|error| fault("root-cert.pem", explain(&error)))?;
        let serial = fingerprint(&certificate);
        parsed.push(Root { serial, certificate, not_before, not_after, trusted_since: now, authority: None });
    }
    let mut last = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 50);
    for certificate in [&own].into_iter().chain(&intermediates) {
        last = last.min(ends(certificate).map_err(|error| fault("cert-chain.pem", explain(&error)))?.1);
    }
    let authority =
        Authority::new(&own, key, intermediates, last).map_err(|error| fault("ca-cert.pem", error.to_string()))?;
    let authority = Arc::new(authority);
    let led_to = parsed.iter().map(|root| leads_to(&authority, root, trust_domain, now));
    let led_to = led_to.collect::<Result<Vec<_>, _>>()?;
    let Some(at) = led_to.iter().position(Result::is_ok) else {
        let why = led_to.into_iter().find_map(Result::err).unwrap_or_default();
        return Err(fault("cert-chain.pem", format!("a peer would refuse what ca-cert.pem signs: {why}")));
    };
    parsed[at].not_after = parsed[at].not_after.min(last);
    parsed[at].authority = Some(authority);
    Ok(parsed)
}

fn ends(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), webpki::Error> {
    validity(&EndEntityCert::try_from(certificate)?)
}

/// Would a peer that trusts `root` accept what `authority` signs? Found out by doing it; otherwise why not.
fn leads_to(
    authority: &Authority,
    root: &Root,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Result<(), String>, CaError> {
    const TRIAL: Duration = Duration::from_secs(60);
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CaError::Mint)?;
    let identity = Identity::new(trust_domain, "trial", "trial");
    let identity = match identity {
        Ok(identity) => identity,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let chain = mint::svid(authority, (&identity, &key), TRIAL, now)?;
    let bundle = Bundle::new(trust_domain.clone(), [&root.certificate]).map_err(CaError::Encode)?;
    let verified = verify(&chain[0], &chain[1..], &bundle, Purpose::Server, unix(now));
    Ok(verified.map(|_| ()).map_err(|error| explain(&error)))
}
