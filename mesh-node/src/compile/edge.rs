//! Who the edge of this node is.
//!
//! In:  the ports of gateways, the workloads of this node, the names that the operator chose.
//! Out: the [`Edge`], if anything enters here.
//! Invariant: the edge is the mesh's daemon towards pods: it has the identity of its service account.

use super::Settings;
use crate::model::{Gateway, GatewayClass, Name, Subject, Workload};
use crate::snapshot::edge::{Edge, EdgePort, Entrance};
use crate::snapshot::{WorkloadEntry, WorkloadLabels};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The edge with these ports; `None` without any.
pub(super) fn edge(ports: &[Arc<EdgePort>], here: &BTreeMap<Name, Arc<Workload>>, settings: &Settings) -> Option<Edge> {
    if ports.is_empty() {
        return None;
    }
    let identity = &settings.edge;
    let of = |names: &Name| *names.namespace == *identity.namespace;
    let bearer =
        here.iter().find(|(name, workload)| of(name) && workload.identity == **identity && !workload.uid.is_empty());
    Some(Edge {
        workload: Arc::new(workload(settings)),
        bearer: bearer
            .map(|(name, workload)| (name.name.as_str().into(), workload.uid.as_str().into()))
            .unwrap_or_default(),
        ports: ports.into(),
    })
}

/// What lets something in at a gateway.
pub(super) fn entrance(gateway: &Gateway) -> Entrance {
    match gateway.class {
        GatewayClass::Named(_) => Entrance::Gateway(gateway.object.name.clone()),
        GatewayClass::Pods(_) => Entrance::Istio,
    }
}

/// By what policies of the mesh select the edge: as Istio's select the pods of its gateways.
pub(super) fn subject(settings: &Settings) -> Subject {
    Subject {
        namespace: Some(Arc::clone(&settings.edge.namespace)),
        account: Some(Arc::clone(&settings.edge.service_account)),
        labels: (&settings.edge_labels).into(),
        ..Subject::default()
    }
}

/// The labels by which Istio names the gateway of the Gateway API whose pods those are.
const GATEWAY_NAMES: [&str; 2] = ["gateway.networking.k8s.io/gateway-name", "istio.io/gateway-name"];

/// The pods that Istio would run for a gateway of the Gateway API, in its namespace: a policy holds for what enters by the gateway if
/// it selects them, be it by the gateway's name or, without a selector, as everything of the namespace.
pub(super) fn pods_of(gateway: &Name) -> Subject {
    Subject {
        namespace: Some(gateway.namespace.as_str().into()),
        labels: GATEWAY_NAMES.into_iter().map(|label| (label.into(), gateway.name.clone())).collect(),
        ..Subject::default()
    }
}

/// The edge as pods see it; that of every node is the same.
#[must_use]
pub fn workload(settings: &Settings) -> WorkloadEntry {
    let identity = &settings.edge;
    let name = &*identity.service_account;
    WorkloadEntry {
        identity: Arc::clone(identity),
        inbound: None,
        takes_mutual_tls: false,
        labels: Arc::new(WorkloadLabels {
            workload: name.into(),
            namespace: (&*identity.namespace).into(),
            app: name.into(),
            version: "unknown".into(),
            canonical_service: name.into(),
            canonical_revision: "latest".into(),
            principal: identity.principal().into(),
        }),
        // It is no pod: selectors select none of it, and its identity says who it is.
        subject: Arc::default(),
    }
}
