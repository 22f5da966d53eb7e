//! Connections that are no HTTP, and where rules send them.

use crate::names::{agrees, secure, seen};
use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Outside, Pod, Server, Service, ServiceSpec, traffic, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A strict namespace with a client, and a service `db` of two versions that tell their names to whoever connects.
struct Bank {
    db: Service,
    client: Pod,
    pods: Vec<(Pod, Server)>,
    mesh: Mesh,
}

impl Bank {
    fn open(name: &str) -> Result<Self> {
        let mesh = Mesh::builder(name).own_names().build()?;
        mesh.kube().namespace("bank", &[("istio.io/dataplane-mode", "ambient")])?;
        mesh.kube().peer_authentication("bank/default", json!({"mtls": {"mode": "STRICT"}}))?;
        let db = mesh.kube().service(ServiceSpec::new("bank/db").selector("app", "db").named("tcp", 3306, 3306))?;
        let client = mesh.pod("bank/client").on(B).account("client").label("app", "client").start()?;
        let mut pods = Vec::new();
        for (version, greeting) in [("v1", "v1\n"), ("v2", "v2\n")] {
            let pod = mesh.pod(&format!("bank/db-{version}")).on(A).account("db").label("app", "db");
            let pod = pod.label("version", version).start()?;
            let server = pod.banner(3306, greeting)?;
            pods.push((pod, server));
        }
        let bank = Self { db, client, pods, mesh };
        wait::until_true("both versions answer", wait::PATIENCE, || Ok(bank.answered(20).len() == 2))?;
        Ok(bank)
    }

    fn istio(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        self.mesh.kube().apply(json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": kind,
            "metadata": {"namespace": "bank", "name": name},
            "spec": spec,
        }))
    }

    /// Traffic policy of `db`, with a subset for each version.
    fn policy(&self, policy: Value) -> Result<()> {
        let subset = |version: &str| json!({"name": version, "labels": {"version": version}});
        let spec = json!({"host": "db", "subsets": [subset("v1"), subset("v2")], "trafficPolicy": policy});
        self.istio("DestinationRule", "db", spec)
    }

    /// Which version answers a pod; `None` if the connection fails.
    fn answers(&self, from: &Pod) -> Option<String> {
        let said = from.exchange(self.db.address(3306), b"").ok()?;
        Some(String::from_utf8_lossy(&said).trim().to_owned()).filter(|said| !said.is_empty())
    }

    /// How often each version answers so many connections of the client.
    fn answered(&self, times: u32) -> BTreeMap<String, u32> {
        let mut answered = BTreeMap::new();
        for _ in 0..times {
            *answered.entry(self.answers(&self.client).unwrap_or_else(|| "none".to_owned())).or_default() += 1;
        }
        answered
    }
}

fn to(version: &str, weight: u32) -> Value {
    json!({"destination": {"host": "db", "subset": version}, "weight": weight})
}

#[test]
fn connections_are_split_over_subsets_by_weight_and_records_name_the_rule() -> Result<()> {
    let bank = Bank::open("streams split")?;
    bank.policy(json!({}))?;
    let rules = json!([
        {"match": [{"sourceLabels": {"app": "client"}, "port": 3306}], "route": [to("v1", 90), to("v2", 10)]},
        {"match": [{"sourceNamespace": "elsewhere"}], "route": [{"destination": {"host": "gone"}}]},
    ]);
    bank.istio("VirtualService", "db", json!({"hosts": ["db"], "tcp": rules}))?;
    let is_split = || {
        let answered = bank.answered(100);
        Ok((75..=98).contains(&answered["v1"]) && answered.len() == 2 && !answered.contains_key("none"))
    };
    wait::until_true("nine of ten go to v1", wait::PATIENCE, is_split)?;
    let record = bank.mesh.daemon(B)?.wait_access("the rule is named", |record| {
        record["side"] == "outbound" && record["route"] == "VirtualService bank/db tcp[0]"
    })?;
    ensure!(record["destination_service"] == "db.bank.svc.cluster.local", "{record}");
    // Whom no rule means goes to all of them.
    let other = bank.mesh.pod("bank/other").on(B).label("app", "other").start()?;
    let mut seen = BTreeMap::new();
    for _ in 0..40 {
        *seen.entry(bank.answers(&other)).or_insert(0) += 1;
    }
    ensure!(seen.len() == 2 && seen.values().all(|count| *count >= 8), "{seen:?}");

    let rules =
        json!([{"match": [{"destinationSubnets": [bank.db.address(0).ip().to_string()]}], "route": [to("v2", 1)]}]);
    bank.istio("VirtualService", "db", json!({"hosts": ["db"], "tcp": rules}))?;
    wait::until_true("all go to v2", wait::PATIENCE, || Ok(bank.answered(10) == [("v2".to_owned(), 10)].into()))?;
    // What is not understood is closed.
    let rules = json!([{"match": [{"sourceSubnet": "10.0.0.0/8"}], "route": [to("v2", 1)]}]);
    bank.istio("VirtualService", "db", json!({"hosts": ["db"], "tcp": rules}))?;
    wait::until_true("nobody answers", wait::PATIENCE, || Ok(bank.answers(&bank.client).is_none()))?;
    bank.mesh.daemon(B)?.wait_access("the refusal is recorded", |record| record["reason"] == "no_backend")?;
    Ok(())
}

#[test]
fn traffic_policies_bound_connections_and_leave_out_endpoints_that_take_none() -> Result<()> {
    let mut bank = Bank::open("streams limits")?;
    bank.policy(json!({"connectionPool": {"tcp": {"maxConnections": 2}}}))?;
    bank.istio("VirtualService", "db", json!({"hosts": ["db"], "tcp": [{"route": [to("v1", 1)]}]}))?;
    wait::until_true("all go to v1", wait::PATIENCE, || Ok(bank.answered(10) == [("v1".to_owned(), 10)].into()))?;
    let open = || {
        let mut stream = bank.client.connect(bank.db.address(3306))?;
        traffic::read_exactly(&mut stream, 3)?;
        anyhow::Ok(stream)
    };
    let (first, _second) = (open()?, open()?);
    ensure!(bank.answers(&bank.client).is_none(), "a third connection came about");
    bank.mesh.daemon(B)?.wait_access("the refusal is recorded", |record| record["reason"] == "overflow")?;
    drop(first);
    wait::until_true("there is room again", wait::PATIENCE, || Ok(bank.answers(&bank.client).is_some()))?;

    let detection =
        json!({"consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "300s", "maxEjectionPercent": 100});
    bank.policy(json!({"outlierDetection": detection}))?;
    bank.istio(
        "VirtualService",
        "db",
        json!({"hosts": ["db"], "tcp": [{"route": [{"destination": {"host": "db"}}]}]}),
    )?;
    wait::until_true("both versions answer", wait::PATIENCE, || Ok(bank.answered(20).len() == 2))?;
    // The first pod's server is gone, and Kubernetes does not know it.
    drop(bank.pods.remove(0).1);
    wait::until_true("the endpoint is left out", wait::PATIENCE, || {
        Ok(bank.answered(20) == [("v2".to_owned(), 20)].into())
    })
}

#[test]
fn tls_is_routed_by_the_server_name_that_clients_ask_for() -> Result<()> {
    let bank = Bank::open("streams tls")?;
    let kube = bank.mesh.kube();
    let mut servers = Vec::new();
    for app in ["one", "two"] {
        let pod = bank.mesh.pod(&format!("bank/{app}")).on(A).account(app).label("app", app).start()?;
        let server = secure(&pod, &bank.mesh, app)?;
        servers.push((pod, server));
        kube.service(ServiceSpec::new(&format!("bank/{app}")).selector("app", app).named("tls", 443, 8443))?;
    }
    // Nobody answers for the service itself.
    let front =
        kube.service(ServiceSpec::new("bank/front").selector("app", "none").named("https", 443, 8443))?.address(443);
    let rule = |names: Value, host: &str| {
        let destination = json!({"destination": {"host": host, "port": {"number": 443}}});
        json!({"match": [{"sniHosts": names, "port": 443}], "route": [destination]})
    };
    let rules = json!([rule(json!(["a.example"]), "one"), rule(json!(["*.example"]), "two")]);
    bank.istio("VirtualService", "front", json!({"hosts": ["front"], "tls": rules}))?;
    let server = |name: &str| seen(&bank.client, name, front).map(|told| told["server"].clone());
    wait::until_true("the rules hold", wait::PATIENCE, || Ok(server("a.example") == Some(json!("one"))))?;
    ensure!(server("b.example") == Some(json!("two")), "by the end of its name");
    ensure!(agrees(&bank.client, front, &["-servername", "A.EXAMPLE"])?, "in capitals");
    for arguments in [&["-servername", "a.test"][..], &["-noservername"]] {
        ensure!(!agrees(&bank.client, front, arguments)?, "{arguments:?}");
    }
    ensure!(bank.client.exchange(front, b"hello").is_err(), "what is no TLS");
    let record =
        bank.mesh.daemon(B)?.wait_access("the refusal is recorded", |record| record["reason"] == "no_route")?;
    ensure!(record["side"] == "outbound", "{record}");
    bank.mesh.daemon(B)?.wait_access("the rule is named", |record| {
        record["route"] == "VirtualService bank/front tls[1]"
            && record["destination_service"] == "two.bank.svc.cluster.local"
    })?;
    // The other node knows it as what it is.
    bank.mesh.daemon(A)?.wait_access("the server's side", |record| {
        record["side"] == "inbound" && record["destination_service"] == "two.bank.svc.cluster.local"
    })?;
    Ok(())
}

#[test]
fn a_host_outside_without_addresses_is_told_by_the_server_name() -> Result<()> {
    let bank = Bank::open("streams outside")?;
    let outside = bank.mesh.outside()?;
    let certificate = outside.certificate(&authority(&outside)?, "api", "DNS:api.example.com")?;
    let _one = outside.http("one", Outside::address(10, 443), Some(&certificate))?;
    let _two = outside.http("two", Outside::address(11, 443), Some(&certificate))?;
    let ports = json!([{"number": 443, "name": "tls", "protocol": "TLS"}]);
    for (host, number) in [("api.example.com", 10), ("other.example.com", 11)] {
        let endpoints = json!([{"address": Outside::address(number, 0).ip().to_string()}]);
        let spec = json!({"hosts": [host], "ports": ports, "resolution": "STATIC", "endpoints": endpoints});
        bank.istio("ServiceEntry", host, spec)?;
    }
    // Whatever address the client finds for the name: there is nobody.
    let server = |name: &str| seen(&bank.client, name, Outside::address(12, 443)).map(|told| told["server"].clone());
    wait::until_true("the host is known", wait::PATIENCE, || Ok(server("api.example.com") == Some(json!("one"))))?;
    wait::until_true("the other is known", wait::PATIENCE, || Ok(server("other.example.com") == Some(json!("two"))))?;
    ensure!(server("third.example.com").is_none(), "nobody knows the host, and nobody is at the address");
    let rule = json!({"match": [{"sniHosts": ["api.example.com"]}], "route": [{"destination": {"host": "other.example.com"}}]});
    bank.istio("VirtualService", "api", json!({"hosts": ["api.example.com"], "tls": [rule]}))?;
    wait::until_true("the rule holds", wait::PATIENCE, || Ok(server("api.example.com") == Some(json!("two"))))
}

/// The name of an authority that was made.
fn authority(outside: &Outside) -> Result<String> {
    outside.authority("public")?;
    Ok("public".to_owned())
}
