//! What the address that a connection dialled means for its requests.
//!
//! In:  the snapshot, the pod, the address, and the host that a request names.
//! Out: [`Dialled`]: the service, its upstream, its routes.
//! Invariant: pure but for one remembered upstream, which is made again whenever the snapshot's is another.

use super::Downstream;
use crate::model::http::{AppProtocol, Balance, ConnectionLimits, UpstreamTls};
use crate::proxy::refusal::{self, Refusal};
use crate::snapshot::http::{Endpoints, RouteTable, Upstream, UpstreamEndpoint};
use crate::snapshot::{NodeSnapshot, ServiceEntry, ServiceName, ServicePortEntry};
use std::net::SocketAddr;
use std::sync::Arc;

/// What was dialled.
pub(crate) struct Dialled {
    /// The service, if the address is one's.
    pub(crate) service: Option<Arc<ServiceName>>,
    /// Where requests go that no route sends elsewhere.
    pub(crate) upstream: Arc<Upstream>,
    /// The routes; `None` where no route speaks of the port.
    pub(crate) table: Option<Arc<RouteTable>>,
}

/// An upstream without any policy, and what it was made of.
pub(crate) struct Plain {
    of: Option<Arc<ServiceEntry>>,
    upstream: Arc<Upstream>,
}

/// What the connection dialled, as of `snapshot`.
///
/// **Errors**: the service has no such port.
pub(crate) fn dialled(down: &Downstream, snapshot: &NodeSnapshot, host: &str) -> Result<Dialled, Refusal> {
    let directory = &snapshot.directory;
    let original = down.original;
    let namespace = snapshot.pods.get(&down.pod.key).map(|pod| &*pod.name.namespace);
    let Some(service) = directory.dialled(original, namespace.map(|namespace| (host, namespace))) else {
        let service = directory.service_of(&original).cloned();
        let upstream = remembered(down, None, || one_endpoint(original, service.as_ref()));
        return Ok(Dialled { service, upstream, table: None });
    };
    let Some(port) = service.port(original.port()) else {
        let detail = format!("service {} has no port {}", service.name.host, original.port());
        return Err(Refusal::new(refusal::NO_SUCH_PORT, detail));
    };
    let upstream = match port.upstream_of(&down.pod.key) {
        Some(upstream) => Arc::clone(upstream),
        None => remembered(down, Some(service), || without_policy(service, port)),
    };
    let table = port.routes.as_ref().map(|routes| Arc::clone(routes.table(&down.pod.key)));
    Ok(Dialled { service: Some(Arc::clone(&service.name)), upstream, table })
}

fn remembered(down: &Downstream, of: Option<&Arc<ServiceEntry>>, make: impl FnOnce() -> Upstream) -> Arc<Upstream> {
    let mut plain = down.plain.borrow_mut();
    let same = |plain: &&Plain| match (&plain.of, of) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, Some(_)) | (Some(_), None) => false,
    };
    if let Some(plain) = plain.as_ref().filter(same) {
        return Arc::clone(&plain.upstream);
    }
    let upstream = Arc::new(make());
    *plain = Some(Plain { of: of.cloned(), upstream: Arc::clone(&upstream) });
    upstream
}

fn without_policy(service: &ServiceEntry, port: &ServicePortEntry) -> Upstream {
    let endpoint = |address: SocketAddr| UpstreamEndpoint { address, weight: 1, distance: 0 };
    Upstream {
        key: format!("{}:{}", service.name.host, port.port).into(),
        service: Arc::clone(&service.name),
        protocol: port.protocol,
        endpoints: Endpoints::Static(port.endpoints.iter().map(endpoint).collect()),
        balance: Balance::unless_said(service.client_affinity),
        ..original(port.port)
    }
}

/// A pod, or whatever else has the address.
fn one_endpoint(address: SocketAddr, service: Option<&Arc<ServiceName>>) -> Upstream {
    let plain = original(address.port());
    Upstream { key: address.to_string().into(), service: service.cloned().unwrap_or(plain.service), ..plain }
}

/// Whatever was dialled at this port, of which nobody says anything.
fn original(port: u16) -> Upstream {
    Upstream {
        key: "".into(),
        service: Arc::new(ServiceName { host: "".into(), name: "".into(), namespace: "".into() }),
        port,
        protocol: AppProtocol::Undeclared,
        endpoints: Endpoints::Original,
        balance: Balance::Passthrough,
        limits: ConnectionLimits::default(),
        outliers: None,
        tls: UpstreamTls::Mesh,
    }
}
