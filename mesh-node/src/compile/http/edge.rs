//! What enters through gateways.
//!
//! In:  gateways, their classes and certificates, the routes that attach to them.
//! Out: the ports of the edge, each with its routes by host.
//! Invariant: a listener that cannot be served as it was written is not listened on, and an issue says so.
//! Source: Gateway API `Gateway`, "Listener conflicts" and route precedence, where the most exact host comes first; Istio
//! `Gateway` and `VirtualService`, of which one alone routes a host.

use super::index::covering;
use super::listeners::{self, Judged};
use super::{Client, Port, Traffic, admission};
use crate::compile::edge::entrance;
use crate::model::http::{AppProtocol, HttpRoute, Parent, RouteApi, RuleList};
use crate::model::{CONTROLLER, Closed, Gateway, GatewayClass, Issue, Labels, Listener, Name, Reason, Text};
use crate::snapshot::edge::{Certificate, Door, EdgeHost, EdgePort, GatewayRef, ListenerHere};
use crate::snapshot::http::RouteTable;
use crate::snapshot::{ByHost, ServiceName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A listener that is served.
struct Open<'m> {
    gateway: &'m Gateway,
    listener: &'m Listener,
    door: Door,
}

/// What is known of one port.
#[derive(Default)]
struct Building<'m> {
    opens: Vec<Open<'m>>,
    tls: Option<ByHost<Arc<Certificate>>>,
    routes: Vec<Attached<'m>>,
}

/// A route that attached to a gateway.
struct Attached<'m> {
    /// The host for which it did, `*` for all.
    host: Arc<str>,
    route: &'m HttpRoute,
    by: Door,
}

impl<'m> Traffic<'m> {
    /// The ports of the edge, and what became of the listeners of the Gateway API's gateways.
    pub(super) fn edge(&self, issues: &mut Vec<Issue>) -> (Vec<Arc<EdgePort>>, Vec<ListenerHere>) {
        let mut ports: BTreeMap<u16, Building<'m>> = BTreeMap::new();
        let mut gateways: Vec<&Gateway> = self.translator.customs.gateways.values().map(|gateway| &**gateway).collect();
        gateways.retain(|gateway| self.is_ours(gateway, issues));
        let mut here = Vec::new();
        for judged in listeners::judge(&self.translator.customs, gateways.clone()) {
            let (gateway, listener) = (judged.gateway, judged.listener);
            let reason = judged.refusal.as_ref().map(|(reason, ..)| *reason);
            let outcome = self.open(judged, &mut ports);
            here.extend(self.what_became((gateway, listener), reason));
            if let Err((problem, cure)) = outcome {
                let problem = format!("listener `{}` is not listened on: {problem}", listener.name);
                issues.push(Issue::new(&gateway.object, listeners::path(gateway, listener), problem, cure));
            }
        }
        for route in &self.indexes.of_gateway {
            issues.extend([RuleList::Tcp, RuleList::Tls].into_iter().filter(|list| route.has(*list)).map(|list| {
                let problem = "connections that are not HTTP do not enter yet; at gateways the rules have no effect";
                Issue::new(&route.object, format!("spec.{}", list.name()), problem, "name no gateway but `mesh`")
            }));
            self.attach(route, &gateways, &mut ports, issues);
        }
        let ports = ports.into_iter().map(|(number, port)| Arc::new(self.finish(number, port, issues)));
        (ports.collect(), here)
    }

    /// Is it for this edge to carry?
    fn is_ours(&self, gateway: &Gateway, issues: &mut Vec<Issue>) -> bool {
        let (is_ours, problem) = match &gateway.class {
            GatewayClass::Named(class) => {
                let classes = &self.translator.customs.classes;
                let is_there = classes.contains_key(&Name::new("", class.as_str()));
                let problem = (!is_there).then(|| format!("there is no GatewayClass {class}"));
                (admission::is_class_of(self.translator, class, CONTROLLER), problem)
            }
            GatewayClass::Pods(selector) => {
                let own = &self.settings.edge_labels;
                let is_ours = selector.iter().all(|(key, value)| own.get(key) == Some(value));
                (is_ours, (!is_ours).then(|| "no gateway of the mesh has the labels that it selects".to_owned()))
            }
        };
        issues.extend(problem.map(|problem| {
            let problem = format!("{problem}; nothing enters by it");
            let own: Vec<String> =
                self.settings.edge_labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            let cure = match gateway.class {
                GatewayClass::Named(_) => format!("create the class with the controller {CONTROLLER}"),
                GatewayClass::Pods(_) => format!("select `{}`", own.join(", ")),
            };
            let field = match gateway.class {
                GatewayClass::Named(_) => "spec.gatewayClassName",
                GatewayClass::Pods(_) => "spec.selector",
            };
            Issue::new(&gateway.object, field, problem, cure)
        }));
        is_ours
    }

    /// Listens.
    ///
    /// **Errors**: what is wrong, and the cure.
    fn open(
        &self,
        Judged { gateway, listener, refusal }: Judged<'m>,
        ports: &mut BTreeMap<u16, Building<'m>>,
    ) -> Result<(), (String, &'static str)> {
        if let Some((_, problem, cure)) = refusal {
            return Err((problem, cure));
        }
        let certificate = listeners::certificate(listener).map(|name| self.certificate(name)).transpose()?;
        let port = ports.entry(listener.port).or_default();
        if let Some(certificate) = certificate {
            let by_name = port.tls.get_or_insert_default();
            for (_, host) in admission::hosts(listener) {
                let (exact, end) = split(&host);
                let known = if end { &mut by_name.wildcards } else { &mut by_name.exact };
                known.entry(exact).or_insert_with(|| Arc::clone(&certificate));
            }
        }
        let named = GatewayRef { object: gateway.object.clone(), uid: gateway.uid.clone() };
        let door =
            Door { entrance: entrance(gateway), gateway: Arc::new(named), listener: listener.name.as_str().into() };
        port.opens.push(Open { gateway, listener, door });
        Ok(())
    }

    /// What is to be told of a listener of the Gateway API: nothing if its object alone says all.
    fn what_became(&self, (gateway, listener): (&Gateway, &Listener), refused: Option<Reason>) -> Option<ListenerHere> {
        let in_conflict = match refused {
            None => None,
            Some(Reason::ProtocolConflict | Reason::HostnameConflict) => Some(Closed::Conflict),
            Some(_) => return None,
        };
        // Of what its user must do, the certificate comes first.
        let is_shown = listeners::certificate(listener).is_none_or(|name| self.certificate(name).is_ok());
        let closed = if is_shown { in_conflict } else { Some(Closed::InvalidCertificate) };
        (api(gateway) == RouteApi::Gateway && !gateway.uid.is_empty()).then(|| ListenerHere {
            gateway: gateway.uid.clone(),
            generation: gateway.generation,
            name: listener.name.as_str().into(),
            port: listener.port,
            closed,
        })
    }

    /// What is in a Secret.
    fn certificate(&self, name: &Name) -> Result<Arc<Certificate>, (String, &'static str)> {
        let Some(secret) = self.world.secrets().get(name) else {
            let cure = "create it, and name it to the daemons: of the Kubernetes API they read the Secrets of \
                        `MESH_EDGE_CERTIFICATES`, which the chart's `edge.certificates` sets, and no others";
            return Err((format!("Secret {name} is not known"), cure));
        };
        let (chain, key) = secret
            .pair()
            .map_err(|entry| (format!("Secret {name} has no `{entry}`"), "let it be one of type kubernetes.io/tls"))?;
        Certificate::read(&chain, &key)
            .map(Arc::new)
            .map_err(|error| (format!("Secret {name}: {error}"), "store a certificate and its key, both in PEM"))
    }

    /// Finds the listeners that a route attaches to.
    fn attach(
        &self,
        route: &'m HttpRoute,
        gateways: &[&'m Gateway],
        ports: &mut BTreeMap<u16, Building<'m>>,
        issues: &mut Vec<Issue>,
    ) {
        for parent in route.parents.iter().filter(|_| route.has(RuleList::Http)) {
            let Parent::Gateway { name, listener: section, port: number } = parent else { continue };
            let is_it = |gateway: &Gateway| gateway.object.name == *name && api(gateway) == route.api;
            let mut is_taken = false;
            for building in ports.values_mut() {
                let mut found: BTreeSet<(Arc<str>, Door)> = BTreeSet::new();
                for Open { gateway, listener, door } in building.opens.iter().filter(|open| is_it(open.gateway)) {
                    let meant = (section.as_deref(), *number);
                    let hosts = admission::admit(self.world, (gateway, listener), meant, route).unwrap_or_default();
                    found.extend(hosts.into_iter().map(|host| (host, door.clone())));
                }
                is_taken |= !found.is_empty();
                building.routes.extend(found.into_iter().map(|(host, by)| Attached { host, route, by }));
            }
            if is_taken {
                self.taken.borrow_mut().insert((route.object.clone(), RuleList::Http));
            } else if gateways.iter().any(|gateway| is_it(gateway)) {
                let problem = format!("no listener of Gateway {name} takes the route");
                let cure = "let its listeners, hosts and allowed namespaces cover the route";
                issues.push(Issue::new(&route.object, parents_field(route), problem, cure));
            } else if !self.translator.customs.gateways.values().any(|gateway| is_it(gateway)) {
                let problem = format!("there is no Gateway {name}; the route does not hold for it");
                issues.push(Issue::new(&route.object, parents_field(route), problem, "create it, or correct the name"));
            }
        }
    }

    /// The port with its routes: of each host those that cover it, the most exact first.
    fn finish(&self, number: u16, building: Building<'m>, issues: &mut Vec<Issue>) -> EdgePort {
        let gateways = building.opens.iter().map(|open| open.gateway.object.name.clone()).collect();
        let client = Client {
            namespace: self.settings.edge.namespace.to_string(),
            labels: Labels::clone(&self.settings.edge_labels),
            pods: Vec::new(),
            gateways,
        };
        let mut by_host: HashMap<&str, Vec<&Attached<'m>>> = HashMap::new();
        for attached in &building.routes {
            by_host.entry(&attached.host).or_default().push(attached);
        }
        let mut tables = ByHost::default();
        for host in by_host.keys() {
            let (name, is_end) = split(host);
            let known = if is_end { &mut tables.wildcards } else { &mut tables.exact };
            known.insert(name, self.host((number, host), &by_host, &client, issues));
        }
        EdgePort { port: number, tls: building.tls.map(Arc::new), hosts: tables }
    }

    /// What becomes of requests for a host. Policies hold that speak of those gateways to which its routes attach.
    fn host(
        &self,
        (number, host): (u16, &str),
        by_host: &HashMap<&str, Vec<&Attached<'m>>>,
        client: &Client,
        issues: &mut Vec<Issue>,
    ) -> EdgeHost {
        let nobody = Arc::new(ServiceName { host: host.into(), name: Text::new(), namespace: Text::new() });
        let port = Port { service: None, name: &nobody, port: number, port_name: "", protocol: AppProtocol::Http };
        let of = |host: &str, api: RouteApi| -> Vec<&Attached<'m>> {
            let attached = by_host.get(host).into_iter().flatten().copied();
            attached.filter(|attached| attached.route.api == api).collect()
        };
        let (istio, winner) = (of(host, RouteApi::Istio), of(host, RouteApi::Gateway).first().map(|first| first.route));
        if let Some(winner) = winner {
            issues.extend(istio.iter().map(|loser| super::attach::overruled(loser.route, winner, port)));
        }
        let mut seen = BTreeSet::new();
        let asked: Vec<_> = if istio.is_empty() || winner.is_some() {
            let hosts = covering(host).filter(|host| seen.insert(host.clone()));
            hosts.map(|host| of(&host, RouteApi::Gateway)).filter(|found| !found.is_empty()).collect()
        } else {
            vec![istio]
        };
        let (mut routes, mut doors) = (Vec::new(), BTreeSet::new());
        for found in asked {
            doors.extend(found.iter().map(|attached| attached.by.clone()));
            let mut found: Vec<_> = found.into_iter().map(|attached| attached.route).collect();
            // One that attached by several gateways is asked once.
            found.dedup_by(|one, other| std::ptr::eq(*one, *other));
            routes.extend(self.table(port, None, (client, &found), issues).routes);
        }
        let doors = doors.into_iter().collect();
        EdgeHost { table: Arc::new(RouteTable { routes: routes.into() }), doors }
    }
}

fn api(gateway: &Gateway) -> RouteApi {
    match gateway.class {
        GatewayClass::Named(_) => RouteApi::Gateway,
        GatewayClass::Pods(_) => RouteApi::Istio,
    }
}

fn parents_field(route: &HttpRoute) -> &'static str {
    match route.api {
        RouteApi::Gateway => "spec.parentRefs",
        RouteApi::Istio => "spec.gateways",
    }
}

/// The name, or the end of names if the host begins with a star.
fn split(host: &str) -> (Arc<str>, bool) {
    host.strip_prefix('*').map_or_else(|| (host.into(), false), |end| (end.into(), true))
}
