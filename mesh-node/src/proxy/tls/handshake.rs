//! A TLS 1.3 handshake over a TCP connection, ending in keys for the record layer.
//!
//! In:  a connected socket and a rustls configuration that `identity` made.
//! Out: [`Session`]: sealer, opener, the peer's certificates and bytes that came after the handshake.
//! Invariant: nothing is sent or believed before the peer's chain was verified by the configuration's verifier.
//! Cancel: dropping the future drops the handshake; the socket is then in no defined state.

use super::super::io;
use super::record::{Opener, RecordError, Sealer};
use crate::identity::ALPN;
use rustls::client::UnbufferedClientConnection;
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, ConnectionTrafficSecrets, ServerConfig};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// The longest flight of handshake messages that is accepted, in bytes: certificate chains are far shorter.
const MAX_FLIGHT: usize = 32 * 1024;

/// An established session.
pub(crate) struct Session {
    /// Seals what we send.
    pub(crate) sealer: Sealer,
    /// Opens what the peer sends.
    pub(crate) opener: Opener,
    /// Makes new keys when the old ones are worn.
    pub(crate) keys: Keys,
    /// The peer's chain, verified, its own certificate first.
    pub(crate) peer: Vec<CertificateDer<'static>>,
    /// What the peer sent right after its part of the handshake.
    pub(crate) rest: Vec<u8>,
}

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] std::io::Error),
    /// The peer closed in the middle.
    #[error("the peer closed during the TLS handshake")]
    Closed,
    /// What the peer sent is no TLS, or its certificate is refused.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// The peer's flight is longer than any sensible one.
    #[error("the peer's handshake messages exceed {MAX_FLIGHT} bytes")]
    TooLong,
    /// The peer has a certificate, but does not speak the mesh's protocol.
    #[error("the peer did not agree on the protocol mesh/1")]
    NoProtocol,
    /// The negotiated keys cannot be used.
    #[error("the negotiated keys cannot be used")]
    Keys(#[source] RecordError),
}

/// Makes the next keys of a session.
pub(crate) enum Keys {
    /// We dialled.
    Client(Box<KernelConnection<rustls::client::ClientConnectionData>>),
    /// We were dialled.
    Server(Box<KernelConnection<rustls::server::ServerConnectionData>>),
}

impl Keys {
    /// The next secrets for what we send.
    pub(crate) fn next_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_tx_secret(),
            Self::Server(keys) => keys.update_tx_secret(),
        }
    }

    /// The next secrets for what the peer sends.
    pub(crate) fn next_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_rx_secret(),
            Self::Server(keys) => keys.update_rx_secret(),
        }
    }
}

/// The dialler's side.
///
/// **Errors**: the connection broke, or the peer was refused.
pub(crate) async fn connect(
    stream: &TcpStream,
    config: Arc<ClientConfig>,
    to: IpAddr,
) -> Result<Session, HandshakeError> {
    let mut tls = UnbufferedClientConnection::new(config, ServerName::from(to)).map_err(HandshakeError::Tls)?;
    let rest = shake(stream, |incoming, outbox| {
        let UnbufferedStatus { discard, state } = tls.process_tls_records(incoming);
        let step = outbox.step(state);
        (discard, step, tls.wants_write())
    })
    .await?;
    agreed(tls.alpn_protocol())?;
    let peer = owned(tls.peer_certificates());
    let (secrets, keys) = tls.dangerous_into_kernel_connection().map_err(HandshakeError::Tls)?;
    session(secrets, Keys::Client(Box::new(keys)), peer, rest)
}

/// The dialled side.
///
/// **Errors**: the connection broke, or the peer was refused; the peer is told by an alert.
pub(crate) async fn accept(stream: &TcpStream, config: Arc<ServerConfig>) -> Result<Session, HandshakeError> {
    let mut tls = UnbufferedServerConnection::new(config).map_err(HandshakeError::Tls)?;
    let rest = shake(stream, |incoming, outbox| {
        let UnbufferedStatus { discard, state } = tls.process_tls_records(incoming);
        let step = outbox.step(state);
        (discard, step, tls.wants_write())
    })
    .await?;
    agreed(tls.alpn_protocol())?;
    let peer = owned(tls.peer_certificates());
    let (secrets, keys) = tls.dangerous_into_kernel_connection().map_err(HandshakeError::Tls)?;
    session(secrets, Keys::Server(Box::new(keys)), peer, rest)
}

/// Drives one side's handshake to its end and returns what the peer sent after it. `process` shows rustls the bytes
/// it is given and returns how many of them are done with, what is wanted next, and whether there is more to say.
async fn shake(
    stream: &TcpStream,
    mut process: impl FnMut(&mut [u8], &mut Outbox) -> (usize, Step, bool),
) -> Result<Vec<u8>, HandshakeError> {
    let mut flights = Flights::default();
    loop {
        let (discard, step, queued) = process(&mut flights.incoming[..flights.offered], &mut flights.outbox);
        flights.incoming.drain(..discard);
        flights.offered -= discard;
        let step = match (step, flights.failure.take()) {
            (Step::Failed(error), None) | (_, Some(error)) => {
                // The alert that tells the peer may be queued, and rustls hands it out before it looks at anything
                // else. It must look at nothing more then: it panics at a second alert, and without the bytes that
                // it has begun to read.
                if !queued {
                    let _best_effort = flights.send(stream).await;
                    return Err(HandshakeError::Tls(error));
                }
                flights.failure = Some(error);
                continue;
            }
            (step, None) => step,
        };
        if flights.advance(stream, step).await? {
            return Ok(flights.incoming);
        }
    }
}

/// The session is for `mesh/1`. A peer that offers no protocol at all would otherwise pass.
fn agreed(protocol: Option<&[u8]>) -> Result<(), HandshakeError> {
    if protocol == Some(ALPN) { Ok(()) } else { Err(HandshakeError::NoProtocol) }
}

fn session(
    secrets: rustls::ExtractedSecrets,
    keys: Keys,
    peer: Vec<CertificateDer<'static>>,
    rest: Vec<u8>,
) -> Result<Session, HandshakeError> {
    Ok(Session {
        sealer: Sealer::new(secrets.tx).map_err(HandshakeError::Keys)?,
        opener: Opener::new(secrets.rx).map_err(HandshakeError::Keys)?,
        keys,
        peer,
        rest,
    })
}

fn owned(chain: Option<&[CertificateDer<'_>]>) -> Vec<CertificateDer<'static>> {
    chain.unwrap_or_default().iter().map(|certificate| certificate.clone().into_owned()).collect()
}

/// What the handshake wants next.
enum Step {
    Again,
    Send,
    Receive,
    Done,
    Failed(rustls::Error),
}

/// Bytes on their way out.
#[derive(Default)]
struct Outbox(Vec<u8>);

impl Outbox {
    /// Takes from rustls what it has to say. Generic over the side, which rustls tells apart by type.
    fn step<Side>(&mut self, state: Result<ConnectionState<'_, '_, Side>, rustls::Error>) -> Step {
        match state {
            Ok(ConnectionState::EncodeTlsData(data)) => self.encode(data),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Step::Send
            }
            Ok(ConnectionState::BlockedHandshake) => Step::Receive,
            Ok(ConnectionState::WriteTraffic(_)) => Step::Done,
            Ok(_) => Step::Failed(rustls::Error::General("unexpected state in a handshake".to_owned())),
            Err(error) => Step::Failed(error),
        }
    }

    fn encode<Side>(&mut self, mut data: EncodeTlsData<'_, Side>) -> Step {
        let start = self.0.len();
        let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return Step::Again };
        self.0.resize(start + needed.required_size, 0);
        match data.encode(&mut self.0[start..]) {
            Ok(written) => {
                self.0.truncate(start + written);
                Step::Again
            }
            Err(error) => Step::Failed(rustls::Error::General(error.to_string())),
        }
    }
}

/// A handshake's bytes and how it stands.
#[derive(Default)]
struct Flights {
    incoming: Vec<u8>,
    /// How much of `incoming` rustls may look at. It grows record by record, for what follows the handshake
    /// belongs to our own record layer, and may arrive together with its end.
    offered: usize,
    outbox: Outbox,
    /// The first failure, while the alert that follows it is taken out.
    failure: Option<rustls::Error>,
    /// The peer sent something that is no record at all: an alert would be noise to it.
    speaks_no_tls: bool,
}

impl Flights {
    /// Does the I/O for `step`; true when the handshake is complete.
    async fn advance(&mut self, stream: &TcpStream, step: Step) -> Result<bool, HandshakeError> {
        match step {
            Step::Again => {}
            Step::Send => self.send(stream).await?,
            Step::Done => {
                self.send(stream).await?;
                return Ok(true);
            }
            Step::Failed(error) => return Err(HandshakeError::Tls(error)),
            Step::Receive => self.receive(stream).await?,
        }
        Ok(false)
    }

    async fn send(&mut self, stream: &TcpStream) -> Result<(), HandshakeError> {
        if !self.outbox.0.is_empty() && !self.speaks_no_tls {
            io::write_all(stream, &self.outbox.0).await.map_err(HandshakeError::Io)?;
            self.outbox.0.clear();
        }
        Ok(())
    }

    /// Offers one more record if it is there whole; what is no record at all is offered as it is, for rustls to
    /// refuse. Never part of a record: the next one could not be found then.
    fn offer(&mut self) -> bool {
        let rest = &self.incoming[self.offered..];
        let length = match *rest {
            [] => return false,
            [20..=23, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([high, low])),
            [20..=23, ..] => return false,
            _ => {
                self.speaks_no_tls = true;
                rest.len()
            }
        };
        if length > rest.len() {
            return false;
        }
        self.offered += length;
        true
    }

    async fn receive(&mut self, stream: &TcpStream) -> Result<(), HandshakeError> {
        if self.offer() {
            return Ok(());
        }
        if self.incoming.len() >= MAX_FLIGHT {
            return Err(HandshakeError::TooLong);
        }
        loop {
            stream.readable().await.map_err(HandshakeError::Io)?;
            self.incoming.reserve(4096);
            match stream.try_read_buf(&mut self.incoming) {
                Ok(0) => return Err(HandshakeError::Closed),
                Ok(_) => {
                    self.offer();
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(HandshakeError::Io(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity;
    use crate::model::Identity;
    use crate::telemetry::Metrics;

    #[test]
    fn records_are_offered_one_by_one_and_whole() {
        let mut flights = Flights::default();
        assert!(!flights.offer());
        flights.incoming.extend_from_slice(&[22, 3, 3, 0]);
        assert!(!flights.offer(), "half a header");
        flights.incoming.extend_from_slice(&[2, 9]);
        assert!(!flights.offer(), "half a record");
        flights.incoming.extend_from_slice(&[9, 23, 3, 3, 0, 1, 7]);
        assert!(flights.offer());
        assert_eq!(flights.offered, 7, "the first record alone");
        assert!(flights.offer());
        assert_eq!(flights.offered, 13, "the second");
        assert!(!flights.offer());
    }

    #[test]
    fn only_the_meshs_protocol_will_do() {
        assert!(agreed(Some(b"mesh/1")).is_ok());
        for protocol in [None, Some(&b"h2"[..]), Some(b"")] {
            assert!(matches!(agreed(protocol), Err(HandshakeError::NoProtocol)), "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn a_certified_peer_without_the_protocol_is_refused_by_both_sides() {
        let directory = std::env::temp_dir().join(format!("mesh-handshake-{}", std::process::id()));
        let identity = Arc::new("spiffe://cluster.local/ns/a/sa/b".parse::<Identity>().expect("an identity"));
        let config = identity::Config::new(directory.join("ca"), directory.join("state"), "cluster.local".into());
        let keyring = identity::Keyring::start(config, &Metrics::default()).expect("a keyring");
        keyring.want([(Arc::clone(&identity), identity::Bearer::default())].into());
        keyring.ready(&identity).await.expect("a certificate");
        let credentials = keyring.current(&identity).expect("credentials");

        let shake = async |client: Arc<ClientConfig>, server: Arc<ServerConfig>| {
            let (dialler, dialled) = pair().await;
            let (connected, accepted) = tokio::join!(connect(&dialler, client, LOCALHOST), accept(&dialled, server));
            (connected.err(), accepted.err())
        };
        let mut mute = (*credentials.client).clone();
        mute.alpn_protocols.clear();
        let (_, accepted) = shake(mute.into(), Arc::clone(&credentials.server)).await;
        assert!(matches!(accepted, Some(HandshakeError::NoProtocol)), "{accepted:?}");
        let mut mute = (*credentials.server).clone();
        mute.alpn_protocols.clear();
        let (connected, _) = shake(Arc::clone(&credentials.client), mute.into()).await;
        assert!(matches!(connected, Some(HandshakeError::NoProtocol)), "{connected:?}");
        let outcome = shake(Arc::clone(&credentials.client), Arc::clone(&credentials.server)).await;
        assert!(matches!(outcome, (None, None)), "{outcome:?}");
        std::fs::remove_dir_all(directory).expect("the directory goes");
    }

    #[tokio::test]
    async fn a_peer_that_is_refused_in_the_middle_of_a_record_or_a_message_hears_why() {
        let directory = std::env::temp_dir().join(format!("mesh-handshake-refused-{}", std::process::id()));
        let identity = Arc::new("spiffe://cluster.local/ns/a/sa/b".parse::<Identity>().expect("an identity"));
        let mut sides = Vec::new();
        for side in ["one", "two"] {
            let directory = directory.join(side);
            let config = identity::Config::new(directory.join("ca"), directory.join("state"), "cluster.local".into());
            let keyring = identity::Keyring::start(config, &Metrics::default()).expect("a keyring");
            keyring.want([(Arc::clone(&identity), identity::Bearer::default())].into());
            keyring.ready(&identity).await.expect("a certificate");
            sides.push(keyring.current(&identity).expect("credentials"));
        }
        // The server's certificate is followed by more in the same record.
        let (dialler, dialled) = pair().await;
        let (client, server) = (Arc::clone(&sides[0].client), Arc::clone(&sides[1].server));
        let (connected, accepted) = tokio::join!(connect(&dialler, client, LOCALHOST), accept(&dialled, server));
        let reason = |error: Option<HandshakeError>| match error {
            Some(HandshakeError::Tls(error)) => identity::refusal(&error),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(connected.err()), "untrusted_root");
        assert_eq!(reason(accepted.err()), "peer_says_untrusted_root");
        // Half a ClientHello, then something else.
        for other in [[21, 3, 3, 0, 2, 2, 40], [23, 3, 3, 0, 2, 1, 1], [22, 3, 3, 0, 2, 1, 0]] {
            let (dialler, dialled) = pair().await;
            io::write_all(&dialler, &[22, 3, 1, 0, 6, 1, 0, 1, 0, 3, 3]).await.expect("written");
            io::write_all(&dialler, &other).await.expect("written");
            let accepting = accept(&dialled, Arc::clone(&sides[0].server));
            let accepted = tokio::time::timeout(std::time::Duration::from_millis(200), accepting).await;
            assert!(accepted.is_err() || accepted.is_ok_and(|accepted| accepted.is_err()), "{other:?}");
        }
        std::fs::remove_dir_all(directory).expect("the directory goes");
    }

    const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind((LOCALHOST, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let dialler = tokio::net::TcpSocket::new_v4().expect("a socket").connect(address);
        let (dialler, accepted) = tokio::join!(dialler, listener.accept());
        (dialler.expect("a connection"), accepted.expect("a connection").0)
    }

    #[test]
    fn plain_text_is_offered_at_once() {
        let mut flights = Flights { incoming: b"GET / HTTP/1.1\r\n".to_vec(), ..Flights::default() };
        assert!(flights.offer());
        assert_eq!(flights.offered, flights.incoming.len());
        assert!(flights.speaks_no_tls);
    }
}
