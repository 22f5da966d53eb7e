//! The embedded CA: roots in a directory that daemons share.
//!
//! In:  a private directory with `<serial>.crt` and `<serial>.key` per root.
//! Out: an [`Issuer`]; [`rotate`] adds a root.
//! Invariant: every unexpired root is trusted; a root signs only when every daemon has had time to trust it, so that
//! old and new peers can talk at every step; roots are made under a lock, the key before the certificate, so a root
//! that is seen is whole; no file is ever changed.
//! Source: SPIFFE X509-SVID sections 2 to 4; RFC 5280 section 4.

pub(super) mod mint;
pub(super) mod root;

use super::files::{self, FileError};
use super::{BoxFuture, Bundle, Clock, Config, IssueError, Issuer, Request};
use crate::model::TrustDomain;
use root::{Root, Roots};
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long to wait for another daemon that makes a root.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Why the embedded CA cannot sign, or a root is left aside.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be used.
    #[error("the CA's directory cannot be used")]
    File(#[from] FileError),
    /// A root's files contradict each other or cannot be read.
    #[error("the root `{path}` is not used: {reason}")]
    Damaged {
        /// The root's certificate.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A root of another authority.
    #[error("the root `{path}` is not used: it is not of the trust domain {expected}")]
    ForeignRoot {
        /// The root's certificate.
        path: PathBuf,
        /// The authority expected.
        expected: TrustDomain,
    },
    /// Every root is gone from the directory.
    #[error("there is no root in `{dir}` any more; the ones known before remain in use")]
    NoRoots {
        /// The CA's directory.
        dir: PathBuf,
    },
    /// No unexpired root has a key.
    #[error("no root in `{dir}` can sign")]
    NoSigner {
        /// The CA's directory.
        dir: PathBuf,
    },
    /// A key or certificate could not be made.
    #[error("a certificate cannot be made")]
    Mint(#[source] rcgen::Error),
    /// A certificate just made cannot be read back.
    #[error("a certificate just made cannot be read back")]
    Encode(#[source] webpki::Error),
    /// There is no randomness.
    #[error("the system has no randomness to give")]
    Random,
}

/// Adds a root, which every daemon trusts within seconds and signs with after its overlap. Returns its serial number.
///
/// **Errors**: the directory cannot be used, or another process holds its lock for too long.
pub fn rotate(dir: &Path, trust_domain: &TrustDomain, ttl: Duration, now: SystemTime) -> Result<String, CaError> {
    files::private_dir(dir)?;
    let _lock = lock(dir, LOCK_PATIENCE)?;
    add(dir, trust_domain, ttl, now)
}

fn lock(dir: &Path, patience: Duration) -> Result<std::fs::File, FileError> {
    files::lock(&dir.join("lock"), patience)
}

/// Makes a root. The caller holds the lock.
///
/// Certificates tell seconds. A root is younger than every other by one at least, so that all agree which is the newest.
fn add(dir: &Path, trust_domain: &TrustDomain, ttl: Duration, now: SystemTime) -> Result<String, CaError> {
    let found = root::load(dir, trust_domain)?;
    // One from far in the future is of a clock that was wrong; it is no measure.
    let near = |begin: &SystemTime| *begin <= now + Duration::from_secs(60);
    let newest = found.roots.iter().map(|root| root.not_before).filter(near).max();
    let begin = newest.map_or(now, |newest| now.max(newest + Duration::from_secs(1)));
    let new = mint::root(trust_domain, ttl, begin)?;
    files::write_private(&dir.join(format!("{}.key", new.serial)), new.key_pem.as_bytes())?;
    files::write_private(&dir.join(format!("{}.crt", new.serial)), new.certificate_pem.as_bytes())?;
    tracing::info!(serial = new.serial, trust_domain = &**trust_domain, "made a root certificate");
    Ok(new.serial)
}

/// Signs with the roots of a directory.
pub struct EmbeddedCa {
    dir: PathBuf,
    trust_domain: TrustDomain,
    root_ttl: Duration,
    overlap: Duration,
    clock: Clock,
    roots: Mutex<Arc<Vec<Root>>>,
}

impl EmbeddedCa {
    /// Opens the directory. Makes it, and a first root, where there is none that can sign.
    ///
    /// **Errors**: the directory cannot be used, or is open to other users.
    pub fn open(config: &Config, clock: Clock) -> Result<Self, CaError> {
        let (dir, trust_domain) = (config.ca_dir.clone(), config.trust_domain.clone());
        files::private_dir(&dir)?;
        let _lock = lock(&dir, LOCK_PATIENCE)?;
        let now = clock.now();
        let mut found = root::load(&dir, &trust_domain)?;
        for fault in &found.faults {
            tracing::warn!(error = super::explain(fault), "a root is left aside");
        }
        if root::signer(&found.roots, now, config.root_overlap).is_none() {
            add(&dir, &trust_domain, config.root_ttl, now)?;
            found = root::load(&dir, &trust_domain)?;
        }
        let roots = Mutex::new(Arc::new(found.roots));
        Ok(Self { dir, trust_domain, root_ttl: config.root_ttl, overlap: config.root_overlap, clock, roots })
    }

    fn roots(&self) -> Arc<Vec<Root>> {
        Arc::clone(&self.roots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn sign(&self, request: &Request<'_>) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if request.identity.trust_domain != self.trust_domain {
            return Err(IssueError::Refused {
                identity: Box::new(request.identity.clone()),
                reason: format!("this CA serves the trust domain {}", self.trust_domain),
            });
        }
        let now = self.clock.now();
        let roots = self.roots();
        root::signer(&roots, now, self.overlap)
            .and_then(|root| root.authority.as_deref())
            .ok_or_else(|| CaError::NoSigner { dir: self.dir.clone() })
            .and_then(|authority| mint::svid(authority, (request.identity, request.key), request.ttl, now))
            .map_err(unavailable)
    }

    /// Reads the directory again, and makes the next root when the newest is past half its life.
    fn refresh(&self) -> Result<(Bundle, Vec<IssueError>), CaError> {
        let now = self.clock.now();
        let mut found = root::load(&self.dir, &self.trust_domain)?;
        if found.roots.is_empty() {
            found.faults.push(CaError::NoRoots { dir: self.dir.clone() });
            found.roots = self.roots().iter().cloned().collect();
        }
        if root::is_aging(&found.roots, now) {
            match self.renew(now) {
                Ok(Some(renewed)) => found = renewed,
                // Another daemon is at it.
                Ok(None) => {}
                Err(error) => found.faults.push(error),
            }
        }
        let unexpired = found.roots.iter().filter(|root| now <= root.not_after).map(|root| &root.certificate);
        let bundle = Bundle::new(self.trust_domain.clone(), unexpired).map_err(CaError::Encode)?;
        *self.roots.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found.roots);
        let faults = found.faults.into_iter().map(|fault| IssueError::UnusableRoot(Box::new(fault))).collect();
        Ok((bundle, faults))
    }

    fn renew(&self, now: SystemTime) -> Result<Option<Roots>, CaError> {
        let _lock = match lock(&self.dir, Duration::ZERO) {
            Ok(lock) => lock,
            Err(FileError::Locked { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = root::load(&self.dir, &self.trust_domain)?;
        if !root::is_aging(&found.roots, now) {
            return Ok(Some(found));
        }
        add(&self.dir, &self.trust_domain, self.root_ttl, now)?;
        root::load(&self.dir, &self.trust_domain).map(Some)
    }
}

fn unavailable(error: CaError) -> IssueError {
    IssueError::Unavailable(Box::new(error))
}

impl Issuer for EmbeddedCa {
    fn issue<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Vec<CertificateDer<'static>>, IssueError>> {
        Box::pin(async move { self.sign(&request) })
    }

    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>> {
        Box::pin(async move { self.refresh().map_err(unavailable) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_roots_made_within_a_second_the_last_is_the_newest() {
        let dir = std::env::temp_dir().join(format!("mesh-ca-second-{}", std::process::id()));
        let (domain, now) = ("cluster.local".into(), SystemTime::now());
        let serials: Vec<_> =
            (0..5).map(|_| rotate(&dir, &domain, Duration::from_secs(3600), now).expect("a root")).collect();
        let mut roots = root::load(&dir, &domain).expect("the directory").roots;
        roots.sort_by_key(|root| root.not_before);
        let by_age: Vec<_> = roots.iter().map(|root| root.serial.clone()).collect();
        std::fs::remove_dir_all(&dir).expect("the directory goes");
        assert_eq!(by_age, serials);
    }
}
