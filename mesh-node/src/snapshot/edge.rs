//! What this node lets in from outside the mesh: gateways' ports, their certificates and their routes.
//!
//! In:  built by `compile` alone.
//! Out: [`Edge`].
//! Invariant: no gateway, class or Secret to look up.
//! Source: Gateway API `Gateway` for which host a request falls to: the most exact.

use super::http::RouteTable;
use super::{ByHost, WorkloadEntry};
use crate::model::{Closed, Name, ObjectRef, Text};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// Where traffic enters at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// As whom it goes on to pods.
    pub workload: Arc<WorkloadEntry>,
    /// The pod on whose behalf the edge's certificate is asked for, by name and UID; empty where there is none.
    pub bearer: (Arc<str>, Arc<str>),
    /// The ports that are listened on, ordered by port.
    pub ports: Box<[Arc<EdgePort>]>,
}

impl Edge {
    /// A port that is listened on.
    #[must_use]
    pub fn port(&self, port: u16) -> Option<&Arc<EdgePort>> {
        self.ports.binary_search_by_key(&port, |entry| entry.port).ok().map(|at| &self.ports[at])
    }

    /// What becomes of requests for a host, without port, at a port.
    #[must_use]
    pub fn host(&self, port: u16, host: &str) -> Option<&EdgeHost> {
        self.port(port)?.hosts.covering(&host.to_ascii_lowercase()).next()
    }
}

/// A port of gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgePort {
    /// The port.
    pub port: u16,
    /// The certificates by server name, where TLS is spoken.
    pub tls: Option<Arc<ByHost<Arc<Certificate>>>>,
    /// By host. A request for another one is answered 404.
    pub hosts: ByHost<EdgeHost>,
}

/// What becomes of requests for a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeHost {
    /// The routes.
    pub table: Arc<RouteTable>,
    /// Through what it is let in, in order.
    pub doors: Box<[Door]>,
}

impl EdgeHost {
    /// By what it is let in, each once: what policies say of each holds.
    pub fn entrances(&self) -> impl Iterator<Item = &Entrance> {
        self.doors
            .chunk_by(|one, other| one.entrance == other.entrance)
            .filter_map(|same| Some(&same.first()?.entrance))
    }

    /// The gateways that let something in by this.
    pub fn gateways<'h>(&'h self, entrance: &'h Entrance) -> impl Iterator<Item = &'h GatewayRef> {
        let by = self.doors.chunk_by(|one, other| (&one.entrance, &one.gateway) == (&other.entrance, &other.gateway));
        by.filter_map(|same| same.first()).filter(move |door| door.entrance == *entrance).map(|door| &*door.gateway)
    }
}

/// A listener of a gateway that lets something in; ordered by the entrance, then by the gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// As policies tell it apart.
    pub entrance: Entrance,
    /// The gateway.
    pub gateway: Arc<GatewayRef>,
    /// The listener's name.
    pub listener: Text,
}

/// A gateway, for whoever is told of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayRef {
    /// The object.
    pub object: ObjectRef,
    /// Its UID; empty if it came from no API server.
    pub uid: Text,
}

/// A listener of a gateway of the Gateway API that objects allow, for whoever tells what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerHere {
    /// The UID of the gateway.
    pub gateway: Text,
    /// Which of the gateway's specifications this is.
    pub generation: i64,
    /// Its name.
    pub name: Text,
    /// Its port.
    pub port: u16,
    /// Why its port is not among those of the edge, if it is not.
    pub closed: Option<Closed>,
}

/// What lets something in, as policies tell it apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entrance {
    /// Any gateway of Istio's: policies select the edge by its labels and name none of them.
    Istio,
    /// A gateway of the Gateway API, which policies may name besides.
    Gateway(Name),
}

/// A certificate that is shown to whoever comes from outside.
///
/// **Shape**: equal if chain and key are.
#[derive(Debug)]
pub struct Certificate {
    key: PrivateKeyDer<'static>,
    certified: Arc<CertifiedKey>,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert && self.key == other.key
    }
}

impl Eq for Certificate {}

/// Why a certificate cannot be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain is no PEM of certificates.
    #[error("`tls.crt` is no chain of certificates in PEM")]
    Chain,
    /// The key is no PEM of a key.
    #[error("`tls.key` is no private key in PEM")]
    Key,
    /// The key is none that TLS can use, or that of another certificate.
    #[error("`tls.key` is not the key of the first certificate in `tls.crt`")]
    Pair,
}

impl Certificate {
    /// The certificate chain and the key of its first certificate, both in PEM.
    ///
    /// **Errors**: they are none, or do not belong together.
    pub fn read(chain: &str, key: &str) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(CertificateError::Chain)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CertificateError::Key)?;
        let provider = aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain, key.clone_key(), &provider).map_err(|_| CertificateError::Pair)?;
        Ok(Self { key, certified: Arc::new(certified) })
    }

    /// The same as TLS uses it.
    #[must_use]
    pub const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_be_that_of_its_certificate() {
        let pair = || {
            let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).expect("a certificate");
            let pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
            (pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der()))
        };
        let ((chain, key), (other, _)) = (pair(), pair());
        assert!(Certificate::read(&chain, &key).is_ok());
        let errors = [(&*other, &*key), ("", &*key), (&*chain, "nonsense"), ("nonsense", &*key)];
        let errors = errors.map(|(chain, key)| Certificate::read(chain, key).expect_err("refused"));
        assert_eq!(
            errors,
            [CertificateError::Pair, CertificateError::Chain, CertificateError::Key, CertificateError::Chain]
        );
    }
}
