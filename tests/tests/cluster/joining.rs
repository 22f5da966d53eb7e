//! Pods that ran before they were in the mesh.

use crate::support::{MODE, Space, between, client, server, target};
use anyhow::{Result, ensure};

#[test]
fn running_pods_join_and_leave_and_no_connection_notices() -> Result<()> {
    let space = Space::new("joining", false)?;
    let [load, hasty, asker, busy, web] = space.pods([
        client("load", "node1"),
        client("hasty", "node1"),
        client("asker", "node1"),
        target("busy", "node2"),
        server("web", "node2"),
    ])?;
    let address = format!("{}:8080", busy.address);
    // Connections that are open all the time.
    let running =
        space.load(&load.name, &["fixed", &address, "--connections", "8", "--rate", "100", "--seconds", "40"])?;
    // And connections that begin all the time, also while one node knows of a change and another does not.
    let beginning = ["closed", &address, "--close", "--connections", "4", "--seconds", "40"];
    let beginning = space.load(&hasty.name, &beginning)?;

    space.cluster.kubectl(["label", "namespace", &space.name, &format!("{MODE}=ambient")])?;
    for pod in [&load, &hasty, &asker, &busy, &web] {
        space.event(&pod.name, "MeshJoined")?;
    }
    let host = format!("{}:8080", web.address);
    let capture = space.capture(8080, Some(&asker))?;
    ensure!(space.who(&asker.name, &host)?.1 == asker.address.to_string(), "the application sees who asks");
    for flow in between(&capture.stop()?, &[&asker, &web], 8080)? {
        ensure!(flow.is_tls(), "a connection begun after joining is plain");
    }

    space.cluster.kubectl(["label", "namespace", &space.name, &format!("{MODE}-")])?;
    for pod in [&load, &hasty, &asker, &busy, &web] {
        space.event(&pod.name, "MeshLeft")?;
    }
    let capture = space.capture(8080, Some(&asker))?;
    space.who(&asker.name, &host)?;
    for flow in between(&capture.stop()?, &[&asker, &web], 8080)? {
        ensure!(!flow.is_tls(), "a connection begun after leaving is TLS");
    }

    for (load, least) in [(running, 3000), (beginning, 2000)] {
        ensure!(load.runs()?, "the load was over too soon, which proves nothing");
        let figures = load.figures()?;
        ensure!(figures.failed() == 0 && figures.answered >= least, "{figures:?}");
    }
    Ok(())
}
