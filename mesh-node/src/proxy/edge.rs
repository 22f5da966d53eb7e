//! Connections that enter the mesh from outside, at the ports of gateways.
//!
//! In:  the ports of the snapshot's edge.
//! Out: HTTP on each connection to one of them, served to its end.
//! Invariant: a port is listened on exactly while the snapshot has it; what the kernel has accepted by then is served.
//! Invariant: every worker listens, and the kernel spreads connections over them: the edge is no one thread's.
//! Invariant: connections are bounded at each port, in number and in the time for which nothing is asked on them.

use super::facts::Facts;
use super::http::{self, Entry, Transport};
use super::io;
use super::live::OneMore;
use super::refusal::{self, Refusal};
use super::report::Report;
use super::worker::{Pod, Way, Worker, accept};
use crate::policy::Sni;
use crate::snapshot::ByHost;
use crate::snapshot::edge::{Certificate, EdgePort};
use crate::sys::socket;
use crate::telemetry::{self, Side};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// One worker's listeners at the ports of gateways.
#[derive(Default)]
pub(super) struct Doors(RefCell<BTreeMap<u16, State>>);

/// What one worker makes of a port of gateways.
enum State {
    /// It is listened on.
    Open(Door),
    /// It cannot be.
    Failed,
}

/// A port of gateways, as its connections know it.
pub(crate) struct Gate {
    pub(super) port: u16,
    /// Connections that are open, among them those that went over to another protocol.
    pub(super) open: Cell<u32>,
}

struct Door {
    /// Dropped to close it.
    _open: oneshot::Sender<()>,
    tls: RefCell<Option<Tls>>,
}

/// Certificates, and TLS that shows them.
#[derive(Clone)]
struct Tls {
    of: Arc<ByHost<Arc<Certificate>>>,
    config: Arc<ServerConfig>,
}

impl Doors {
    /// Opens and closes, so that these ports are listened on. What cannot be opened is tried again when this is called again.
    pub(super) fn keep(&self, worker: &Rc<Worker>, pod: &Rc<Pod>, ports: &[Arc<EdgePort>]) {
        let mut doors = self.0.borrow_mut();
        doors.retain(|port, state| {
            let is_wanted = ports.iter().any(|wanted| wanted.port == *port);
            if !is_wanted {
                worker.metrics.no_edge(*port, matches!(state, State::Failed));
            }
            is_wanted
        });
        for port in ports.iter().map(|wanted| wanted.port) {
            let had_failed = match doors.get(&port) {
                Some(State::Open(_)) => continue,
                Some(State::Failed) => true,
                None => false,
            };
            let listener = pod.sockets.within(|| socket::edge_listener(port)).and_then(TcpListener::from_std);
            match listener {
                Ok(listener) => {
                    let (open, closed) = oneshot::channel::<()>();
                    let closing = async {
                        // It is dropped, never used.
                        let _closed = closed.await;
                    };
                    let way = Way::Edge(Rc::new(Gate { port, open: Cell::default() }));
                    let accepting = accept((Rc::clone(worker), Rc::clone(pod)), listener, way, closing);
                    telemetry::spawn_local("edge", accepting);
                    doors.insert(port, State::Open(Door { _open: open, tls: RefCell::default() }));
                    worker.metrics.edge_opened(port, had_failed);
                }
                Err(error) => {
                    doors.insert(port, State::Failed);
                    if !had_failed {
                        worker.metrics.edge_failed(port, &error);
                    }
                }
            }
        }
    }

    /// TLS at a port, made anew when its certificates are others.
    fn tls(&self, port: u16, certificates: &Arc<ByHost<Arc<Certificate>>>) -> Option<Arc<ServerConfig>> {
        let doors = self.0.borrow();
        let Some(State::Open(door)) = doors.get(&port) else { return None };
        let mut known = door.tls.borrow_mut();
        if let Some(tls) = known.as_ref().filter(|tls| Arc::ptr_eq(&tls.of, certificates)) {
            return Some(Arc::clone(&tls.config));
        }
        let tls = Tls { of: Arc::clone(certificates), config: Arc::new(config(certificates)?) };
        let config = Arc::clone(&tls.config);
        *known = Some(tls);
        Some(config)
    }
}

/// Which certificate is shown for which server name.
#[derive(Debug)]
struct Shown(ByHost<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        self.0.covering(&name).next().cloned()
    }
}

/// TLS 1.2 and 1.3 with these certificates, for HTTP/2 and HTTP/1.1.
fn config(certificates: &ByHost<Arc<Certificate>>) -> Option<ServerConfig> {
    let shown =
        |(name, certificate): (&Arc<str>, &Arc<Certificate>)| (Arc::clone(name), Arc::clone(certificate.certified()));
    let shown = Shown(ByHost {
        exact: certificates.exact.iter().map(shown).collect(),
        wildcards: certificates.wildcards.iter().map(shown).collect(),
    });
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(config)
}

/// Serves one connection to a port of gateways to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    stream: TcpStream,
    (client, (port, entered)): (SocketAddr, (u16, OneMore<Gate>)),
) {
    let Ok(local) = stream.local_addr() else { return };
    // A listener for both families has IPv4 in the form of IPv6.
    let [client, local] = [client, local].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
    let registration = pod.live.register(Facts::Http);
    let _slower_without = stream.set_nodelay(true);
    let found = worker.feed.snapshot().edge.as_ref().and_then(|edge| edge.port(port).cloned());
    let Some(found) = found else { return io::reset(stream) };
    let (transport, scheme, sni) = match &found.tls {
        None => (Transport::plain(stream), "http", Sni::Absent),
        Some(certificates) => match Box::pin(shake((&worker, port), certificates, stream, client)).await {
            Ok((transport, sni)) => (transport, "https", sni),
            Err(refusal) => return Report::new((worker, pod), Side::Outbound, client, local).refused(refusal),
        },
    };
    let entry = Entry::Edge { port, scheme, sni, _counted: entered };
    Box::pin(http::serve_outbound((worker, pod), (transport, entry), (client, local), registration)).await;
}

/// TLS on a connection, and the server name that was asked for in it.
async fn shake(
    (worker, port): (&Rc<Worker>, u16),
    certificates: &Arc<ByHost<Arc<Certificate>>>,
    stream: TcpStream,
    client: SocketAddr,
) -> Result<(Transport, Sni), Refusal> {
    let _slot = worker.begin_handshake(client.ip())?;
    let config = worker.doors.tls(port, certificates);
    let config = config.ok_or_else(|| Refusal::new(refusal::NO_CREDENTIALS, "no certificate can be shown"))?;
    let shaking = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(worker.config.handshake_timeout, shaking)
        .await
        .map_err(|_| Refusal::new(refusal::HANDSHAKE_TIMEOUT, "the client was silent during the TLS handshake"))?
        .map_err(|error| Refusal::new(refusal::OUTSIDE_TLS, error.to_string()))?;
    let sni = stream.get_ref().1.server_name().map_or(Sni::Absent, Sni::of);
    Ok((Transport::Tls(Box::new(TokioIo::new(stream.into()))), sni))
}
