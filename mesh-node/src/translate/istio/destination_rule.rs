//! DestinationRules: how connections to a host are made.
//!
//! In:  a DestinationRule as written.
//! Out: [`TrafficPolicies`]; closed if anything is not understood, for it may be what protects a connection.
//! Source: Istio `DestinationRule`, `Subset`.

use super::{host, traffic_policy};
use crate::api::custom::Custom;
use crate::model::Visibility;
use crate::model::http::{Subset, TrafficPolicies};
use crate::translate::read::{Log, Place};
use std::collections::BTreeMap;

/// The policies that an object is.
pub(in crate::translate) fn policies(log: &Log, object: &Custom, domain: &str) -> TrafficPolicies {
    let namespace = &log.object().name.namespace;
    let (mut policies, is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let of = fields.take("host");
        let host = of.parse("give the name of a host", |text| host::full(text, namespace, domain));
        if host.is_none() {
            of.note("it has no host, so it holds for nothing", "give the name of a host");
        }
        let (all, ports) = traffic_policy::policy(&fields.take("trafficPolicy"));
        let subsets = subsets(&fields.take("subsets"));
        let mut clients = host::visibility(&fields.take("exportTo"), namespace);
        let selector = fields.take("workloadSelector");
        if selector.is_there() {
            // It selects pods of its own namespace: nobody else's traffic is closed because of it.
            clients = Visibility::Namespaces([namespace.clone()].into());
        }
        selector.unsupported("let it hold for the whole namespace");
        TrafficPolicies {
            object: log.object().clone(),
            created: object.metadata.creation_timestamp.clone(),
            host: host.unwrap_or_default().into(),
            clients,
            closed: false,
            all,
            ports,
            subsets,
        }
    });
    policies.closed = !is_clear;
    policies
}

fn subsets(list: &Place<'_>) -> BTreeMap<String, Subset> {
    let mut subsets = BTreeMap::new();
    for place in list.items() {
        let Some(mut fields) = place.fields() else { continue };
        let name = fields.take("name").text();
        let labels = fields.take("labels").labels();
        let policy = fields.take("trafficPolicy");
        let (all, ports) = traffic_policy::policy(&policy);
        let subset = Subset { labels, policy: policy.is_there().then_some(all), ports };
        match name {
            None | Some("") => place.refuse("a subset needs a name", "give one"),
            Some(name) if subsets.contains_key(name) => place.refuse(format!("`{name}` is there twice"), "remove one"),
            Some(name) => drop(subsets.insert(name.to_owned(), subset)),
        }
    }
    subsets
}
