//! What passes between the nodes when pods of the mesh speak.

use crate::support::{SYSTEM, Space, between, client, mutual_edges, server};
use crate::witness::until;
use anyhow::{Result, ensure};
use mesh_tests::wait;
use serde_json::json;

#[test]
fn pods_on_both_nodes_speak_mutual_tls_by_address_service_and_name() -> Result<()> {
    let space = Space::new("wire", true)?;
    let [first, second] = space.pods([server("first", "node1"), server("second", "node2")])?;
    let capture = space.capture(8080, None)?;
    for (from, to) in [(&first, &second), (&second, &first)] {
        let service = space.service(&to.name, json!([{"port": 80, "targetPort": 8080}]))?;
        let port = format!("{}:8080", to.address);
        let name = format!("{}.wire.svc.cluster.local", to.name);
        for host in [port.as_str(), &service, &name, &to.name] {
            let expected = (to.name.clone(), from.address.to_string());
            until(&space.cluster, &format!("{} reaches {host}", from.name), wait::PATIENCE, || {
                Ok(space.who(&from.name, host).is_ok_and(|said| said == expected))
            })?;
        }
    }
    let captured = capture.stop()?;
    let flows = between(&captured, &[&first, &second], 8080)?;
    ensure!(flows.len() >= 2, "both directions were dialled, and {} connections captured", flows.len());
    for flow in flows {
        ensure!(flow.is_tls(), "{} to {} is not TLS", flow.client, flow.server);
    }
    until(&space.cluster, "each of the two pods was dialled by the other", wait::PATIENCE, || {
        Ok(mutual_edges(&space.cluster, space.cluster.nodes(), &space.name)? == 2)
    })?;
    // Each daemon tells people of its own pods.
    for pod in [&first, &second] {
        let selector = "--selector=app.kubernetes.io/name=mesh-node";
        let node = format!("--field-selector=spec.nodeName={}", pod.node);
        let path = "--output=jsonpath={.items[0].metadata.name}";
        let daemon = space.cluster.kubectl(["-n", SYSTEM, "get", "pods", selector, &node, path])?;
        let page = space.cluster.kubectl(["-n", SYSTEM, "exec", &daemon, "--", "mesh-node", "status"])?;
        let line = page.lines().find(|line| line.contains(&format!("{}/{}", space.name, pod.name)));
        ensure!(line.is_some_and(|line| line.contains(&pod.address.to_string())), "no {} in\n{page}", pod.name);
    }
    Ok(())
}

#[test]
fn pods_outside_the_mesh_are_as_before() -> Result<()> {
    let space = Space::new("plain", false)?;
    let [server, asker] = space.pods([server("server", "node1"), client("asker", "node2")])?;
    let capture = space.capture(8080, Some(&asker))?;
    let said = space.who(&asker.name, &format!("{}:8080", server.address))?;
    ensure!(said == (server.name.clone(), asker.address.to_string()), "{said:?}");
    let captured = capture.stop()?;
    for flow in between(&captured, &[&server, &asker], 8080)? {
        ensure!(!flow.is_tls(), "{} to {} is TLS, and neither is in the mesh", flow.client, flow.server);
    }
    Ok(())
}
