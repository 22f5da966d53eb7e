//! TLS with servers outside the mesh, for applications that speak plain text.
//!
//! In:  a TCP connection, whose server must prove which name, by which roots.
//! Out: the connection, over which the server has proved it.
//! Invariant: there is no way back to plain text: without roots, without a name, or with another certificate there is no connection.
//! Source: RFC 8446, RFC 5246, RFC 9525 for names; Istio `ClientTLSSettings`.

use crate::model::http::OriginateTls;
use crate::proxy::refusal::{self, Refusal};
use crate::telemetry;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{self, CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::{TlsConnector, TlsStream};

/// The largest file of roots, in bytes.
const MAX_ROOTS: u64 = 4 * 1024 * 1024;
/// Files of roots that are remembered.
const REMEMBERED: usize = 256;

/// Whom a connection leads to, and how it is protected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// The name that is asked for, and proved unless the policy names others.
    name: ServerName<'static>,
    policy: OriginateTls,
}

impl Server {
    /// The server of `host`, as a traffic policy wants it spoken to.
    ///
    /// **Errors**: neither the policy nor the host names one server.
    pub(crate) fn new(policy: &OriginateTls, host: &str) -> Result<Self, Refusal> {
        let name = policy.sni.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            let detail = format!("`{name}` names no server that could prove it; give `tls.sni` in the traffic policy");
            Refusal::new(refusal::UPSTREAM_CERTIFICATE, detail)
        })?;
        Ok(Self { name, policy: policy.clone() })
    }
}

/// What servers outside are proved by.
pub(crate) struct Outside {
    extra: Option<PathBuf>,
    system: OnceCell<Arc<RootCertStore>>,
    files: RefCell<HashMap<String, Known>>,
}

/// A file as it was read.
#[derive(Clone)]
struct Known {
    modified: Option<SystemTime>,
    length: u64,
    roots: Arc<RootCertStore>,
}

impl Outside {
    /// The system's roots and those of the file `extra`, read when they are needed first.
    pub(crate) fn new(extra: Option<PathBuf>) -> Self {
        Self { extra, system: OnceCell::new(), files: RefCell::default() }
    }

    /// TLS on `stream` with `server`, speaking `protocol` where that is said.
    ///
    /// **Errors**: the server does not prove a name that it must, or does not speak TLS or the protocol.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        server: &Server,
        protocol: Option<&'static [u8]>,
        patience: Duration,
    ) -> Result<TlsStream<TcpStream>, Refusal> {
        let roots = if server.policy.insecure { None } else { Some(self.roots(&server.policy).await?) };
        let verifier = Verifier { roots, names: server.policy.names.clone().into() };
        let tls = |error: &Error| Refusal::new(refusal::UPSTREAM_TLS, error.to_string());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = protocol.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        let connecting = TlsConnector::from(Arc::new(config)).connect(server.name.clone(), stream);
        let connected = tokio::time::timeout(patience, connecting)
            .await
            .map_err(|_| Refusal::new(refusal::HANDSHAKE_TIMEOUT, "the server was silent during the TLS handshake"))?;
        let stream =
            connected.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
                Some(cause @ Error::InvalidCertificate(_)) => {
                    Refusal::new(refusal::UPSTREAM_CERTIFICATE, format!("{}: {cause}", server.name.to_str()))
                }
                Some(cause) => tls(cause),
                None => Refusal::new(refusal::UPSTREAM_TLS, error.to_string()),
            })?;
        let spoken = stream.get_ref().1.alpn_protocol();
        if protocol == Some(H2) && spoken != Some(H2) {
            return Err(Refusal::new(refusal::UPSTREAM_PROTOCOL, "the server does not speak HTTP/2 over TLS"));
        }
        Ok(TlsStream::Client(stream))
    }

    async fn roots(&self, policy: &OriginateTls) -> Result<Arc<RootCertStore>, Refusal> {
        let no_roots = |detail: String| Refusal::new(refusal::NO_ROOTS, detail);
        let Some(path) = &policy.roots else {
            let extra = self.extra.clone();
            let read = || async { blocking(move || system(extra.as_deref())).await.map_err(no_roots) };
            return self.system.get_or_try_init(read).await.cloned();
        };
        let known = self.files.borrow().get(path).cloned();
        let asked = path.clone();
        let read = blocking(move || file(Path::new(&asked), known)).await.map_err(no_roots)?;
        let roots = Arc::clone(&read.roots);
        let mut files = self.files.borrow_mut();
        if files.len() < REMEMBERED || files.contains_key(path) {
            files.insert(path.clone(), read);
        }
        Ok(roots)
    }
}

/// The name of HTTP/2 in the handshake: RFC 9113, section 3.2.
pub(crate) const H2: &[u8] = b"h2";
/// The name of HTTP/1.1: RFC 7301, section 6.
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";

fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}

/// Reads files without holding up the traffic of this thread.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(telemetry::explain(&error)))
}

/// The system's roots, Mozilla's where the system has none, and those of a file.
fn system(extra: Option<&Path>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    // What of the system's cannot be read is not trusted; what remains may be enough.
    let (_added, _unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = extra {
        roots.extend(file(path, None)?.roots.roots.iter().cloned());
    }
    Ok(Arc::new(roots))
}

/// The roots in a file of PEM; those that are `known` as long as the file is the same.
fn file(path: &Path, known: Option<Known>) -> Result<Known, String> {
    let cannot = |problem: String| format!("cannot use the roots in {}: {problem}", path.display());
    let about = fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
    if !about.is_file() || about.len() > MAX_ROOTS {
        return Err(cannot(format!("it is no file of at most {MAX_ROOTS} bytes")));
    }
    let (modified, length) = (about.modified().ok(), about.len());
    if let Some(known) =
        known.filter(|known| modified.is_some() && known.modified == modified && known.length == length)
    {
        return Ok(known);
    }
    let mut text = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(MAX_ROOTS).read_to_end(&mut text));
    opened.map_err(|error| cannot(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| cannot(error.to_string()))?;
        roots.add(certificate).map_err(|error| cannot(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(cannot("it has no certificate in PEM".to_owned()));
    }
    Ok(Known { modified, length, roots: Arc::new(roots) })
}

/// Accepts a server that proves, by one of the roots, one of the names; any server at all without roots.
#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<RootCertStore>>,
    /// Empty for the name that is asked for.
    names: Box<[String]>,
}

impl Verifier {
    fn verify_name(&self, shown: &CertificateDer<'_>, asked: &ServerName<'_>) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(shown)?;
        if self.names.is_empty() {
            return verify_server_name(&certificate, asked);
        }
        let uris: Vec<_> = webpki::EndEntityCert::try_from(shown)
            .map(|certificate| certificate.valid_uri_names().map(str::to_owned).collect())
            .unwrap_or_default();
        let proves = |name: &String| {
            uris.contains(name)
                || ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
        };
        if self.names.iter().any(proves) {
            return Ok(());
        }
        Err(CertificateError::NotValidForName.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = provider().signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            self.verify_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
