//! Chains that a good CA would never sign, and some that nobody signed.

use super::*;
use crate::identity::peer::{Purpose, validity, verify};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().into();
        Self { params, key, certificate }
    }

    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().into()
    }

    fn bundle(&self) -> Bundle {
        Bundle::new("cluster.local".into(), [&self.certificate]).unwrap()
    }
}

const NOW: u64 = 1_900_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + secs(seconds)
}

/// A certificate in good order, with these names.
fn leaf(names: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = at(NOW - 60).into();
    params.not_after = at(NOW + 60).into();
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn good() -> SanType {
    uri("spiffe://cluster.local/ns/default/sa/reviews")
}

/// What the chain proves, on both sides.
fn judge(chain: &[CertificateDer<'_>], bundle: &Bundle) -> [Result<Peer, &'static str>; 2] {
    let now = UnixTime::since_unix_epoch(secs(NOW));
    [Purpose::Client, Purpose::Server]
        .map(|purpose| verify(&chain[0], &chain[1..], bundle, purpose, now).map_err(|error| error.reason()))
}

#[test]
fn a_good_certificate_proves_its_identity() {
    let authority = Authority::new("root");
    let chain = [authority.sign(&leaf(&[good()]))];
    let expected = Ok(Peer { identity: id("reviews"), not_after: at(NOW + 60) });
    assert_eq!(judge(&chain, &authority.bundle()), [expected.clone(), expected]);
    // A DNS name beside it does no harm.
    let chain = [authority.sign(&leaf(&[SanType::DnsName("reviews".try_into().unwrap()), good()]))];
    assert_eq!(judge(&chain, &authority.bundle())[0].as_ref().unwrap().identity, id("reviews"));
}

#[test]
fn what_a_trusted_root_signed_is_still_checked() {
    let authority = Authority::new("root");
    type Spoil = fn(&mut CertificateParams);
    let cases: [(&str, Spoil); 11] = [
        ("expired_certificate", |leaf| leaf.not_after = at(NOW - 1).into()),
        ("not_yet_valid", |leaf| leaf.not_before = at(NOW + 1).into()),
        ("no_spiffe_id", |leaf| leaf.subject_alt_names.clear()),
        ("no_spiffe_id", |leaf| leaf.subject_alt_names = vec![SanType::DnsName("reviews".try_into().unwrap())]),
        ("no_spiffe_id", |leaf| leaf.subject_alt_names = vec![uri("spiffe://cluster.local/reviews")]),
        ("no_spiffe_id", |leaf| leaf.subject_alt_names = vec![uri("https://cluster.local/ns/default/sa/reviews")]),
        ("no_spiffe_id", |leaf| leaf.subject_alt_names = vec![good(), good()]),
        ("no_spiffe_id", |leaf| leaf.subject_alt_names = vec![good(), uri("https://example.org")]),
        ("foreign_trust_domain", |leaf| leaf.subject_alt_names = vec![uri("spiffe://elsewhere/ns/a/sa/b")]),
        ("wrong_purpose", |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        ("bad_certificate", |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    ];
    for (expected, spoil) in cases {
        let mut params = leaf(&[good()]);
        spoil(&mut params);
        let judged = judge(&[authority.sign(&params)], &authority.bundle());
        assert_eq!(judged, [Err(expected), Err(expected)], "{params:?}");
    }
}

#[test]
fn each_side_needs_its_own_purpose() {
    let authority = Authority::new("root");
    let mut params = leaf(&[good()]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let [client, server] = judge(&[authority.sign(&params)], &authority.bundle());
    assert_eq!(client, Err("wrong_purpose"));
    assert_eq!(server.unwrap().identity, id("reviews"));
}

#[test]
fn strangers_are_untrusted_whatever_they_call_themselves() {
    let (authority, impostor) = (Authority::new("root"), Authority::new("root"));
    let bundle = authority.bundle();
    let untrusted = [Err("untrusted_root"), Err("untrusted_root")];
    // The right name, the wrong key.
    assert_eq!(judge(&[impostor.sign(&leaf(&[good()]))], &bundle), untrusted);
    // With the impostor's root, or the right one, in the chain.
    for root in [&impostor, &authority] {
        let chain = [impostor.sign(&leaf(&[good()])), root.certificate.clone()];
        assert_eq!(judge(&chain, &bundle), untrusted);
    }
    let own = leaf(&[good()]).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(judge(&[own.into()], &bundle), untrusted);
    assert_eq!(judge(&[authority.sign(&leaf(&[good()]))], &Bundle::empty("cluster.local".into())), untrusted);
    // Of another trust domain, and signed by somebody unknown: the claim decides.
    let foreign = impostor.sign(&leaf(&[uri("spiffe://elsewhere/ns/a/sa/b")]));
    assert_eq!(judge(&[foreign], &bundle), [Err("foreign_trust_domain"), Err("foreign_trust_domain")]);
}

#[test]
fn a_workload_cannot_sign_for_others() {
    let authority = Authority::new("root");
    let mut params = leaf(&[good()]);
    params.distinguished_name.push(DnType::CommonName, "reviews");
    let key = KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::from_params(&authority.params, &authority.key);
    let reviews = params.signed_by(&key, &issuer).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let mut forged = leaf(&[uri("spiffe://cluster.local/ns/default/sa/admin")]);
    forged.not_after = at(NOW + 30).into();
    let forged = forged.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    for judged in judge(&[forged.into(), reviews.into()], &authority.bundle()) {
        assert!(matches!(judged, Err("bad_certificate" | "untrusted_root")), "{judged:?}");
    }
}

#[test]
fn nonsense_is_a_bad_certificate() {
    let authority = Authority::new("root");
    let real = authority.sign(&leaf(&[good()]));
    let bundle = authority.bundle();
    assert_eq!(peer(&[]), Err(PeerError::NoCertificate));
    for length in 0..real.len() {
        let cut = CertificateDer::from(real[..length].to_vec());
        assert_eq!(peer(std::slice::from_ref(&cut)).unwrap_err().reason(), "bad_certificate");
        assert_eq!(judge(&[cut], &bundle)[0], Err("bad_certificate"));
    }
    // Whichever byte is changed, nothing new is proved.
    for at in 0..real.len() {
        let mut bytes = real.to_vec();
        bytes[at] ^= 0x01;
        for judged in judge(&[bytes.into()], &bundle) {
            assert!(judged.is_err(), "the changed byte {at} went unnoticed");
        }
    }
}

#[test]
fn validity_is_read_from_any_certificate() {
    let authority = Authority::new("root");
    let signed = authority.sign(&leaf(&[]));
    let bounds = |certificate| validity(&EndEntityCert::try_from(certificate).unwrap()).unwrap();
    assert_eq!(bounds(&signed), (at(NOW - 60), at(NOW + 60)));
    let (from, to) = bounds(&authority.certificate);
    assert!(from < at(NOW) && to > at(NOW));
    let mut params = leaf(&[]);
    params.not_before = UNIX_EPOCH.into();
    assert_eq!(bounds(&authority.sign(&params)), (UNIX_EPOCH, at(NOW + 60)));
    params.not_before = at(NOW + 61).into();
    let backwards = authority.sign(&params);
    assert!(validity(&EndEntityCert::try_from(&backwards).unwrap()).is_err());
}

#[tokio::test]
async fn what_the_embedded_ca_signs_is_what_spiffe_asks_for() {
    let lab = Lab::new();
    let node = lab.node("a").await;
    let key = node.only().client.client_auth_cert_resolver.resolve(&[], &[]).unwrap();
    let [der] = key.cert.as_slice() else { panic!("the chain is the one certificate: {:?}", key.cert) };
    let certificate = EndEntityCert::try_from(der).unwrap();
    assert!(certificate.subject().is_empty());
    assert_eq!(certificate.valid_uri_names().collect::<Vec<_>>(), ["spiffe://cluster.local/ns/default/sa/a"]);
    assert_eq!(certificate.serial().len(), 16);
    let has = |bytes: &[u8]| der.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(&[0x55, 0x1d, 0x11, 0x01, 0x01, 0xff]), "the names are critical, since the subject is empty");
    assert!(has(&[0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x07, 0x80]), "digitalSignature only");
    assert!(has(&[0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00]), "no CA");
    let (from, to) = validity(&certificate).unwrap();
    assert_eq!((from, to), (lab.day.now() - secs(60), lab.day.now() + secs(100)));
}
