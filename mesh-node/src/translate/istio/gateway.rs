//! Istio's Gateways.
//!
//! In:  a Gateway as written.
//! Out: a [`Gateway`]; a server that is not understood is left out, so that nothing listens there.
//! Source: Istio `Gateway`, `Server`, `ServerTLSSettings`.

use crate::api::custom::Custom;
use crate::model::{AllowedRoutes, Gateway, GatewayClass, Listener, ListenerProtocol, ListenerTls, Name, Text};
use crate::translate::read::{Log, Place};
use std::sync::Arc;

/// The gateway that an object is.
pub(in crate::translate) fn gateway(log: &Log, object: &Custom) -> Gateway {
    let namespace = &log.object().name.namespace;
    let ((selector, listeners), is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let selector = fields.take("selector").labels();
        let listeners: Vec<_> = fields
            .take("servers")
            .items()
            .iter()
            .enumerate()
            .filter_map(|(at, place)| {
                let (listener, is_clear) = place.log().part(|| server((at, place), namespace));
                listener.filter(|_| is_clear)
            })
            .collect();
        (selector, listeners)
    });
    Gateway {
        object: log.object().clone(),
        uid: object.metadata.uid.as_str().into(),
        generation: 0,
        created: object.metadata.creation_timestamp.clone(),
        class: GatewayClass::Pods(selector),
        listeners: if is_clear { listeners } else { Vec::new() },
    }
}

fn server((at, place): (usize, &Place<'_>), namespace: &Text) -> Option<Listener> {
    use ListenerProtocol::{Http, Https, Tcp, Tls};
    let mut fields = place.fields()?;
    let own = fields.take("name").text().unwrap_or_default().to_owned();
    let (mut port, mut protocol, mut name) = (None, None, String::new());
    if let Some(mut fields) = fields.take("port").fields() {
        port = fields.take("number").port();
        let words = [
            ("HTTP", Http),
            ("HTTP2", Http),
            ("GRPC", Http),
            ("GRPC-WEB", Http),
            ("HTTPS", Https),
            ("TLS", Tls),
            ("TCP", Tcp),
            ("MONGO", Tcp),
        ];
        protocol = fields.take("protocol").choice(&words);
        name = fields.take("name").text().unwrap_or_default().to_owned();
        fields.take("targetPort").ignored("traffic enters at the port's number");
    }
    fields.take("bind").ignored("a gateway listens on all its addresses");
    fields.take("defaultEndpoint").ignored("routes say where traffic goes");
    let hostnames = fields.take("hosts").texts().into_iter().filter(|host| *host != "*").map(Arc::from).collect();
    let tls = tls(&fields.take("tls"), namespace);
    let name = if own.is_empty() { name } else { own };
    let (port, protocol, routes, kinds) = (port?, protocol?, AllowedRoutes::All, vec!["VirtualService"]);
    Some(Listener { at, name, port, protocol, hostnames, tls, routes, kinds })
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Passthrough,
    Simple,
    Mutual,
}

fn tls(place: &Place<'_>, namespace: &Text) -> Option<ListenerTls> {
    let mut fields = place.fields()?;
    let words = [("SIMPLE", Mode::Simple), ("MUTUAL", Mode::Mutual), ("PASSTHROUGH", Mode::Passthrough)];
    let mode = fields.take("mode");
    let mode = if mode.is_there() {
        mode.choice_except(&words, &["AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"])
    } else {
        Some(Mode::Passthrough)
    };
    let one = fields.take("credentialName").text();
    let several = fields.take("credentialNames").texts();
    let certificates = one.into_iter().chain(several).filter(|name| !name.is_empty());
    let certificates = certificates.map(|name| Name::new(namespace.clone(), name)).collect();
    fields.take("httpsRedirect").unsupported("redirect by a route");
    let files = "give a Secret by `credentialName`";
    for name in ["serverCertificate", "privateKey", "caCertificates", "tlsCertificates", "caCertCredentialName"] {
        fields.take(name).unsupported(files);
    }
    let proof = "whoever is to enter is said by policy";
    for name in ["caCrl", "insecureSkipVerify", "subjectAltNames", "verifyCertificateHash", "verifyCertificateSpki"] {
        fields.take(name).unsupported(proof);
    }
    for name in ["cipherSuites", "maxProtocolVersion", "minProtocolVersion"] {
        fields.take(name).ignored("TLS 1.2 and 1.3 are spoken, with the ciphers that are secure");
    }
    let mode = mode?;
    Some(ListenerTls { passthrough: mode == Mode::Passthrough, certificates, mutual: mode == Mode::Mutual })
}
