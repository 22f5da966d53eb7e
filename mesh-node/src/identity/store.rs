//! Certificates on disk, for the next start.
//!
//! In:  identities with their certificates, and the bundle.
//! Out: what an earlier run left.
//! Invariant: one file per identity, named by a digest, since names of Kubernetes may be longer than names of files;
//! what is not wanted is removed.

use super::files::{self, FileError};
use super::svid::{Svid, SvidError, to_pem};
use super::{Bundle, explain, svid};
use crate::model::{Identity, TrustDomain};
use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The directory of issued certificates.
pub(super) struct Store {
    dir: PathBuf,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("a certificate on disk cannot be used")]
    File(#[from] FileError),
    #[error("`{path}` is damaged and will be replaced")]
    Damaged {
        path: PathBuf,
        #[source]
        source: SvidError,
    },
    #[error("the bundle `{path}` is damaged and will be replaced: {reason}")]
    DamagedBundle { path: PathBuf, reason: String },
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, FileError> {
        files::private_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn path(&self, identity: &Identity) -> PathBuf {
        let mut name = String::with_capacity(68);
        for byte in digest(&SHA256, identity.to_string().as_bytes()).as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name.push_str(".pem");
        self.dir.join(name)
    }

    pub(super) fn load(&self, identity: &Identity) -> Result<Option<Svid>, StoreError> {
        let path = self.path(identity);
        let Some(bytes) = files::read_private(&path)? else { return Ok(None) };
        Svid::from_pem(identity, &bytes).map(Some).map_err(|source| StoreError::Damaged { path, source })
    }

    pub(super) fn save(
        &self,
        identity: &Identity,
        chain: &[CertificateDer<'_>],
        key: &PrivateKeyDer<'_>,
    ) -> Result<(), FileError> {
        files::write_private(&self.path(identity), to_pem(chain, key).as_bytes())
    }

    pub(super) fn remove(&self, identity: &Identity) -> Result<(), FileError> {
        files::remove(&self.path(identity))
    }

    fn bundle_path(&self) -> PathBuf {
        self.dir.join("bundle.crt")
    }

    /// The last bundle, for starts without the issuer.
    pub(super) fn load_bundle(&self, trust_domain: &TrustDomain) -> Result<Bundle, StoreError> {
        let path = self.bundle_path();
        let empty = || Bundle::empty(trust_domain.clone());
        let Some(bytes) = files::read_private(&path)? else { return Ok(empty()) };
        let sections = pem::parse_many(bytes)
            .map_err(|error| StoreError::DamagedBundle { path: path.clone(), reason: explain(&error) })?;
        let certificates: Vec<_> = sections.iter().map(|section| CertificateDer::from(section.contents())).collect();
        Bundle::new(trust_domain.clone(), &certificates)
            .map_err(|error| StoreError::DamagedBundle { path, reason: explain(&error) })
    }

    pub(super) fn save_bundle(&self, bundle: &Bundle) -> Result<(), FileError> {
        let sections: Vec<_> = bundle.certificates().map(|root| svid::certificate_section(&root)).collect();
        files::write_private(&self.bundle_path(), svid::encode(&sections).as_bytes())
    }

    /// Removes what belongs to none of `wanted`, and drafts that a crash left.
    pub(super) fn sweep<'a>(&self, wanted: impl Iterator<Item = &'a Identity>) -> Result<(), FileError> {
        let keep: BTreeSet<PathBuf> = wanted.map(|identity| self.path(identity)).collect();
        for path in files::list(&self.dir, "pem")?.iter().filter(|path| !keep.contains(*path)) {
            files::remove(path)?;
        }
        for path in files::list(&self.dir, "tmp")? {
            files::remove(&path)?;
        }
        Ok(())
    }
}
