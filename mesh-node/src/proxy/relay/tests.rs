//! Both ends of a wire over real sockets: what travels together, and what never waits.

use super::*;
use crate::identity::{Bearer, Config, Keyring};
use crate::model::Identity;
use crate::proxy::tls::handshake;
use crate::telemetry::Metrics;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_answer_that_is_there_travels_with_accept_and_the_end() {
    let lab = Lab::new("answers").await;
    let (mut application, upstream) = pair().await;
    application.write_all(b"hello").await.expect("a write");
    application.shutdown().await.expect("a shutdown");
    let [mut near, mut far] = lab.wires().await;
    let buffers = Buffers::default();
    let peer = async {
        let (mut sender, mut receiver) = far.split();
        let accept = receiver.next(&buffers).await.expect("a frame");
        assert_eq!((accept.is_empty(), accept.then), (true, Some(Event::Control(Control::Accept))));
        // The rest has arrived already: nothing is awaited for it.
        let rest = tokio::select! {
            biased;
            rest = receiver.next(&buffers) => rest.expect("frames"),
            () = std::future::ready(()) => panic!("ACCEPT came alone"),
        };
        assert_eq!((rest.is_empty(), rest.then), (false, Some(Event::Control(Control::Fin))));
        receiver.release();
        sender.control(&Control::Fin).await.expect("a write");
    };
    near.accept();
    let (ended, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(carry(&upstream, &mut near), peer) })
        .await
        .expect("it ends in time");
    assert!(matches!(ended, Ended::Clean), "{ended:?}");
}

#[tokio::test]
async fn accept_does_not_wait_for_an_application_that_is_silent() {
    let lab = Lab::new("silent").await;
    let (application, upstream) = pair().await;
    let [mut near, mut far] = lab.wires().await;
    let buffers = Buffers::default();
    near.accept();
    let peer = async {
        let accept = far.split().1.next(&buffers).await.expect("a frame");
        assert_eq!((accept.is_empty(), accept.then), (true, Some(Event::Control(Control::Accept))));
    };
    tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            ended = carry(&upstream, &mut near) => panic!("it ended: {ended:?}"),
            () = peer => {}
        }
    })
    .await
    .expect("ACCEPT comes in time");
    drop(application);
}

#[tokio::test]
async fn a_reset_says_first_that_the_application_had_accepted() {
    let lab = Lab::new("resets").await;
    let (application, upstream) = pair().await;
    io::reset(application);
    let [mut near, mut far] = lab.wires().await;
    let buffers = Buffers::default();
    near.accept();
    let peer = async {
        let (_, mut receiver) = far.split();
        let mut said = Vec::new();
        while said.len() < 2 {
            said.extend(receiver.next(&buffers).await.expect("a frame").then);
            receiver.release();
        }
        said
    };
    let (ended, said) = tokio::time::timeout(DEADLINE, async { tokio::join!(carry(&upstream, &mut near), peer) })
        .await
        .expect("it ends in time");
    assert!(matches!(ended, Ended::Reset), "{ended:?}");
    assert_eq!(said, [Event::Control(Control::Accept), Event::Control(Control::Reset(String::new()))]);
}

async fn carry(upstream: &TcpStream, wire: &mut Wire) -> Ended {
    let (buffers, counts, cancelled) = (Buffers::default(), Counts::default(), Cancelled::default());
    over_wire(upstream, (wire, None), Role::Dialled, (&buffers, &counts, &cancelled)).await
}

/// Certificates for both ends.
struct Lab {
    keyring: Keyring,
    identity: Arc<Identity>,
    directory: std::path::PathBuf,
}

impl Lab {
    async fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("mesh-relay-{name}-{}", std::process::id()));
        let identity = Arc::new("spiffe://cluster.local/ns/a/sa/b".parse::<Identity>().expect("an identity"));
        let config = Config::new(directory.join("ca"), directory.join("state"), "cluster.local".into());
        let keyring = Keyring::start(config, &Metrics::default()).expect("a keyring");
        keyring.want([(Arc::clone(&identity), Bearer::default())].into());
        keyring.ready(&identity).await.expect("a certificate");
        Self { keyring, identity, directory }
    }

    /// The dialled end and the dialling one.
    async fn wires(&self) -> [Wire; 2] {
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

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.expect("a listener");
    let address = listener.local_addr().expect("its address");
    let dialler = TcpSocket::new_v4().expect("a socket").connect(address);
    let (dialler, accepted) = tokio::join!(dialler, listener.accept());
    (dialler.expect("a connection"), accepted.expect("a connection").0)
}
