//! Where something goes that a pod dials.

use super::end::{End, Who};
use super::question::Understood;
use super::{Route, pod};
use crate::model::http::UpstreamTls;
use crate::policy::Sni;
use crate::route::{cors, matching, rewriting};
use crate::snapshot::http::{self, Destination, Endpoints, RouteOrigin, Upstream};
use crate::snapshot::{NodeSnapshot, PodKey, ServicePortEntry};
use ::http::StatusCode;
use std::net::SocketAddr;

/// How something is routed, and to where.
#[derive(Default)]
pub(super) struct Routed {
    pub(super) route: Route,
    pub(super) ways: Vec<Way>,
}

/// Places of one share.
pub(super) struct Way {
    pub(super) share: Option<String>,
    pub(super) to: Vec<SocketAddr>,
    /// Those of which only names are known.
    pub(super) names: Vec<String>,
    /// Is mutual TLS spoken to those that speak it, as no traffic policy forbids?
    pub(super) is_mutual: bool,
    /// The request as it goes there.
    pub(super) request: Option<Understood>,
}

/// Finds out.
pub(super) fn find(
    snapshot: &NodeSnapshot,
    source: &End,
    dialled: SocketAddr,
    (request, sni): (Option<&Understood>, &Sni),
) -> Routed {
    let steered = source.pod().and_then(|name| pod(snapshot, name)).filter(|(_, pod)| pod.enrolled);
    let name = match (request, sni) {
        (Some(request), _) => Some(request.authority.host()),
        (None, Sni::Name(name)) => Some(&**name),
        (None, Sni::Absent | Sni::Unread) => None,
    };
    let named = steered.zip(name).map(|((_, pod), name)| (name, &*pod.name.namespace));
    let Some(service) = snapshot.directory.dialled(dialled, named) else {
        return Routed::to(vec![dialled], request);
    };
    let Some(port) = service.port(dialled.port()) else {
        let ports: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
        return Routed::answered(format!("the service has no such port; it has {}", ports.join(", ")));
    };
    let Some((key, _)) = steered else {
        let mut routed = Routed::to(port.endpoints.iter().collect(), request);
        routed.route.notes.push(unasked(source).to_owned());
        return routed;
    };
    match (&port.routes, request) {
        (Some(routes), Some(request)) => by_table(routes.table(key), request, Some(dialled)),
        (Some(_), None) => {
            let mut routed = by_streams((port, key), dialled, sni);
            routed.route.notes.push("requests are routed: give METHOD and PATH".to_owned());
            routed
        }
        (None, Some(request)) if !port.protocol.is_opaque() => unrouted((port, key), dialled, Some(request)),
        (None, _) => by_streams((port, key), dialled, sni),
    }
}

impl Routed {
    fn to(to: Vec<SocketAddr>, request: Option<&Understood>) -> Self {
        Self::led(Led { to, is_mutual: true, ..Led::default() }, request)
    }

    fn led(Led { to, names, is_mutual, notes }: Led, request: Option<&Understood>) -> Self {
        let mut routed = if to.is_empty() && names.is_empty() {
            Self::answered("no endpoint is ready".to_owned())
        } else {
            let way = Way { share: None, to, names, is_mutual, request: request.cloned() };
            Self { route: Route::default(), ways: vec![way] }
        };
        routed.route.notes.extend(notes);
        routed
    }

    /// As a rule says.
    fn by(origin: &RouteOrigin) -> Self {
        let rule = Some(format!("{}, {}", origin.object, origin.rule));
        Self { route: Route { rule, ..Route::default() }, ways: Vec::new() }
    }

    /// Also to this, which has such a share. `fate` says what becomes of what falls to one that cannot be used.
    fn add(
        &mut self,
        (share, destination): (Option<String>, &Destination),
        dialled: Option<SocketAddr>,
        request: Option<Understood>,
        fate: impl Fn(StatusCode) -> String,
    ) {
        match destination {
            Destination::Upstream(upstream) => {
                let Led { to, names, is_mutual, notes } = endpoints(upstream, dialled);
                self.route.notes.extend(notes);
                self.ways.push(Way { share, to, names, is_mutual, request });
            }
            Destination::Invalid(status) => {
                let share = share.unwrap_or_else(|| "all".to_owned());
                self.route.notes.push(format!("{share}: {}, the backend cannot be used", fate(*status)));
            }
        }
    }

    pub(super) fn answered(answer: String) -> Self {
        Self { route: Route { answered: Some(answer), ..Route::default() }, ways: Vec::new() }
    }
}

/// Where connections to a port go.
fn unrouted((port, key): (&ServicePortEntry, &PodKey), dialled: SocketAddr, request: Option<&Understood>) -> Routed {
    match port.upstream_of(key) {
        Some(upstream) => Routed::led(endpoints(upstream, Some(dialled)), request),
        None => Routed::to(port.endpoints.iter().collect(), request),
    }
}

/// Where connections to a port go that are no HTTP.
fn by_streams((port, key): (&ServicePortEntry, &PodKey), dialled: SocketAddr, sni: &Sni) -> Routed {
    let Some(table) = port.streams.as_ref().map(|streams| streams.table(key)) else {
        return unrouted((port, key), dialled, None);
    };
    let name = match sni {
        Sni::Name(name) => Some(&**name),
        Sni::Absent | Sni::Unread => None,
    };
    let mut routed = match table.find(name, dialled.ip()) {
        Some(action) => by_action(action, dialled),
        None if table.is_closed => {
            Routed::answered("refused: no rule for TLS on the port means the server name".to_owned())
        }
        None => unrouted((port, key), dialled, None),
    };
    if table.asks_sni() && *sni == Sni::Unread {
        let note = "connections are routed by the server name that is asked for in TLS, here by none: give --sni";
        routed.route.notes.push(note.to_owned());
    }
    routed
}

/// Where a rule sends a connection that dialled this address.
fn by_action(action: &http::StreamAction, dialled: SocketAddr) -> Routed {
    let mut routed = Routed::by(&action.origin);
    let all: u64 = action.backends.iter().map(|(weight, _)| u64::from(*weight)).sum();
    for (weight, destination) in action.backends.iter().filter(|(weight, _)| *weight > 0) {
        let share = (action.backends.len() > 1).then(|| format!("{weight} of {all}"));
        routed.add((share, destination), Some(dialled), None, |_| "refused".to_owned());
    }
    if routed.ways.is_empty() {
        routed.route.answered = Some("refused: the rule leads nowhere".to_owned());
    }
    routed
}

/// Where a table sends a request that dialled this address, if it is known.
pub(super) fn by_table(table: &http::RouteTable, request: &Understood, dialled: Option<SocketAddr>) -> Routed {
    let Some(route) = table.routes.iter().find(|route| matching::meets(&request.asked(), &route.condition)) else {
        return Routed::answered("404: no rule of the routes for this port matches".to_owned());
    };
    let mut routed = Routed::by(&route.action.origin);
    let filters = &route.action.filters;
    if let Some(cors::Verdict::Answer(_)) = filters.cors.as_ref().map(|policy| cors::judge(&request.asked(), policy)) {
        routed.route.answered = Some("200: the rule says what other sites may ask".to_owned());
        return routed;
    }
    let fault = &filters.fault;
    if let Some((delay, _)) = fault.delay {
        routed.route.notes.push(format!("a fault delays it by {} ms, for a share of requests", delay.as_millis()));
    }
    if let Some((status, _)) = fault.abort {
        routed.route.notes.push(format!("a fault answers {status}, for a share of requests"));
    }
    match &route.action.target {
        http::Target::Redirect(redirect) => routed.route.answered = Some(format!("{}: a redirect", redirect.status)),
        http::Target::Respond { status, .. } => routed.route.answered = Some(status.to_string()),
        http::Target::Backends(backends) => {
            let mut changed = request.clone();
            let Understood { head, authority, scheme } = &mut changed;
            rewriting::rewrite((head, authority), scheme, &route.condition.path, filters);
            let all: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
            for backend in backends.iter().filter(|backend| backend.weight > 0) {
                let share = (backends.len() > 1).then(|| format!("{} of {all}", backend.weight));
                let mut request = changed.clone();
                rewriting::change(&mut request.head.headers, &backend.request_headers);
                let to = (share, &backend.destination);
                routed.add(to, dialled, Some(request), |status| format!("answered {status}"));
            }
            if routed.ways.is_empty() {
                routed.route.answered = Some("500: the rule leads nowhere".to_owned());
            }
        }
    }
    routed
}

/// Why no routes are asked.
fn unasked(source: &End) -> &'static str {
    match &source.who {
        Who::Edge(_) => "what enters is routed at its gateway: ask with the gateway as destination for that",
        Who::Pod(_) | Who::Other => "the source is not in the mesh, so that routes are not asked",
    }
}

/// Where an upstream is, and what is to be said of it.
#[derive(Default)]
struct Led {
    to: Vec<SocketAddr>,
    names: Vec<String>,
    is_mutual: bool,
    notes: Vec<String>,
}

fn endpoints(upstream: &Upstream, original: Option<SocketAddr>) -> Led {
    let mut led = Led { is_mutual: upstream.tls == UpstreamTls::Mesh, ..Led::default() };
    match &upstream.endpoints {
        Endpoints::Static(all) if all.is_empty() => led.notes.push(format!("{} has no ready endpoint", upstream.key)),
        Endpoints::Static(all) => led.to = all.iter().map(|endpoint| endpoint.address).collect(),
        Endpoints::Dns(names) => led.names = names.iter().map(|(name, port)| format!("{name}:{port}")).collect(),
        Endpoints::Original => led.to.extend(original),
    }
    match &upstream.tls {
        UpstreamTls::Mesh => {}
        UpstreamTls::Disable => led.notes.push(format!("a traffic policy has plain text spoken to {}", upstream.key)),
        UpstreamTls::Originate(_) => {
            led.notes.push(format!("a traffic policy has TLS of its own spoken to {}", upstream.key));
        }
    }
    led
}
