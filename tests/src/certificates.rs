//! Certificates that openssl makes, as files.
//!
//! Invariant: keys are of P-256, as those of the mesh; what is made is good for two days.
//! Source: openssl-req(1).

use crate::env;
use crate::exec::checked;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

impl Certificate {
    /// The files of this name.
    fn named(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }

    /// Makes one that vouches for itself, with an extension such as `subjectAltName=DNS:www.example.com`.
    ///
    /// **Errors**: openssl is not installed, or fails.
    pub fn alone(dir: &Path, name: &str, extension: &str) -> Result<Self> {
        Self::make(dir, name, ["-addext", extension])
    }

    /// Makes one of an authority, which is such a certificate with the right to sign.
    ///
    /// **Errors**: as [`Certificate::alone`].
    pub fn authority(dir: &Path, name: &str) -> Result<Self> {
        Self::alone(dir, name, "keyUsage=critical,keyCertSign,cRLSign")
    }

    /// Makes one for these names, as in `DNS:www.example.com` or `URI:spiffe://a/b`, by an authority of the same directory.
    ///
    /// **Errors**: as [`Certificate::alone`].
    pub fn signed(dir: &Path, authority: &str, name: &str, names: &str) -> Result<Self> {
        let Self { certificate, key } = Self::named(dir, authority);
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        let names = format!("subjectAltName={names}");
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        let extensions = ["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE", "-addext", usage];
        Self::make(dir, name, extensions.into_iter().chain(["-CA", &certificate, "-CAkey", &key]))
    }

    fn make<'a>(dir: &Path, name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let own = Self::named(dir, name);
        let mut openssl = Command::new(env::system("openssl")?);
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", &format!("/CN={name}")]).args(arguments);
        checked(openssl.arg("-out").arg(&own.certificate).arg("-keyout").arg(&own.key))?;
        Ok(own)
    }
}
