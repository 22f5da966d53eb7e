//! A shop with a server on one node and a client on the other, and a client that lies.

use anyhow::{Context, Result, anyhow, bail, ensure};
use mesh_common::route::{DSCP_MESH, MARK_PROXY};
use mesh_node::identity::{self, ALPN};
use mesh_node::proxy::frame::{Control, Frame};
use mesh_tests::Node::{A, B};
use mesh_tests::{Builder, Daemon, Mesh, Node, Pod, Server, wait};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A namespace in the mesh: a server that echoes on A, a client on B.
pub(crate) struct Shop {
    pub(crate) web: Pod,
    pub(crate) client: Pod,
    _echo: Server,
    pub(crate) mesh: Mesh,
}

impl Shop {
    /// Opens it in `mode` of mutual TLS; returns once the client could be served.
    pub(crate) fn open(mesh: Builder, mode: &str) -> Result<Self> {
        let shop = Self::begin(mesh, mode)?;
        shop.served(&shop.client, shop.at())?;
        Ok(shop)
    }

    /// Opens it without asking whether the client is served.
    pub(crate) fn begin(mesh: Builder, mode: &str) -> Result<Self> {
        let mesh = mesh.build()?;
        mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
        let web = mesh.pod("shop/web").on(A).account("web").start()?;
        let client = mesh.pod("shop/client").on(B).account("client").start()?;
        let echo = web.echo(8080)?;
        let shop = Self { web, client, _echo: echo, mesh };
        shop.set_mode(mode)?;
        Ok(shop)
    }

    pub(crate) fn set_mode(&self, mode: &str) -> Result<()> {
        self.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": mode}}))
    }

    /// Where the server is.
    pub(crate) fn at(&self) -> SocketAddr {
        self.web.address(8080)
    }

    /// A pod outside the mesh, on B.
    pub(crate) fn outsider(&self) -> Result<Pod> {
        self.mesh.pod("default/outsider").on(B).start()
    }

    /// Waits until `from` is served at `to`.
    pub(crate) fn served(&self, from: &Pod, to: SocketAddr) -> Result<()> {
        wait::until_true(&format!("{to} serves {}", from.name()), wait::PATIENCE, || Ok(answers(from, to)))
    }
}

/// Does an echo answer?
pub(crate) fn answers(from: &Pod, to: SocketAddr) -> bool {
    from.exchange(to, b"hello").is_ok_and(|answer| answer == b"hello")
}

/// Sends bytes to an echo over an open connection, and takes them back.
pub(crate) fn both_ways(stream: &mut TcpStream, what: &str) -> Result<()> {
    let text = what.as_bytes();
    stream.write_all(text).with_context(|| format!("{what}: cannot send"))?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).with_context(|| format!("{what}: cannot read"))?;
    ensure!(back == text, "{what}: {}", back.escape_ascii());
    Ok(())
}

/// A connection to an echo that is in use.
pub(crate) fn open(from: &Pod, to: SocketAddr) -> Result<TcpStream> {
    let mut stream = from.connect(to)?;
    both_ways(&mut stream, "a new connection")?;
    Ok(stream)
}

/// Waits for a refusal in the access log, and sees that it is counted.
pub(crate) fn refused(daemon: &Daemon, side: &str, reason: &str) -> Result<Value> {
    let record = daemon.wait_access(&format!("{side} {reason}"), |record| {
        record["outcome"] == "refused" && record["side"] == side && record["reason"] == reason
    })?;
    let counted = daemon.metric("mesh_proxy_refused_total", &[("side", side), ("reason", reason)])?;
    ensure!(counted >= 1.0, "{reason} is not counted");
    Ok(record)
}

/// The connection was reset, and nothing came before.
pub(crate) fn is_reset(stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("no reset, but {other:?}"),
    }
}

/// A connection that is begun is reset at once, perhaps even before this side could know that it was made.
pub(crate) fn is_reset_at_once(connected: Result<TcpStream>) -> Result<()> {
    match connected {
        Ok(mut stream) => is_reset(&mut stream),
        Err(error) => match error.root_cause().downcast_ref::<std::io::Error>() {
            Some(cause) if cause.kind() == ErrorKind::ConnectionReset => Ok(()),
            _ => Err(error),
        },
    }
}

/// What a socket does unlike an ordinary one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Guise {
    /// Marks its packets as the mesh's.
    pub(crate) marked: bool,
    /// Is left alone by the mesh of its own pod.
    pub(crate) uncaptured: bool,
    /// Bytes that the kernel keeps of what is sent.
    pub(crate) send_buffer: Option<usize>,
}

/// Connects from a pod in a guise.
pub(crate) fn connect_as(from: &Pod, to: SocketAddr, guise: Guise) -> Result<TcpStream> {
    from.ns().enter(|| Ok(disguised(to, guise)?))
}

/// Connects in a guise, from the namespace of the calling thread.
pub(crate) fn disguised(to: SocketAddr, guise: Guise) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    if guise.marked {
        socket.set_tos_v4(u32::from(DSCP_MESH) << 2)?;
    }
    if guise.uncaptured {
        socket.set_mark(MARK_PROXY)?;
    }
    if let Some(size) = guise.send_buffer {
        socket.set_send_buffer_size(size)?;
    }
    socket.connect_timeout(&to.into(), wait::PATIENCE)?;
    socket.set_read_timeout(Some(wait::PATIENCE))?;
    socket.set_write_timeout(Some(wait::PATIENCE))?;
    Ok(socket.into())
}

/// A certificate with its key, taken from where a daemon keeps them.
pub(crate) struct Stolen {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Stolen {
    /// The one of `identity`.
    pub(crate) fn take(mesh: &Mesh, node: Node, identity: &str) -> Result<Self> {
        let dir = mesh.state_dir(node).join("identity");
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            let bytes = std::fs::read(&path)?;
            let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>()?;
            if identity::peer(&chain)?.identity.to_string() == identity {
                return Ok(Self { chain, key: PrivateKeyDer::from_pem_slice(&bytes)? });
            }
        }
        bail!("{} has no certificate of {identity}", dir.display())
    }

    /// Is it signed by the root with this serial number?
    pub(crate) fn is_signed_by(&self, root: &str) -> bool {
        self.chain[0].windows(root.len()).any(|window| window == root.as_bytes())
    }

    /// Has it expired?
    pub(crate) fn has_expired(&self) -> Result<bool> {
        Ok(identity::peer(&self.chain)?.not_after < std::time::SystemTime::now())
    }

    /// A session with it, as a daemon has with another at this address.
    ///
    /// **Errors**: the certificate cannot be used.
    pub(crate) fn session(&self, with: IpAddr) -> Result<ClientConnection> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ClientConnection::new(Arc::new(config), ServerName::from(with))?)
    }

    /// Opens a stream to `to` with it, from the address of a pod, as a daemon would.
    ///
    /// **Errors**: the handshake or the stream was refused.
    pub(crate) fn use_from(&self, from: &Pod, to: SocketAddr) -> Result<()> {
        let mut stream = connect_as(from, to, Guise { marked: true, uncaptured: true, ..Guise::default() })?;
        let mut tls = self.session(to.ip())?;
        let mut tls = rustls::Stream::new(&mut tls, &mut stream);
        tls.write_all(&Control::Open(to.into()).encode())?;
        let mut record = [0; 1024];
        let length = tls.read(&mut record)?;
        match Frame::decode(&record[..length])? {
            Frame::Control(Control::Accept) => Ok(()),
            other @ (Frame::Data | Frame::Control(_)) => bail!("the stream was answered by {other:?}"),
        }
    }
}

/// Believes every server.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

/// Exchanges over new connections while `work` goes on; all must be answered, and there must be some.
pub(crate) fn under_traffic<T>(routes: &[(&Pod, SocketAddr)], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic: Vec<_> = routes
            .iter()
            .map(|&(from, to)| {
                let (stop, served) = (&stop, AtomicU64::new(0));
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match from.exchange(to, b"meanwhile") {
                            Ok(answer) if answer == b"meanwhile" => drop(served.fetch_add(1, Ordering::Relaxed)),
                            other => failed.push(format!("{other:?}")),
                        }
                    }
                    (from.name(), served.into_inner(), failed)
                })
            })
            .collect();
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        for traffic in traffic {
            let (from, served, failed) = traffic.join().map_err(|_| anyhow!("the traffic stopped by a panic"))?;
            ensure!(failed.is_empty(), "{from}: {} failed beside {served}: {:?}", failed.len(), failed.first());
            ensure!(served > 0, "{from} had no traffic, which proves nothing");
        }
        worked
    })
}
