//! Where a connection of an application goes.
//!
//! In:  the snapshot; what was dialled, and the server name that the client asks for in TLS of its own.
//! Out: a [`Course`], and of it a [`Target`]: one endpoint.
//! Invariant: a connection that a rule means, and that the rule leads to nothing, is refused.
//! Source: Istio `VirtualService.tcp` and `.tls`, `DestinationRule`.

use super::{Dialled, from};
use crate::model::Identity;
use crate::model::http::UpstreamTls;
use crate::proxy::http::{self, EndpointStanding, Standing, Went};
use crate::proxy::live::OneMore;
use crate::proxy::refusal::{self, Refusal};
use crate::proxy::tls::outside::Server;
use crate::proxy::worker::{Pod, Worker};
use crate::route;
use crate::route::hashing::hash;
use crate::snapshot::http::{Destination, RouteOrigin, Upstream};
use crate::snapshot::{NodeSnapshot, PodKey, ServiceName, ServicePortEntry, WorkloadEntry};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Where a connection goes, as far as the snapshot says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) to: To,
    /// The service that was dialled, or to which a rule leads, or that the endpoint belongs to.
    pub(super) service: Option<Arc<ServiceName>>,
    /// The rule that leads there.
    pub(super) route: Option<Arc<RouteOrigin>>,
}

/// What a connection goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// This address.
    Address(SocketAddr),
    /// One of these.
    Upstream(Arc<Upstream>),
}

/// An endpoint.
pub(super) struct Target {
    /// The address to connect to.
    pub(super) endpoint: SocketAddr,
    /// The pod at the endpoint.
    pub(super) workload: Option<Arc<WorkloadEntry>>,
    /// Who must be there, if the connection is to be mutual TLS.
    pub(super) identity: Option<Arc<Identity>>,
    /// The server outside to which TLS is spoken, if it is.
    pub(super) outside: Option<Server>,
    /// What its traffic policy counts.
    pub(super) counted: Option<Counted>,
}

/// A connection under a traffic policy, for as long as it lives.
pub(super) struct Counted {
    upstream: Arc<Upstream>,
    standing: Rc<Standing>,
    endpoint: SocketAddr,
    _connection: OneMore<Standing>,
    _load: OneMore<EndpointStanding>,
}

/// Where a connection goes. Pure: the same input gives the same course.
///
/// **Errors**: nowhere.
pub(super) fn choose(
    (snapshot, pod): (&NodeSnapshot, &PodKey),
    dialled: &Dialled,
    random: u64,
) -> Result<Course, Refusal> {
    let original = dialled.original;
    if original.ip().is_loopback() {
        return Err(Refusal::new(refusal::OWN_PORT, "the application dialled the mesh's own port"));
    }
    let directory = &snapshot.directory;
    let own = snapshot.pods.get(pod).map(|own| &*own.name.namespace);
    let Some(service) = directory.dialled(original, dialled.sni.as_deref().zip(own)) else {
        let service = directory.service_of(&original).cloned();
        return Ok(Course { to: To::Address(original), service, route: None });
    };
    let Some(port) = service.port(original.port()) else {
        let detail = format!("service {} has no port {}", service.name.host, original.port());
        return Err(Refusal::new(refusal::NO_SUCH_PORT, detail));
    };
    if let Some(course) = routed(port, pod, dialled, random)? {
        return Ok(course);
    }
    let service_name = Some(Arc::clone(&service.name));
    if let Some(upstream) = port.upstream_of(pod) {
        return Ok(Course { to: To::Upstream(Arc::clone(upstream)), service: service_name, route: None });
    }
    let endpoints = port.endpoints.iter();
    let endpoint = if service.client_affinity {
        route::by_client(endpoints, dialled.client.ip())
    } else {
        route::by_chance(endpoints, random)
    };
    let endpoint = endpoint.ok_or_else(|| {
        let detail = format!("service {} has no ready endpoint for port {}", service.name.host, original.port());
        Refusal::new(refusal::NO_ENDPOINTS, detail)
    })?;
    Ok(Course { to: To::Address(endpoint), service: service_name, route: None })
}

/// Where a rule leads, and which; `None` if none means the connection.
///
/// **Errors**: it leads nowhere.
fn routed(port: &ServicePortEntry, pod: &PodKey, dialled: &Dialled, random: u64) -> Result<Option<Course>, Refusal> {
    let Some(table) = port.streams.as_ref().map(|streams| streams.table(pod)) else { return Ok(None) };
    let Some(action) = table.find(dialled.sni.as_deref(), dialled.original.ip()) else {
        if !table.is_closed {
            return Ok(None);
        }
        let asked = dialled.sni.as_deref().map_or("none that can be read".to_owned(), |sni| format!("`{sni}`"));
        let detail = format!("no rule for TLS on this port means the server name that is asked for: {asked}");
        return Err(Refusal::new(refusal::NO_ROUTE, detail));
    };
    let origin = &action.origin;
    let chosen = route::by_weight(action.backends.iter(), |(weight, _)| *weight, random);
    match chosen.map(|(_, destination)| destination) {
        Some(Destination::Upstream(upstream)) => {
            let (to, service) = (To::Upstream(Arc::clone(upstream)), Some(Arc::clone(&upstream.service)));
            Ok(Some(Course { to, service, route: Some(Arc::clone(origin)) }))
        }
        Some(Destination::Invalid(_)) | None => {
            let detail = format!("{} {} leads to nothing that can be used", origin.object, origin.rule);
            Err(Refusal::new(refusal::NO_BACKEND, detail))
        }
    }
}

impl Course {
    /// An endpoint of it.
    ///
    /// **Errors**: there is none, as many connections are open as a traffic policy allows, or nothing names the server that TLS
    /// is to prove.
    pub(super) async fn settle(&self, (worker, pod): (&Worker, &Pod), dialled: &Dialled) -> Result<Target, Refusal> {
        let (endpoint, counted) = match &self.to {
            To::Address(endpoint) => (*endpoint, None),
            To::Upstream(upstream) => {
                let counted = Counted::new(pod, upstream, dialled).await?;
                (counted.endpoint, Some(counted))
            }
        };
        let snapshot = worker.feed.snapshot();
        let (workload, identity) = from(&pod.key, &snapshot, endpoint, worker.feed.departure());
        let (identity, outside) = match counted.as_ref().map(|counted| &counted.upstream) {
            None => (identity, None),
            Some(upstream) => match &upstream.tls {
                UpstreamTls::Mesh => (identity, None),
                UpstreamTls::Disable => (None, None),
                UpstreamTls::Originate(policy) => (None, Some(Server::new(policy, &upstream.service.host)?)),
            },
        };
        Ok(Target { endpoint, workload, identity, outside, counted })
    }
}

impl Counted {
    async fn new(pod: &Pod, upstream: &Arc<Upstream>, dialled: &Dialled) -> Result<Self, Refusal> {
        let standing = pod.http.upstreams.standing(&upstream.key);
        // The same client has the same hash as with its requests.
        let key = upstream.balance.is_by_client().then(|| hash(dialled.client.ip().to_string().as_bytes(), 0));
        let endpoint = http::endpoint(upstream, &standing, (key, &[]), dialled.original).await?;
        if upstream.limits.connections.is_some_and(|most| standing.connections.get() >= most) {
            let detail = format!("{} has as many connections as its traffic policy allows", upstream.key);
            return Err(Refusal::new(refusal::OVERFLOW, detail));
        }
        Ok(Self {
            upstream: Arc::clone(upstream),
            _connection: OneMore::new(&standing, |standing| &standing.connections),
            _load: OneMore::new(&standing.endpoint(endpoint), |endpoint| &endpoint.requests),
            standing,
            endpoint,
        })
    }

    /// How long the endpoint may take to take the connection, where the policy says so.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.upstream.limits.connect_timeout
    }

    /// The endpoint took the connection.
    pub(super) fn taken(&self) {
        self.judge(Went::Answered(200));
    }

    /// It did not, for this reason.
    pub(super) fn refused(&self, refusal: &Refusal) {
        // What is wrong at this side, or is not allowed, tells nothing of the endpoint.
        const OF_OTHERS: [&str; 3] = [refusal::POLICY_DENIED, refusal::NO_CREDENTIALS, refusal::NO_RESOURCES];
        if !OF_OTHERS.contains(&refusal.reason) {
            self.judge(Went::Unanswered);
        }
    }

    fn judge(&self, went: Went) {
        http::judge((&self.standing, &self.upstream, self.endpoint), went);
    }
}
