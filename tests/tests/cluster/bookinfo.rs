//! Istio's sample application, as Istio's users apply it.

use crate::support::{Space, arrived_by_mutual_tls, bookinfo};
use anyhow::{Result, ensure};
use mesh_tests::wait;
use std::collections::BTreeSet;

/// Who calls whom, by service account.
const EDGES: [(&str, &str); 3] = [("productpage", "details"), ("productpage", "reviews"), ("reviews", "ratings")];

#[test]
fn the_page_is_served_and_every_edge_is_mutual_tls() -> Result<()> {
    let space = Space::new("bookinfo", true)?;
    space.strict()?;
    bookinfo(&space)?;
    let [asker] = space.pods([crate::support::client("asker", "node1")])?;
    let capture = space.capture(9080, None)?;
    let mut stars = BTreeSet::new();
    wait::until_true("pages with the stars of every version of reviews", wait::PATIENCE, || {
        let page = space
            .exec(&asker.name, &["timeout", "5", "wget", "-q", "-O", "-", "http://productpage:9080/productpage"])?;
        ensure!(page.contains("The Comedy of Errors") && !page.contains("class=\"missing\""), "the page is {page}");
        stars.insert(["stars red", "stars black"].into_iter().find(|stars| page.contains(stars)));
        Ok(stars.len() == 3)
    })?;
    let captured = capture.stop()?;
    let addresses = space.kubectl(&["get", "pods", "--output=jsonpath={.items[*].status.podIP}"])?;
    let ours = |address: std::net::SocketAddr| addresses.split(' ').any(|own| own == address.ip().to_string());
    let flows: Vec<_> = captured.to_port(9080).filter(|flow| ours(flow.server) && !flow.is_empty()).collect();
    ensure!(!flows.is_empty(), "no edge goes from node to node, which proves nothing: {addresses}");
    for flow in flows {
        ensure!(flow.is_tls(), "{} to {} is not TLS", flow.client, flow.server);
    }
    for (from, to) in EDGES {
        let principal =
            |account: &str| format!("_principal=\"spiffe://cluster.local/ns/bookinfo/sa/bookinfo-{account}\"");
        let labels = [format!("source{}", principal(from)), format!("destination{}", principal(to))];
        arrived_by_mutual_tls(&space.cluster, &labels)?;
    }
    Ok(())
}
