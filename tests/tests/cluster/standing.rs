//! What users are told, in statuses, of their routes and gateways.
//!
//! Source: Gateway API `RouteParentStatus`, `GatewayStatus`; Kubernetes `meta/v1.Condition`.

use crate::support::{START, Space};
use anyhow::{Context, Result, ensure};
use mesh_tests::wait;
use serde_json::{Value, json};

const API: &str = "gateway.networking.k8s.io/v1";
const OURS: &str = "mesh.internal/controller";

/// A class of gateways, which is in no namespace; deleted when this is dropped.
pub(crate) struct Class<'space>(&'space Space);

impl Drop for Class<'_> {
    fn drop(&mut self) {
        drop(self.0.cluster.kubectl(["delete", "gatewayclass", &self.0.name, "--wait=false"]));
    }
}

fn route(kind: &str, parents: &Value, backend: &str) -> Value {
    json!({
        "apiVersion": API, "kind": kind, "metadata": {"name": "web"},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": backend, "port": 80}]}]},
    })
}

fn service(name: &str, port: u16) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": port})
}

/// Makes one object of each kind that has a status, of a service `web`.
pub(crate) fn routed(space: &Space) -> Result<Class<'_>> {
    space.service("web", json!([{"name": "http", "port": 80}, {"name": "grpc", "port": 81}]))?;
    let class = json!({"apiVersion": API, "kind": "GatewayClass", "metadata": {"name": space.name}, "spec": {"controllerName": OURS}});
    space.cluster.apply(&class.to_string())?;
    let class = Class(space);
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    space.apply(&[
        route("HTTPRoute", &json!([service("web", 80)]), "web"),
        route("GRPCRoute", &json!([service("web", 81)]), "web"),
        json!({
            "apiVersion": API, "kind": "Gateway", "metadata": {"name": "web"},
            "spec": {"gatewayClassName": space.name, "listeners": listeners},
        }),
    ])?;
    Ok(class)
}

/// An object as it is.
fn read(space: &Space, kind: &str, name: &str) -> Result<Value> {
    serde_json::from_str(&space.kubectl(&["get", kind, name, "--output=json"])?).context("kubectl prints no JSON")
}

/// The conditions of a route for its parents, those that the mesh says, as `Type=Status/Reason`.
fn said(route: &Value) -> Vec<String> {
    let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    let own = parents.into_iter().filter(|parent| parent["controllerName"] == OURS);
    own.flat_map(|parent| conditions(&parent)).collect()
}

fn conditions(of: &Value) -> Vec<String> {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let conditions = of["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().map(|of| format!("{}={}/{}", text(of, "type"), text(of, "status"), text(of, "reason"))).collect()
}

/// Waits until this is what is said of the route `web`; gives the route.
fn told(space: &Space, kind: &str, expected: &[&str]) -> Result<Value> {
    wait::until_true(&format!("{kind} web is told {expected:?}"), START, || {
        Ok(said(&read(space, kind, "web")?) == expected)
    })
    .with_context(|| format!("{:#}", read(space, kind, "web").unwrap_or_default()["status"]))?;
    read(space, kind, "web")
}

const ACCEPTED: &str = "Accepted=True/Accepted";
const RESOLVED: &str = "ResolvedRefs=True/ResolvedRefs";

#[test]
fn routes_and_gateways_are_told_how_they_stand() -> Result<()> {
    let space = Space::new("standing", true)?;
    let class = routed(&space)?;
    told(&space, "grpcroute", &[ACCEPTED, RESOLVED])?;
    let first = told(&space, "httproute", &[ACCEPTED, RESOLVED])?;
    let has = |kind: &str, name: &str, condition: &str| {
        wait::until_true(&format!("{kind} {name} is told {condition}"), START, || {
            let object = read(&space, kind, name)?;
            Ok(conditions(&object["status"]).iter().any(|of| of == condition))
        })
    };
    has("gatewayclass", &space.name, ACCEPTED)?;
    has("gateway", "web", ACCEPTED)?;
    has("gateway", "web", "Programmed=True/Programmed")?;

    // Another controller speaks of the same route.
    let mut parents = first["status"]["parents"].as_array().cloned().context("parents")?;
    let theirs = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "Theirs",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-31T12:00:00Z",
    });
    let other =
        json!({"parentRef": service("web", 80), "controllerName": "other.example/controller", "conditions": [theirs]});
    parents.insert(0, other.clone());
    let patch = json!({"status": {"parents": parents}}).to_string();
    space.kubectl(&["patch", "httproute", "web", "--subresource=status", "--type=merge", "--patch", &patch])?;

    // A backend that is not there, and a parent that is not.
    let parents = json!([service("web", 80), service("absent", 80)]);
    space.apply(&[route("HTTPRoute", &parents, "nobody")])?;
    let missing = "ResolvedRefs=False/BackendNotFound";
    let expected = [ACCEPTED, missing, "Accepted=False/NoMatchingParent", missing];
    let second = told(&space, "httproute", &expected)?;
    let (before, after) = (&first["status"]["parents"][0]["conditions"], &second["status"]["parents"][1]["conditions"]);
    ensure!(second["status"]["parents"][0] == other, "what the other controller said is another: {second:#}");
    ensure!(before[0]["lastTransitionTime"] == after[0]["lastTransitionTime"], "it was accepted all the time");
    for condition in [&after[0], &after[1]] {
        ensure!(condition["observedGeneration"] == second["metadata"]["generation"], "{condition} is of another time");
    }

    // The service comes.
    space.service("nobody", json!([{"name": "http", "port": 80}]))?;
    told(&space, "httproute", &[ACCEPTED, RESOLVED, "Accepted=False/NoMatchingParent", RESOLVED])?;

    // What is told once is not told again: the revision stays.
    let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let quiet = revision(&read(&space, "httproute", "web")?);
    space.service("elsewhere", json!([{"name": "http", "port": 80}]))?;
    space.apply(&[route("GRPCRoute", &json!([service("elsewhere", 80)]), "elsewhere")])?;
    told(&space, "grpcroute", &[ACCEPTED, RESOLVED])?;
    ensure!(revision(&read(&space, "httproute", "web")?) == quiet, "a status was written that says nothing new");
    drop(class);
    Ok(())
}
