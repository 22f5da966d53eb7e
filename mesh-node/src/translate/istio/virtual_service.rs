//! VirtualServices: how HTTP to hosts is routed, and other connections.
//!
//! In:  a VirtualService as written.
//! Out: an [`HttpRoute`].
//! Invariant: a rule that is not understood answers 500 to whatever its matches, as far as they are understood, cover; one for
//! connections refuses it.
//! Source: Istio `VirtualService`.

use super::{action, host, http_match, stream_rule};
use crate::api::custom::Custom;
use crate::model::http::{HttpRoute, HttpRule, Parent, RouteApi, RuleList};
use crate::model::{Name, Text, Visibility};
use crate::translate::read::{Log, Place};
use std::sync::Arc;

/// The name that stands for the pods of the mesh among gateways.
const MESH: &str = "mesh";

/// What is read in its sense.
pub(super) struct Reader<'a> {
    pub(super) namespace: &'a Text,
    pub(super) domain: &'a str,
}

/// The route that an object is.
pub(in crate::translate) fn route(log: &Log, object: &Custom, domain: &str) -> HttpRoute {
    let reader = Reader { namespace: &log.object().name.namespace, domain };
    let ((parents, hostnames, mut rules, [mut tcp, mut tls]), is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let hosts = hosts(&fields.take("hosts"), &reader);
        let gateways = gateways(&fields.take("gateways"), reader.namespace);
        let clients = host::visibility(&fields.take("exportTo"), reader.namespace);
        let http = fields.take("http");
        let rules: Vec<HttpRule> = http.items().iter().map(|place| rule(place, &reader)).collect();
        let tcp = stream_rule::rules(&fields.take("tcp"), RuleList::Tcp, &reader);
        let tls = stream_rule::rules(&fields.take("tls"), RuleList::Tls, &reader);
        let is_empty = rules.is_empty() && tcp.is_empty() && tls.is_empty();
        let parents = if is_empty { Vec::new() } else { parents(&hosts, gateways, &clients, &reader) };
        (parents, hosts, rules, [tcp, tls])
    });
    if !is_clear {
        rules.iter_mut().for_each(|rule| rule.action = action::refusal());
        tcp.iter_mut().chain(&mut tls).for_each(|rule| rule.backends.clear());
    }
    HttpRoute {
        object: log.object().clone(),
        api: RouteApi::Istio,
        created: object.metadata.creation_timestamp.clone(),
        parents,
        references: Vec::new(),
        hostnames,
        rules: rules.into_iter().map(Arc::new).collect(),
        tcp: tcp.into_iter().map(Arc::new).collect(),
        tls: tls.into_iter().map(Arc::new).collect(),
    }
}

/// The hosts; one that is no host name is none.
fn hosts(list: &Place<'_>, reader: &Reader<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for place in list.items() {
        let full = place.parse("give the name of a host", |text| host::full(text, reader.namespace, reader.domain));
        hosts.extend(full.filter(|host| !hosts.contains(host)));
    }
    if hosts.is_empty() {
        list.note("it names no host, so it routes nothing", "name a host");
    }
    hosts
}

/// Where requests come from: gateways by name, or `None` for pods of the mesh, which are meant where none is named.
pub(super) fn gateways(list: &Place<'_>, namespace: &Text) -> Vec<Option<Name>> {
    let read = |text: &str| match text.split_once('/') {
        _ if text == MESH => None,
        Some((namespace, name)) => Some(Name::new(namespace, name)),
        None => Some(Name::new(namespace.clone(), text)),
    };
    let mut gateways: Vec<_> = list.texts().into_iter().map(read).collect();
    gateways.sort();
    gateways.dedup();
    gateways
}

fn parents(hosts: &[String], gateways: Vec<Option<Name>>, clients: &Visibility, reader: &Reader<'_>) -> Vec<Parent> {
    let gateways = if gateways.is_empty() { vec![None] } else { gateways };
    let clients: Vec<Option<Text>> = match clients {
        Visibility::Everyone => vec![None],
        Visibility::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
    };
    let mut parents = Vec::new();
    for gateway in gateways {
        let Some(name) = gateway else {
            for host in hosts {
                let service = host::service(host, reader.domain);
                parents.extend(clients.iter().cloned().map(|clients| match &service {
                    Some(name) => Parent::Service { name: name.clone(), port: None, section: None, clients },
                    None => Parent::Host { host: host.clone(), clients },
                }));
            }
            continue;
        };
        parents.push(Parent::Gateway { name, listener: None, port: None });
    }
    parents.sort();
    parents.dedup();
    parents
}

fn rule(place: &Place<'_>, reader: &Reader<'_>) -> HttpRule {
    let (rule, is_clear) = place.log().part(|| {
        let mut fields = place.fields()?;
        let name = fields.take("name").text().unwrap_or_default().to_owned();
        let matches = http_match::matches(&fields.take("match"), reader);
        let action = action::action(&mut fields, reader);
        let mut rule = HttpRule { name, matches, action };
        http_match::cover(&mut rule);
        Some(rule)
    });
    let mut rule =
        rule.unwrap_or_else(|| HttpRule { name: String::new(), matches: Vec::new(), action: action::refusal() });
    if !is_clear {
        rule.action = action::refusal();
    }
    rule
}
