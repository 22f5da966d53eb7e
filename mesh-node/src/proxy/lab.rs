//! Both ends of a connection between nodes, over real sockets, for tests.

use super::buffer::Buffers;
use super::tls::handshake;
use super::wire::Wire;
use crate::identity::{Bearer, Config, Keyring};
use crate::model::Identity;
use crate::telemetry::Metrics;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Certificates for both ends.
pub(crate) struct Lab {
    keyring: Keyring,
    identity: Arc<Identity>,
    directory: std::path::PathBuf,
}

impl Lab {
    /// One in a directory named after `name`.
    pub(crate) async fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("mesh-lab-{name}-{}", std::process::id()));
        let identity = Arc::new("spiffe://cluster.local/ns/a/sa/b".parse::<Identity>().expect("an identity"));
        let config = Config::new(directory.join("ca"), directory.join("state"), "cluster.local".into());
        let keyring = Keyring::start(config, &Metrics::default()).expect("a keyring");
        keyring.want([(Arc::clone(&identity), Bearer::default())].into());
        keyring.ready(&identity).await.expect("a certificate");
        Self { keyring, identity, directory }
    }

    /// The dialled end and the dialling one.
    pub(crate) async fn wires(&self) -> [Wire; 2] {
        let credentials = self.keyring.current(&self.identity).expect("credentials");
        let (dialler, dialled) = pair().await;
        let (far, near) = tokio::join!(
            handshake::connect(&dialler, Arc::clone(&credentials.client), LOCALHOST),
            handshake::accept(&dialled, Arc::clone(&credentials.server)),
        );
        let buffers = Buffers::default();
        let wire = |stream, session: Result<_, _>| Wire::new(stream, session.expect("a session"), &buffers);
        [wire(dialled, near), wire(dialler, far)]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What is left in the temporary directory harms nobody.
        let _left = std::fs::remove_dir_all(&self.directory);
    }
}

/// Both ends of a connection: the one that dialled first.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let dialler = TcpSocket::new_v4().expect("a socket").connect(address);
    let (dialler, accepted) = tokio::join!(dialler, listener.accept());
    (dialler.expect("a connection"), accepted.expect("a connection").0)
}

/// The first bytes of a client that begins TLS with the server `name`, and offers `alpn`.
pub(crate) fn client_hello(name: &str, alpn: &[u8]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = name.to_owned().try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a connection");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a hello");
    hello
}
