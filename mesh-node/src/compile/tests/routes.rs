//! Routes of services, from what users write to what is tried.

use super::{attach, compiled};
use crate::snapshot::http::{
    Backend, Destination, Endpoints, HttpPort, RouteTable, StreamPort, StreamRoute, StreamTable, Target, Upstream,
};
use crate::snapshot::{NodeSnapshot, ServicePortEntry};
use crate::world::World;
use crate::world::fixture::world;
use expect_test::{Expect, expect};
use std::fmt::Write;

mod gateway;
mod istio;
mod policy;
mod streams;

/// Two local pods, `client` in the namespace default and `other` in the namespace shop, and the services of Bookinfo
/// that count.
const CLUSTER: &str = "
{kind: Namespace, metadata: {name: default, labels: {istio.io/dataplane-mode: ambient}}}
---
{kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
---
{kind: Pod, metadata: {name: client, labels: {app: client}}, spec: {nodeName: one}, status: {podIP: 10.0.0.1}}
---
{kind: Pod, metadata: {name: other, namespace: shop, labels: {app: other}}, spec: {nodeName: one}, status: {podIP: 10.0.0.9}}
---
{kind: Pod, metadata: {name: reviews-1, labels: {app: reviews, version: v1}}, spec: {nodeName: two}, status: {podIP: 10.0.1.1}}
---
{kind: Pod, metadata: {name: reviews-2, labels: {app: reviews, version: v2}}, spec: {nodeName: one}, status: {podIP: 10.0.1.2}}
---
{kind: Service, metadata: {name: reviews}, spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 9080}]}}
---
{kind: EndpointSlice, metadata: {name: reviews-a, labels: {kubernetes.io/service-name: reviews}}, addressType: IPv4,
 ports: [{name: http, port: 9080}],
 endpoints: [{addresses: [10.0.1.1], nodeName: two, zone: west}, {addresses: [10.0.1.2], nodeName: one, zone: east}]}
---
{kind: Service, metadata: {name: ratings}, spec: {clusterIP: 10.96.0.2, ports: [{name: web, port: 9080}, {name: tcp-db, port: 3306}]}}
---
{kind: EndpointSlice, metadata: {name: ratings-a, labels: {kubernetes.io/service-name: ratings}}, addressType: IPv4,
 ports: [{name: web, port: 9080}], endpoints: [{addresses: [10.0.1.3], nodeName: two}]}
---
{kind: Service, metadata: {name: pay, namespace: shop}, spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 80}]}}
---
";

pub(super) fn cluster(yaml: &str) -> World {
    let mut world = world(&format!("{CLUSTER}{yaml}"));
    attach(&mut world, "client", "c1", None, &["10.0.0.1"]);
    world.apply(crate::world::Change::Attach(crate::world::Attachment {
        container_id: "c2".to_owned(),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/c2".to_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: "other".to_owned(),
        pod_uid: None,
        addresses: vec!["10.0.0.9".parse().expect("an address")],
    }));
    world
}

fn upstream(upstream: &Upstream) -> String {
    let mut text = upstream.key.to_string();
    match &upstream.endpoints {
        Endpoints::Static(endpoints) => {
            let endpoints = endpoints.iter().map(|endpoint| {
                let distance = if endpoint.distance > 0 { format!("+{}", endpoint.distance) } else { String::new() };
                let weight = if endpoint.weight > 1 { format!("*{}", endpoint.weight) } else { String::new() };
                format!("{}{distance}{weight}", endpoint.address)
            });
            write!(text, " [{}]", endpoints.collect::<Vec<_>>().join(" "))
        }
        other @ (Endpoints::Dns(_) | Endpoints::Original) => write!(text, " {other:?}"),
    }
    .expect("writing to a text");
    text
}

fn destination(destination: &Destination) -> String {
    match destination {
        Destination::Upstream(of) => upstream(of),
        Destination::Invalid(status) => format!("!{}", status.as_u16()),
    }
}

fn backend(backend: &Backend) -> String {
    let mut text = format!("{}x {}", backend.weight, destination(&backend.destination));
    if !backend.request_headers.is_empty() {
        write!(text, " request {:?}", backend.request_headers).expect("writing to a text");
    }
    text
}

fn table(table: &RouteTable) -> String {
    let mut lines = Vec::new();
    for route in &table.routes {
        let of = &route.condition;
        let mut line = format!("    {:?}", of.path.kind);
        let more = [
            of.method.as_ref().map(|of| format!(" method {of:?}")),
            (!of.headers.is_empty()).then(|| format!(" headers {:?}", of.headers)),
            (!of.query.is_empty()).then(|| format!(" query {:?}", of.query)),
        ];
        line.extend(more.into_iter().flatten());
        let action = &route.action;
        let target = match &action.target {
            Target::Backends(backends) => backends.iter().map(backend).collect::<Vec<_>>().join(", "),
            Target::Redirect(redirect) => format!("{redirect:?}"),
            Target::Respond { status, .. } => format!("answers {}", status.as_u16()),
        };
        lines.push(format!("{line} => {target} ({} {})", action.origin.object, action.origin.rule));
        for (of, share) in &action.mirrors {
            lines.push(format!("      copied to {} {}", destination(of), share.parts));
        }
    }
    lines.join("\n")
}

fn streams(table: &StreamTable) -> String {
    let line = |route: &StreamRoute| {
        let StreamRoute { condition, action } = route;
        let backends: Vec<_> =
            action.backends.iter().map(|(weight, to)| format!("{weight}x {}", destination(to))).collect();
        format!("    {condition:?} => {} ({} {})", backends.join(", "), action.origin.object, action.origin.rule)
    };
    let end = if table.is_closed { "    others are refused" } else { "    others go on" };
    table.routes.iter().map(line).chain([end.to_owned()]).collect::<Vec<_>>().join("\n")
}

fn port(host: &str, entry: &ServicePortEntry) -> Option<String> {
    let mut text = format!("{host}:{} {:?}\n", entry.port, entry.protocol);
    if let Some(of) = &entry.upstream {
        writeln!(text, "  under {} {:?} {:?}", upstream(of), of.balance, of.tls).expect("writing to a text");
    }
    for (pod, of) in &entry.upstream_by_pod {
        let of = of.as_ref().map_or("nothing".to_owned(), |of| upstream(of));
        writeln!(text, "  under, for {pod}, {of}").expect("writing to a text");
    }
    if let Some(HttpPort { table: of, by_pod }) = entry.routes.as_deref() {
        writeln!(text, "  routes\n{}", table(of)).expect("writing to a text");
        for (pod, of) in by_pod {
            writeln!(text, "  routes for {pod}\n{}", table(of)).expect("writing to a text");
        }
    }
    if let Some(StreamPort { table: of, by_pod }) = entry.streams.as_deref() {
        writeln!(text, "  streams\n{}", streams(of)).expect("writing to a text");
        for (pod, of) in by_pod {
            writeln!(text, "  streams for {pod}\n{}", streams(of)).expect("writing to a text");
        }
    }
    let says_nothing = entry.routes.is_none() && entry.streams.is_none();
    let is_plain = entry.upstream.is_none() && entry.upstream_by_pod.is_empty() && says_nothing;
    (!is_plain).then_some(text)
}

/// Ports about which something is said, then issues.
fn text(snapshot: &NodeSnapshot) -> String {
    let mut ports: Vec<String> = Vec::new();
    for (address, service) in snapshot.directory.services.iter() {
        ports.extend(service.ports.iter().filter_map(|entry| port(&format!("{address} {}", service.name.name), entry)));
    }
    let hosts = &snapshot.directory.hosts;
    let exact = hosts.exact.iter().map(|(host, entries)| (host.to_string(), entries));
    let wildcards = hosts.wildcards.iter().map(|(host, entries)| (format!("*{host}"), entries));
    for (host, entries) in exact.chain(wildcards) {
        for entry in entries {
            let clients = format!("{host} for {:?}", entry.clients);
            ports.extend(entry.service.ports.iter().filter_map(|entry| port(&clients, entry)));
        }
    }
    ports.sort();
    let issues = snapshot.issues.iter().fold(String::new(), |text, issue| text + &issue.to_string() + "\n");
    ports.concat() + &issues
}

pub(super) fn check(yaml: &str, expected: &Expect) {
    let world = cluster(yaml);
    let snapshot = compiled(&world);
    assert_eq!(snapshot, compiled(&world), "an equal world gives an equal snapshot");
    expected.assert_eq(&text(&snapshot));
}

/// A pod's labels decide which subsets and which hosts it answers for, long after these were compiled.
#[test]
fn a_pod_that_is_labelled_anew_moves_between_subsets_and_hosts() {
    let rules = "
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v}, spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: s}, spec: {hosts: [db.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {version: v2}}}}
";
    let mut world = cluster(rules);
    let mut compiler = super::Compiler::of(&world, crate::translate::Settings::default(), super::settings());
    let before = text(&compiler.snapshot());
    let pod = "{kind: Pod, metadata: {name: reviews-1, labels: {app: reviews, version: v2}}, spec: {nodeName: two}, status: {podIP: 10.0.1.1}}";
    let touched = world.learn(crate::world::Change::Upsert(Box::new(crate::world::fixture::object(pod))));
    compiler.learn(&world, touched);
    let after = compiler.snapshot();
    assert_ne!(text(&after), before);
    assert_eq!(text(&after), text(&compiled(&world)));
}
