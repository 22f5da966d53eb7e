//! Gateways and their listeners.
//!
//! In:  Gateways and GatewayClasses as written.
//! Out: a [`Gateway`]; a listener that is not understood is left out, so that nothing listens there.
//! Source: Gateway API `Gateway`, `GatewayClass`.

use super::{GATEWAY_API, full_name};
use crate::api::custom::Custom;
use crate::model::{
    AllowedRoutes, Gateway, GatewayClass, Labels, Listener, ListenerProtocol, ListenerTls, Reason, Text,
};
use crate::translate::read::{Log, Place};
use std::sync::Arc;

/// The routes that can attach to a listener of HTTP.
const ROUTES: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

/// Whose gateways those of a class are: the name of a controller.
pub(in crate::translate) fn class(log: &Log, object: &Custom) -> String {
    let mut fields = log.spec(&object.spec);
    let controller = fields.take("controllerName").text().unwrap_or_default().to_owned();
    fields.take("description").immaterial();
    fields.take("parametersRef").ignored("classes have no parameters");
    controller
}

/// The gateway that an object is.
pub(in crate::translate) fn gateway(log: &Log, object: &Custom) -> Gateway {
    let namespace = &log.object().name.namespace;
    let ((class, listeners), is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let class = fields.take("gatewayClassName").text().unwrap_or_default().to_owned();
        fields.take("addresses").ignored("a gateway listens on its nodes' addresses");
        fields.take("infrastructure").ignored("nothing is created for a gateway");
        fields.take("allowedListeners").ignored("no ListenerSet attaches");
        fields.take("defaultScope").ignored("no route attaches by default");
        fields.take("tls").unsupported("give TLS in the listener");
        let listeners: Vec<_> = fields
            .take("listeners")
            .items()
            .iter()
            .enumerate()
            .filter_map(|(at, place)| {
                let (listener, is_clear) = place.log().part(|| listener((at, place), namespace));
                listener.filter(|_| is_clear)
            })
            .collect();
        (class, listeners)
    });
    Gateway {
        object: log.object().clone(),
        uid: object.metadata.uid.as_str().into(),
        generation: object.reported.as_ref().map_or(0, |reported| reported.generation),
        created: object.metadata.creation_timestamp.clone(),
        class: GatewayClass::Named(class),
        listeners: if is_clear { listeners } else { Vec::new() },
    }
}

fn listener((at, place): (usize, &Place<'_>), namespace: &Text) -> Option<Listener> {
    use ListenerProtocol::{Http, Https, Tcp, Tls};
    let mut fields = place.fields()?;
    let name = fields.take("name").text().unwrap_or_default().to_owned();
    let port = fields.take("port").port();
    let words = [("HTTP", Http), ("HTTPS", Https), ("TLS", Tls), ("TCP", Tcp)];
    let protocol = fields.take("protocol").choice_except(&words, &["UDP"]);
    let hostname = fields.take("hostname").text();
    let tls = tls(&fields.take("tls"), namespace);
    let (mut routes, mut chosen) = (AllowedRoutes::Same, None);
    if let Some(mut fields) = fields.take("allowedRoutes").fields() {
        routes = allowed(&fields.take("namespaces"));
        chosen = kinds(&fields.take("kinds"));
    }
    let hostnames = hostname.into_iter().map(Arc::from).collect();
    let (port, protocol) = (port?, protocol?);
    let kinds = match protocol {
        Http | Https => chosen.unwrap_or_else(|| ROUTES.to_vec()),
        Tls | Tcp => Vec::new(),
    };
    Some(Listener { at, name, port, protocol, hostnames, tls, routes, kinds })
}

/// The kinds of routes that are chosen; `None` if none is named. Of those that are named, others cannot attach.
fn kinds(list: &Place<'_>) -> Option<Vec<&'static str>> {
    let mut known = Vec::new();
    for place in list.items() {
        let Some(mut fields) = place.fields() else { continue };
        let group = fields.take("group").text().unwrap_or(GATEWAY_API);
        let kind = fields.take("kind");
        let Some(word) = kind.word(&ROUTES) else { continue };
        match ROUTES.into_iter().find(|route| *route == word && group == GATEWAY_API) {
            Some(route) if !known.contains(&route) => known.push(route),
            Some(_) => {}
            None => {
                let problem = format!("{word} of group `{group}` is no route that can attach to it");
                let cure = format!("name {} of {GATEWAY_API}", ROUTES.join(" or "));
                kind.log().tell(Reason::InvalidKind, kind.path(), problem, cure);
            }
        }
    }
    (!list.items().is_empty()).then_some(known)
}

fn tls(place: &Place<'_>, namespace: &Text) -> Option<ListenerTls> {
    let mut fields = place.fields()?;
    let mode = fields.take("mode").choice(&[("Terminate", false), ("Passthrough", true)]);
    let mut certificates = Vec::new();
    for place in fields.take("certificateRefs").items() {
        let Some(mut fields) = place.fields() else { continue };
        let group = fields.take("group").text().unwrap_or_default();
        let kind = fields.take("kind").word(&["Secret"]).unwrap_or("Secret");
        let of = fields.take("namespace").text();
        let name = fields.take("name").text();
        if (group, kind) == ("", "Secret") {
            certificates.extend(name.map(|name| full_name(of, namespace, name)));
        } else {
            let problem = format!("{kind} of group `{group}` is no certificate that can be shown");
            place.log().tell(Reason::InvalidCertificate, place.path(), problem, "name a Secret");
        }
    }
    if certificates.len() > 1 {
        place.note("only the first of its certificates is shown", "name one for each listener");
    }
    fields.take("options").ignored("no options are known");
    Some(ListenerTls { passthrough: mode.unwrap_or_default(), certificates, mutual: false })
}

fn allowed(place: &Place<'_>) -> AllowedRoutes {
    let Some(mut fields) = place.fields() else { return AllowedRoutes::Same };
    let words = [
        ("Same", AllowedRoutes::Same),
        ("All", AllowedRoutes::All),
        ("Selector", AllowedRoutes::Selected(Labels::new())),
    ];
    let from = fields.take("from").choice(&words).unwrap_or(AllowedRoutes::Same);
    let mut labels = Labels::new();
    if let Some(mut fields) = fields.take("selector").fields() {
        labels = fields.take("matchLabels").labels();
        fields.take("matchExpressions").unsupported("select by matchLabels");
    }
    if matches!(from, AllowedRoutes::Selected(_)) { AllowedRoutes::Selected(labels) } else { from }
}
