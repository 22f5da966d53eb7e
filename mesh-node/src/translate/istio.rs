//! Istio: mutual TLS, who may ask what, routes, traffic policies, external services, gateways.
//!
//! In:  a PeerAuthentication, AuthorizationPolicy, RequestAuthentication, VirtualService, DestinationRule, ServiceEntry, WorkloadEntry, Gateway or Sidecar as written.
//! Out: the model's word for it.
//! Invariant: what is not understood closes the rule, policy or listener that it is part of.
//! Source: Istio `networking.istio.io/v1`, `security.istio.io/v1`.

mod action;
mod authorization_policy;
mod destination_rule;
mod gateway;
mod host;
mod http_match;
mod peer_authentication;
mod policy_scope;
mod request_authentication;
mod service_entry;
mod sidecar;
mod stream_rule;
mod tls_settings;
mod traffic_policy;
mod virtual_service;

use super::read::Log;
use crate::api::custom::Custom;
use crate::world::CustomKind;
pub(super) use authorization_policy::policy;
pub(super) use destination_rule::policies;
pub(super) use gateway::gateway;
pub(super) use peer_authentication::{overruled_for, overruled_in_scope, peer_authentication, selecting};
pub(super) use request_authentication::request_authentication;
pub(super) use service_entry::{service, workload};
pub(super) use sidecar::sidecar;
pub(super) use virtual_service::route;

/// Reads an object of this kind, if it is of this API, for what it says of its fields alone.
pub(super) fn survey(log: &Log, kind: CustomKind) {
    let (object, domain) = (Custom::default(), "cluster.local");
    match kind {
        CustomKind::DestinationRule => drop(policies(log, &object, domain)),
        CustomKind::ServiceEntry => drop(service(log, &object)),
        CustomKind::WorkloadEntry => drop(workload(log, &object)),
        CustomKind::IstioGateway => drop(gateway(log, &object)),
        CustomKind::Sidecar => sidecar(log, &object),
        CustomKind::AuthorizationPolicy => drop(policy(log, &object, "istio-system")),
        CustomKind::RequestAuthentication => drop(request_authentication(log, &object, "istio-system")),
        CustomKind::VirtualService => drop(route(log, &object, domain)),
        CustomKind::HttpRoute
        | CustomKind::GrpcRoute
        | CustomKind::Gateway
        | CustomKind::GatewayClass
        | CustomKind::ReferenceGrant
        | CustomKind::NetworkPolicy
        | CustomKind::ClusterNetworkPolicy
        | CustomKind::Calico(..) => {}
    }
}
