//! The cluster's authority under a clock that the test moves.

use super::authority::{Anchors, Content, made, supplied, with_root};
use crate::identity::ca::mint;
use crate::identity::clock::unix;
use crate::identity::peer::{Purpose, verify};
use crate::identity::trust::{Published, fingerprint};
use crate::identity::{Bundle, PeerError, explain};
use crate::model::{Identity, TrustDomain};
use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const OVERLAP: Duration = secs(30);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn day() -> SystemTime {
    UNIX_EPOCH + secs(1_900_000_000)
}

fn domain() -> TrustDomain {
    "cluster.local".into()
}

/// What the anchors sign at this time.
fn signed(anchors: &Anchors, now: SystemTime) -> Vec<CertificateDer<'static>> {
    let identity: Identity = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    let key = KeyPair::generate().unwrap();
    mint::svid(anchors.signer(now, OVERLAP).unwrap(), (&identity, &key), secs(100), now).unwrap()
}

fn accepted(chain: &[CertificateDer<'_>], published: &Published, now: SystemTime) -> Result<(), PeerError> {
    let bundle = Bundle::new(domain(), &published.roots).unwrap();
    verify(&chain[0], &chain[1..], &bundle, Purpose::Server, unix(now)).map(|_| ())
}

/// A secret with one more root.
fn rotated(mut content: Content, now: SystemTime) -> Content {
    with_root(&mut content, &domain(), secs(1000), now).unwrap();
    content
}

fn anchors(content: &Content) -> Anchors {
    let found = made(content, &domain());
    assert!(found.faults.is_empty());
    Anchors { made: found.roots, ..Anchors::default() }
}

fn only(root: &CertificateDer<'_>) -> Published {
    Published { roots: vec![root.clone().into_owned()], ..Published::default() }
}

#[test]
fn a_root_of_a_secret_signs_only_once_it_was_published_for_the_overlap() {
    let first = rotated(Content::new(), day());
    let mut alone = anchors(&first);
    let published = alone.publish(&Published::default(), day());
    accepted(&signed(&alone, day()), &published, day()).unwrap();

    // The second is made while nobody leads, and found late: the time counts from when it is published.
    let later = day() + secs(100);
    let mut both = anchors(&rotated(first, day() + secs(10)));
    let published = both.publish(&published, later);
    assert_eq!(published.roots.len(), 2);
    let old = only(&alone.made[0].certificate);
    for wait in [0, 29] {
        accepted(&signed(&both, later + secs(wait)), &old, later).unwrap();
    }
    let moved = signed(&both, later + OVERLAP);
    assert_eq!(accepted(&moved, &old, later), Err(PeerError::Untrusted));
    accepted(&moved, &published, later).unwrap();

    // Another leader, with a clock behind, reads the same; it counts no root as published in its future.
    let again = both.publish(&published, later - secs(5));
    assert_eq!(again.roots, published.roots);
    assert!(again.since.values().all(|since| *since <= later - secs(5)));
}

#[test]
fn a_root_that_was_taken_down_counts_from_its_return() {
    let mut anchors = anchors(&rotated(Content::new(), day()));
    let mut published = anchors.publish(&Published::default(), day());
    published.roots.clear();
    let returned = anchors.publish(&published, day() + secs(50));
    assert_eq!(returned.since.values().copied().collect::<Vec<_>>(), [day() + secs(50)]);
    let expired = anchors.publish(&returned, day() + secs(1001));
    assert_eq!(expired, Published::default());
    assert!(anchors.signer(day() + secs(1001), OVERLAP).is_none());
}

#[test]
fn what_is_damaged_in_a_secret_is_named_and_left_aside() {
    let good = rotated(Content::new(), day());
    let mut content = rotated(good.clone(), day());
    let odd = content.keys().find(|key| key.ends_with(".key") && !good.contains_key(*key)).unwrap().clone();
    content.insert(odd.clone(), ByteString(b"nothing".to_vec()));
    content.insert("ab.crt".to_owned(), ByteString(b"nothing".to_vec()));
    let found = made(&content, &domain());
    assert_eq!(found.roots.len(), 2, "the certificate beside a damaged key is trusted still");
    assert_eq!(found.roots.iter().filter(|root| root.authority.is_some()).count(), 1);
    let faults: Vec<_> = found.faults.iter().map(|fault| explain(fault)).collect();
    assert!(faults.iter().any(|fault| fault.contains(&format!("secret/mesh-ca/{odd}"))), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains("secret/mesh-ca/ab.crt")), "{faults:?}");
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str, algorithm: &'static SignatureAlgorithm, under: Option<&Ca>) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (day().into(), (day() + secs(900)).into());
    let key = KeyPair::generate_for(algorithm).unwrap();
    match under {
        Some(issuer) => CertifiedIssuer::signed_by(params, key, issuer),
        None => CertifiedIssuer::self_signed(params, key),
    }
    .unwrap()
}

fn pem(tag: &str, sections: &[&[u8]]) -> ByteString {
    ByteString(sections.iter().map(|section| pem::encode(&pem::Pem::new(tag, *section))).collect::<String>().into())
}

/// The Secret of an operator, with these certificates in its chain and its roots.
fn secret(signing: &Ca, chain: &[&Ca], roots: &[&Ca]) -> Content {
    let certificates = |of: &[&Ca]| pem("CERTIFICATE", &of.iter().map(|ca| ca.der().as_ref()).collect::<Vec<_>>());
    [
        ("ca-cert.pem", certificates(&[signing])),
        ("ca-key.pem", pem("PRIVATE KEY", &[signing.key().serialized_der()])),
        ("cert-chain.pem", certificates(chain)),
        ("root-cert.pem", certificates(roots)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

#[test]
fn a_supplied_intermediate_is_shown_and_its_root_is_not() {
    let root = authority("corporate root", &rcgen::PKCS_ECDSA_P384_SHA384, None);
    let next = authority("next root", &rcgen::PKCS_ECDSA_P384_SHA384, None);
    let middle = authority("middle", &rcgen::PKCS_ECDSA_P256_SHA256, Some(&root));
    let signing = authority("signing", &rcgen::PKCS_ECDSA_P256_SHA256, Some(&middle));
    let now = day() + secs(1);
    let content = secret(&signing, &[&signing, &middle, &root], &[&next, &root]);
    let mut anchors = Anchors { supplied: supplied(&content, &domain(), now).unwrap(), ..Anchors::default() };
    assert!(anchors.is_supplied());
    let published = anchors.publish(&Published::default(), now);
    assert_eq!(published.roots.len(), 2, "the next root is trusted beforehand");

    let chain = signed(&anchors, now);
    assert_eq!(chain[1..], [signing.der().clone(), middle.der().clone()]);
    accepted(&chain, &only(root.der()), now).unwrap();
    assert_eq!(accepted(&chain[..1], &only(root.der()), now), Err(PeerError::Untrusted));
    assert_eq!(accepted(&chain, &only(next.der()), now), Err(PeerError::Untrusted));

    // A root that signs by itself needs no chain.
    let mut content = secret(&root, &[], &[&root]);
    content.remove("cert-chain.pem");
    let supplied = supplied(&content, &domain(), now).unwrap();
    assert_eq!(signed(&Anchors { supplied, ..Anchors::default() }, now).len(), 1);
}

#[test]
fn a_supplied_authority_follows_our_own_after_the_overlap() {
    let root = authority("corporate root", &rcgen::PKCS_ECDSA_P256_SHA256, None);
    let now = day() + secs(50);
    let mut anchors = anchors(&rotated(Content::new(), day()));
    let before = anchors.publish(&Published::default(), day());
    anchors.supplied = supplied(&secret(&root, &[], &[&root]), &domain(), now).unwrap();
    let published = anchors.publish(&before, now);
    assert_eq!(published.roots.len(), 2);
    accepted(&signed(&anchors, now + secs(29)), &before, now).unwrap();
    accepted(&signed(&anchors, now + OVERLAP), &only(root.der()), now).unwrap();
    let since = published.since.get(&fingerprint(root.der())).copied();
    assert_eq!(since, Some(now));
}

#[test]
fn a_supplied_authority_that_peers_would_refuse_is_refused_with_the_cure() {
    let root = authority("corporate root", &rcgen::PKCS_ECDSA_P256_SHA256, None);
    let other = authority("another root", &rcgen::PKCS_ECDSA_P256_SHA256, None);
    let middle = authority("middle", &rcgen::PKCS_ECDSA_P256_SHA256, Some(&root));
    let signing = authority("signing", &rcgen::PKCS_ECDSA_P256_SHA256, Some(&middle));
    let good = secret(&signing, &[&middle], &[&root]);
    let now = day() + secs(1);
    supplied(&good, &domain(), now).unwrap();
    type Spoil<'a> = Box<dyn Fn(&mut Content) + 'a>;
    let from = |key: &'static str, source: Content| -> Spoil<'_> {
        Box::new(move |content| {
            content.insert(key.to_owned(), source[key].clone());
        })
    };
    let cases: [(&str, &str, Spoil<'_>); 5] = [
        ("ca-key.pem", "it is not the key of ca-cert.pem", from("ca-key.pem", secret(&root, &[], &[&root]))),
        ("cert-chain.pem", "a peer would refuse", from("cert-chain.pem", secret(&signing, &[&signing], &[&root]))),
        ("cert-chain.pem", "a peer would refuse", from("root-cert.pem", secret(&signing, &[], &[&other]))),
        ("root-cert.pem", "it is missing", Box::new(|content| drop(content.remove("root-cert.pem")))),
        (
            "ca-cert.pem",
            "it holds none",
            Box::new(|content| {
                content.insert("ca-cert.pem".to_owned(), ByteString(b"text".to_vec()));
            }),
        ),
    ];
    for (key, reason, spoil) in cases {
        let mut content = good.clone();
        spoil(&mut content);
        let error = supplied(&content, &domain(), now).err().map(|error| explain(&error)).unwrap_or_default();
        assert!(error.contains(&format!("secret/cacerts/{key}")) && error.contains(reason), "{error}");
    }
    let late = supplied(&good, &domain(), day() + secs(901)).err().map(|error| explain(&error)).unwrap_or_default();
    assert!(late.contains("expired"), "{late}");
}
