//! Real handshakes between the nodes' credentials.

use super::*;
use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, ProtocolVersion, SignatureScheme};

#[tokio::test]
async fn two_nodes_of_one_ca_know_each_other() {
    let lab = Lab::new();
    let (a, b) = (lab.node("a").await, lab.node("b").await);
    both_ways(&a, &b);

    let (_, client, mut server) = meet(&a.only().client, &b.only().server);
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(client.tls13_tickets_received(), 0);
    let mut byte = [0];
    server.reader().read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"c");
    assert_eq!(peer(client.peer_certificates().unwrap()).unwrap().not_after, b.only().not_after);
    client.dangerous_extract_secrets().unwrap();
    server.dangerous_extract_secrets().unwrap();
}

#[tokio::test]
async fn a_second_connection_is_a_full_handshake() {
    let lab = Lab::new();
    let (a, b) = (lab.node("a").await, lab.node("b").await);
    for _ in 0..2 {
        let (_, client, _) = meet(&a.only().client, &b.only().server);
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn the_same_name_from_another_ca_is_untrusted() {
    let (lab, other) = (Lab::new(), Lab::new());
    let (a, b) = (lab.node("a").await, other.node("b").await);
    let seen = met(&a.only(), &b.only());
    assert_eq!(seen, Met { client: Err("untrusted_root"), server: Err("peer_says_untrusted_root") });
}

#[tokio::test]
async fn another_trust_domain_is_told_from_another_ca() {
    let (lab, other) = (Lab::new(), Lab::new());
    let a = lab.node("a").await;
    let mut config = other.config("b");
    config.trust_domain = "elsewhere".into();
    let b = other.node_with(&config, "b").await;
    assert_eq!(met(&a.only(), &b.only()).client, Err("foreign_trust_domain"));
    assert_eq!(met(&b.only(), &a.only()).client, Err("foreign_trust_domain"));

    // A server that trusts the stranger's client is of no help to the stranger's server, and the other way round.
    let trusting = with_verifier_of(&b.only().client, &a.only().client);
    assert_eq!(meet(&trusting, &a.only().server).0.server, Err("foreign_trust_domain"));
}

/// The first configuration, accepting what the second accepts.
fn with_verifier_of(config: &ClientConfig, verifier: &ClientConfig) -> Arc<ClientConfig> {
    let mut mixed = verifier.clone();
    mixed.client_auth_cert_resolver = Arc::clone(&config.client_auth_cert_resolver);
    Arc::new(mixed)
}

#[tokio::test]
async fn trust_domains_may_share_a_directory_without_trusting_each_other() {
    let lab = Lab::new();
    let a = lab.node("a").await;
    let mut config = lab.config("b");
    config.trust_domain = "elsewhere".into();
    let b = lab.node_with(&config, "b").await;
    assert_eq!(lab.roots("crt").len(), 2);
    assert_eq!(met(&a.only(), &b.only()).client, Err("foreign_trust_domain"));
    both_ways(&a, &lab.node("c").await);
    assert_eq!(b.metric(r#"mesh_identity_failures_total{reason="unusable_root"}"#).as_deref(), Some("1"));
}

#[derive(Debug)]
struct ShowNothing;

impl ResolvesClientCert for ShowNothing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_client_must_show_a_certificate() {
    let lab = Lab::new();
    let (a, b) = (lab.node("a").await, lab.node("b").await);
    let mut shy = (*a.only().client).clone();
    shy.client_auth_cert_resolver = Arc::new(ShowNothing);
    let (seen, ..) = meet(&Arc::new(shy), &b.only().server);
    assert_eq!(seen, Met { client: Err("peer_says_no_client_certificate"), server: Err("no_client_certificate") });
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_worth_nothing() {
    let lab = Lab::new();
    let (a, b) = (lab.node("a").await, lab.node("b").await);
    let held = |node: &Node| node.only().client.client_auth_cert_resolver.resolve(&[], &[]).unwrap();
    let thief = CertifiedKey::new(held(&a).cert.clone(), Arc::clone(&held(&b).key));
    let mut client = (*b.only().client).clone();
    client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(thief));
    assert_eq!(meet(&Arc::new(client), &b.only().server).0.server, Err("bad_signature"));
}

#[tokio::test]
async fn expired_and_future_certificates_are_refused_on_both_sides() {
    let lab = Lab::new();
    let a = lab.node("a").await;
    let (early, day) = (a.only(), &lab.day);
    day.pass(secs(150));
    let mut b = lab.node("b").await;
    assert_eq!(met(&b.only(), &early).client, Err("expired_certificate"));
    assert_eq!(met(&b.only(), &early).server, Err("peer_says_expired_certificate"));
    assert_eq!(met(&early, &b.only()).server, Err("expired_certificate"));

    // More than the minute which clocks may differ.
    let late = b.only();
    day.turn_back(secs(149));
    b.step().await;
    assert_eq!(met(&early, &late).client, Err("not_yet_valid"));
    // What the clock made useless has been replaced.
    assert!(b.only().generation > late.generation);
    assert_eq!(met(&early, &b.only()).client, Ok(id("b")));
}

#[tokio::test]
async fn who_speaks_something_else_is_told_apart() {
    let lab = Lab::new();
    let (a, b) = (lab.node("a").await, lab.node("b").await);
    let mut web = (*a.only().client).clone();
    web.alpn_protocols = vec![b"h2".to_vec()];
    let (seen, ..) = meet(&Arc::new(web), &b.only().server);
    assert_eq!(seen, Met { client: Err("no_common_protocol"), server: Err("no_common_protocol") });

    let mut server = ServerConnection::new(Arc::clone(&b.only().server)).unwrap();
    server.read_tls(&mut b"GET / HTTP/1.1\r\n\r\n".as_slice()).unwrap();
    assert_eq!(refusal(&server.process_new_packets().unwrap_err()), "not_tls");
}
