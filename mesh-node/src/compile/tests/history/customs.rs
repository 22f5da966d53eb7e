//! Routes, policies and hosts at random: few enough names that they quarrel.

use super::{labels, pick, policies, some};
use crate::api::custom::{Custom, CustomKind};
use crate::api::meta::ObjectMeta;
use crate::model::CONTROLLER;
use fastrand::Rng;
use serde_json::{Value, json};

fn host(rng: &mut Rng) -> &'static str {
    pick(
        rng,
        &[
            "n0",
            "n1",
            "n2.shop.svc.cluster.local",
            "n0.bank.svc.cluster.local",
            "a.example.com",
            "*.example.com",
            "*",
            "b c",
        ],
    )
}

fn number(rng: &mut Rng) -> u16 {
    rng.u16(80..83)
}

fn optional(rng: &mut Rng, spec: &mut Value, field: &str, value: impl FnOnce(&mut Rng) -> Value) {
    if rng.bool() {
        spec[field] = value(rng);
    }
}

fn export(rng: &mut Rng, spec: &mut Value) {
    if rng.u8(..3) == 0 {
        spec["exportTo"] = json!([*pick(rng, &[".", "*", "~", "shop", "bank"])]);
    }
}

fn reference(rng: &mut Rng) -> Value {
    let mut reference = json!({"name": format!("n{}", rng.u8(..4)), "port": number(rng)});
    optional(rng, &mut reference, "namespace", |rng| json!(*pick(rng, &["shop", "bank"])));
    if rng.u8(..8) == 0 {
        reference["kind"] = json!("Odd");
    }
    reference
}

fn parents(rng: &mut Rng) -> Value {
    some(rng, 3, |rng| {
        let mut parent = reference(rng);
        parent["group"] = json!(*pick(rng, &["", "", "gateway.networking.k8s.io"]));
        parent["kind"] = json!(*pick(rng, &["Service", "Service", "Gateway"]));
        if rng.bool() {
            parent.as_object_mut().expect("made as one").remove("port");
        }
        parent
    })
    .into()
}

fn route(rng: &mut Rng, is_grpc: bool) -> Value {
    let rules = some(rng, 3, |rng| {
        let mut rule = json!({"backendRefs": some(rng, 2, reference)});
        optional(rng, &mut rule, "matches", |rng| {
            some(rng, 2, |rng| {
                let path = *pick(rng, &["/", "/a", "/a/b", "odd"]);
                if is_grpc {
                    json!({"method": {"service": "s", "method": path.trim_start_matches('/')}})
                } else {
                    json!({"path": {"type": *pick(rng, &["Exact", "PathPrefix", "RegularExpression"]), "value": path}})
                }
            })
            .into()
        });
        if rng.u8(..8) == 0 {
            rule["odd"] = json!(1);
        }
        rule
    });
    json!({"parentRefs": parents(rng), "rules": rules})
}

fn virtual_service(rng: &mut Rng) -> Value {
    let http = some(rng, 3, |rng| {
        let mut rule = json!({"route": some(rng, 2, |rng| json!({
            "destination": {"host": host(rng), "subset": *pick(rng, &["", "v1", "v2"])},
            "weight": rng.u8(..3),
        }))});
        optional(rng, &mut rule, "match", |rng| {
            json!([{
                "uri": {"prefix": *pick(rng, &["/", "/a"])},
                "sourceLabels": labels(rng),
                "port": number(rng),
            }])
        });
        optional(rng, &mut rule, "timeout", |rng| json!(*pick(rng, &["1s", "odd"])));
        rule
    });
    let mut spec = json!({"hosts": some(rng, 2, host), "http": http});
    for list in ["tcp", "tls"] {
        optional(rng, &mut spec, list, |rng| some(rng, 2, |rng| stream_rule(rng, list)).into());
    }
    optional(rng, &mut spec, "gateways", |rng| json!([*pick(rng, &["mesh", "n0", "shop/n1"])]));
    export(rng, &mut spec);
    spec
}

fn stream_rule(rng: &mut Rng, list: &str) -> Value {
    let mut rule = json!({"route": some(rng, 2, |rng| json!({
        "destination": {"host": host(rng), "subset": *pick(rng, &["", "v1"])},
        "weight": rng.u8(..3),
    }))});
    optional(rng, &mut rule, "match", |rng| {
        let mut found = json!({"sourceLabels": labels(rng), "port": number(rng)});
        optional(rng, &mut found, "destinationSubnets", |rng| json!([*pick(rng, &["10.0.0.0/8", "odd"])]));
        if list == "tls" {
            found["sniHosts"] = json!([*pick(rng, &["a.example", "*.example", "a b"])]);
        }
        json!([found])
    });
    rule
}

fn policy(rng: &mut Rng) -> Value {
    let simple = *pick(rng, &["RANDOM", "ROUND_ROBIN", "PASSTHROUGH", "odd"]);
    let mode = *pick(rng, &["DISABLE", "SIMPLE", "ISTIO_MUTUAL", "MUTUAL"]);
    json!({"loadBalancer": {"simple": simple}, "tls": {"mode": mode}})
}

fn destination_rule(rng: &mut Rng) -> Value {
    let subsets = some(rng, 2, |rng| json!({"name": *pick(rng, &["v1", "v2"]), "labels": labels(rng)}));
    let mut spec = json!({"host": host(rng), "subsets": subsets});
    optional(rng, &mut spec, "trafficPolicy", policy);
    export(rng, &mut spec);
    spec
}

fn service_entry(rng: &mut Rng) -> Value {
    let endpoints = some(rng, 2, |rng| json!({"address": format!("10.1.0.{}", rng.u8(1..9)), "labels": labels(rng)}));
    let mut spec = json!({
        "hosts": some(rng, 2, host),
        "ports": [{"number": number(rng), "name": "http", "protocol": *pick(rng, &["HTTP", "TCP", "TLS"])}],
        "resolution": *pick(rng, &["NONE", "STATIC", "DNS", "DYNAMIC_DNS"]),
        "endpoints": endpoints,
    });
    optional(rng, &mut spec, "addresses", |rng| json!([format!("10.0.0.{}", rng.u8(1..60))]));
    optional(rng, &mut spec, "workloadSelector", |rng| json!({"labels": labels(rng)}));
    export(rng, &mut spec);
    spec
}

fn authorization_policy(rng: &mut Rng) -> Value {
    let rules = some(rng, 2, |rng| {
        let mut rule = json!({});
        let namespace = *pick(rng, &["shop", "bank", "*"]);
        optional(
            rng,
            &mut rule,
            "from",
            |rng| json!([{"source": {*pick(rng, &["namespaces", "notNamespaces", "odd"]): [namespace]}}]),
        );
        optional(
            rng,
            &mut rule,
            "to",
            |rng| json!([{"operation": {"ports": [number(rng).to_string()], "paths": ["/a*"]}}]),
        );
        rule
    });
    let mut spec = json!({"action": *pick(rng, &["ALLOW", "DENY", "AUDIT", "CUSTOM"]), "rules": rules});
    match rng.u8(..4) {
        0 => spec["selector"] = json!({"matchLabels": labels(rng)}),
        1 => {
            let of_kind = [("", "Service"), ("gateway.networking.k8s.io", "Gateway"), ("", "Gateway")];
            let (group, kind) = *pick(rng, &of_kind);
            spec["targetRefs"] = json!([{"group": group, "kind": kind, "name": format!("n{}", rng.u8(..4))}]);
        }
        _ => {}
    }
    spec
}

/// An object of this kind.
pub(super) fn custom(rng: &mut Rng, kind: CustomKind, mut metadata: ObjectMeta) -> Custom {
    let spec = match kind {
        CustomKind::HttpRoute => route(rng, false),
        CustomKind::GrpcRoute => route(rng, true),
        CustomKind::VirtualService => virtual_service(rng),
        CustomKind::DestinationRule => destination_rule(rng),
        CustomKind::ServiceEntry => service_entry(rng),
        CustomKind::WorkloadEntry => json!({"address": format!("10.2.0.{}", rng.u8(1..9)), "labels": labels(rng)}),
        CustomKind::ReferenceGrant => json!({
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": *pick(rng, &["shop", "bank"])}],
            "to": [{"group": "", "kind": "Service"}],
        }),
        CustomKind::Gateway => {
            let mut listener =
                json!({"name": "l", "port": number(rng), "protocol": *pick(rng, &["HTTP", "HTTP", "HTTPS"])});
            let from = *pick(rng, &["Same", "All", "Selector"]);
            optional(
                rng,
                &mut listener,
                "allowedRoutes",
                |rng| json!({"namespaces": {"from": from, "selector": {"matchLabels": labels(rng)}}}),
            );
            optional(
                rng,
                &mut listener,
                "tls",
                |rng| json!({"certificateRefs": [{"name": "n0", "namespace": *pick(rng, &["shop", "bank"])}]}),
            );
            json!({"gatewayClassName": *pick(rng, &["n0", "n1", "n2"]), "listeners": [listener]})
        }
        CustomKind::IstioGateway => {
            let selector = *pick(rng, &["ingressgateway", "ingressgateway", "other"]);
            json!({"selector": {"istio": selector}, "servers": [{"port": {"number": number(rng), "protocol": "HTTP", "name": "h"}, "hosts": [host(rng)]}]})
        }
        CustomKind::GatewayClass => json!({"controllerName": *pick(rng, &[CONTROLLER, CONTROLLER, "other/one"])}),
        CustomKind::AuthorizationPolicy => authorization_policy(rng),
        CustomKind::RequestAuthentication => {
            let mut spec = json!({"jwtRules": some(rng, 1, |_| json!({"issuer": "x"}))});
            optional(rng, &mut spec, "selector", |rng| json!({"matchLabels": labels(rng)}));
            spec
        }
        CustomKind::Sidecar => json!({"odd": rng.u8(..2)}),
        CustomKind::NetworkPolicy => policies::kubernetes(rng),
        CustomKind::ClusterNetworkPolicy => policies::cluster(rng),
        CustomKind::Calico(kind, store) => {
            policies::annotate(rng, store, &mut metadata);
            policies::calico(rng, kind)
        }
    };
    let mut metadata = metadata;
    if kind == CustomKind::AuthorizationPolicy && rng.u8(..4) == 0 {
        metadata.annotations.insert("istio.io/dry-run".to_owned(), "true".to_owned());
    }
    Custom { metadata, spec: spec.as_object().expect("made as one").clone(), reported: None }
}
