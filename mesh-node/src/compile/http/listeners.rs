//! Which listeners of gateways are listened on, as far as objects say.
//!
//! In:  the gateways that are the mesh's, the grants.
//! Out: for each of their listeners what becomes of it: [`Judged`].
//! Invariant: what is listened on and what users are told are both asked here. What is in Secrets is not looked at: whether one is
//! there, or can be used, opens no port to another listener.
//! Invariant: all gateways share the ports of each node. Of two gateways that cannot share one the older has it; of two listeners of
//! one gateway neither.
//! Source: Gateway API `Listener`, "Compatible Listeners", `ListenerConditionType`; Istio `Gateway`.

use super::{admission, attach};
use crate::model::{Gateway, GatewayClass, Listener, ListenerProtocol, Name, Reason};
use crate::translate::Customs;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A listener of a gateway.
pub(super) struct Judged<'m> {
    pub(super) gateway: &'m Gateway,
    pub(super) listener: &'m Listener,
    /// Why it is not listened on.
    pub(super) refusal: Option<attach::Refusal>,
}

/// A port that is taken.
struct Held<'m> {
    by: &'m Gateway,
    is_tls: bool,
    /// The certificates that are shown there, by host.
    certificates: BTreeMap<Arc<str>, &'m Name>,
}

/// The listeners of these gateways, those of the oldest first.
pub(super) fn judge<'m>(customs: &Customs, mut gateways: Vec<&'m Gateway>) -> Vec<Judged<'m>> {
    gateways.sort_by_key(|gateway| (&gateway.created, &gateway.object));
    let mut ports = BTreeMap::new();
    let mut judged = Vec::new();
    for gateway in gateways {
        let alone = |listener: &'m Listener| (listener, alone(customs, gateway, listener));
        let alone: Vec<_> = gateway.listeners.iter().map(alone).collect();
        let valid = alone.iter().filter(|(_, refusal)| refusal.is_none()).map(|(listener, _)| *listener);
        let (tls, plain): (Vec<&Listener>, Vec<&Listener>) =
            valid.partition(|listener| certificate(listener).is_some());
        let ports_of = |listeners: Vec<&Listener>| listeners.into_iter().map(|of| of.port).collect::<BTreeSet<u16>>();
        let torn: BTreeSet<u16> = ports_of(tls).intersection(&ports_of(plain)).copied().collect();
        judged.extend(alone.into_iter().map(|(listener, refusal)| {
            let quarrel = || torn.contains(&listener.port).then(|| in_itself(listener.port));
            let refusal = refusal.or_else(quarrel).or_else(|| take(gateway, listener, &mut ports));
            Judged { gateway, listener, refusal }
        }));
    }
    judged
}

/// The path of a listener in its object.
pub(super) fn path(gateway: &Gateway, listener: &Listener) -> String {
    let list = match gateway.class {
        GatewayClass::Named(_) => "spec.listeners",
        GatewayClass::Pods(_) => "spec.servers",
    };
    format!("{list}[{}]", listener.at)
}

/// The certificate that a listener shows; none where it speaks no TLS.
pub(super) fn certificate(listener: &Listener) -> Option<&Name> {
    let tls = listener.tls.as_ref().filter(|_| listener.protocol == ListenerProtocol::Https);
    tls.and_then(|tls| tls.certificates.first())
}

/// Why a listener could not be listened on if there were no others.
fn alone(customs: &Customs, gateway: &Gateway, listener: &Listener) -> Option<attach::Refusal> {
    let refusal = |reason: Reason, problem: &str, cure: &'static str| Some((reason, problem.to_owned(), cure));
    let name = match (listener.protocol, &listener.tls) {
        (ListenerProtocol::Http, None) => return None,
        (ListenerProtocol::Http, Some(_)) => {
            let problem = "it has TLS, but its protocol is HTTP";
            return refusal(Reason::Unsupported, problem, "let its protocol be HTTPS");
        }
        (ListenerProtocol::Tls | ListenerProtocol::Tcp, _) => {
            let problem = "connections that are not HTTP do not enter yet";
            return refusal(Reason::UnsupportedProtocol, problem, "let it speak HTTP or HTTPS");
        }
        (ListenerProtocol::Https, Some(tls)) if tls.passthrough => {
            let problem = "TLS that ends at the server does not enter yet";
            return refusal(Reason::Unsupported, problem, "end it here, by a Secret");
        }
        (ListenerProtocol::Https, Some(tls)) if tls.mutual => {
            let problem = "certificates of clients are not asked for yet";
            return refusal(Reason::Unsupported, problem, "let the mode be SIMPLE");
        }
        (ListenerProtocol::Https, _) => certificate(listener),
    };
    let Some(name) = name else {
        let cure = "name a Secret of type kubernetes.io/tls";
        return refusal(Reason::InvalidCertificate, "it has no certificate", cure);
    };
    if customs.may_show(&gateway.object.name.namespace, name) {
        return None;
    }
    let problem = format!("no ReferenceGrant lets it use Secret {name}");
    refusal(Reason::NotPermitted, &problem, "create one in the Secret's namespace")
}

fn in_itself(port: u16) -> attach::Refusal {
    let problem = format!("port {port} is that of another listener of the gateway, in another protocol");
    (Reason::ProtocolConflict, problem, "use another port")
}

/// Takes a port for a listener. Returns why not.
fn take<'m>(
    gateway: &'m Gateway,
    listener: &'m Listener,
    ports: &mut BTreeMap<u16, Held<'m>>,
) -> Option<attach::Refusal> {
    let (port, certificate) = (listener.port, certificate(listener));
    let is_tls = certificate.is_some();
    let held = ports.entry(port).or_insert_with(|| Held { by: gateway, is_tls, certificates: BTreeMap::new() });
    if held.is_tls != is_tls {
        let problem = format!("port {port} is that of {}, in another protocol", held.by.object);
        return Some((Reason::ProtocolConflict, problem, "use another port"));
    }
    let certificate = certificate?;
    let hosts = admission::hosts(listener);
    let others =
        hosts.iter().filter(|(_, host)| held.certificates.get(host).is_some_and(|shown| *shown != certificate));
    if others.count() == hosts.len() {
        let problem = format!("another certificate is shown at port {port} for its host");
        return Some((Reason::HostnameConflict, problem, "use another host or port, or the same certificate"));
    }
    for (_, host) in hosts {
        held.certificates.entry(host).or_insert(certificate);
    }
    None
}
