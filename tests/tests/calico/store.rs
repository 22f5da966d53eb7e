//! What `calicoctl` stores is what its user wrote: policies and sets mean the same in both forms, and arrive at a daemon.

use super::random::{About, CALICO, NAMESPACES, policies, population};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use mesh_node::model::{Issue, Model, Reason};
use mesh_node::source::file::parse_documents;
use mesh_node::translate;
use mesh_node::world::{Change, World};
use mesh_tests::{ADMIN, ApiServer, env, execute, feed, tools, wait};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SEED: u64 = 328;
const PATIENCE: Duration = Duration::from_secs(60);
/// Calico's kinds that 3.28 stores, by their names in its own group.
const STORED: [&str; 4] = ["networkpolicies", "globalnetworkpolicies", "networksets", "globalnetworksets"];

/// An API server with Calico's definitions and what its client wants to find.
fn api_server(name: &str) -> Result<ApiServer> {
    let api = ApiServer::start(name)?;
    let definitions = tools::calico()?.join("libcalico-go/config/crd");
    api.kubectl(["create", "--filename", &definitions.to_string_lossy()])?.success()?;
    wait::until_established("--all", |arguments| api.kubectl(arguments.iter().copied()))?;
    for namespace in NAMESPACES {
        api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
    }
    Ok(api)
}

fn calicoctl(api: &ApiServer) -> Result<Command> {
    let mut command = api.command(env::tool("calicoctl")?);
    command.env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", api.kubeconfig(ADMIN));
    command.arg("--allow-version-mismatch");
    Ok(command)
}

fn apply(api: &ApiServer, objects: &[Value]) -> Result<()> {
    let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    feed(calicoctl(api)?.args(["apply", "--filename", "-"]), text.as_bytes(), PATIENCE)?
        .success()
        .with_context(|| format!("seed {SEED}"))?;
    Ok(())
}

/// What the mesh understands of these objects.
fn understood(objects: &[Value]) -> Result<Model> {
    let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    let (objects, faults) = parse_documents(text.as_bytes());
    ensure!(faults.is_empty(), "{faults:?}");
    let mut world = World::default();
    for object in objects {
        world.apply(Change::Upsert(Box::new(object)));
    }
    let (model, issues) = translate::translate(&world, &translate::Settings::default());
    let is_refused = |issue: &&Issue| issue.reason != Reason::Remark;
    ensure!(!issues.iter().any(|issue| is_refused(&issue)), "seed {SEED}: {issues:#?}");
    Ok(model)
}

/// Every object of Calico's as the API server has it.
fn stored(api: &ApiServer) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in STORED {
        let list =
            api.kubectl(["get", &format!("{kind}.crd.projectcalico.org"), "--all-namespaces", "--output", "json"])?;
        let list: Value = serde_json::from_str(&list.success()?)?;
        all.extend(list["items"].as_array().context("no items")?.iter().cloned());
    }
    Ok(all)
}

fn is_of_calico(object: &Value) -> bool {
    object["apiVersion"] == CALICO
}

#[test]
fn what_calicoctl_stores_means_what_its_user_wrote() -> Result<()> {
    let api = api_server("calico-store")?;
    let mut rng = Rng::with_seed(SEED);
    let mut written: Vec<Value> = population(&mut rng).into_iter().filter(is_of_calico).collect();
    for round in 0..20 {
        let about = if round % 2 == 0 { About::Requests } else { About::Connections };
        for mut policy in policies(&mut rng, about).into_iter().filter(is_of_calico) {
            let name = format!("r{round}-{}", policy["metadata"]["name"].as_str().context("no name")?);
            policy["metadata"]["name"] = name.into();
            written.push(policy);
        }
    }
    apply(&api, &written)?;
    let stored = stored(&api)?;
    ensure!(stored.len() == written.len(), "{} stored of {}", stored.len(), written.len());
    let is_prefixed =
        |object: &&Value| object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("default."));
    ensure!(
        stored.iter().any(|object| is_prefixed(&object)),
        "no name is stored with the prefix, so the test proves less"
    );

    let (as_written, as_stored) = (understood(&written)?, understood(&stored)?);
    ensure!(as_written.policies.len() > 40, "{} policies", as_written.policies.len());
    for (object, policy) in &as_written.policies {
        ensure!(
            as_stored.policies.get(object) == Some(policy),
            "{object}: {policy:?}\nstored: {:?}",
            as_stored.policies.get(object)
        );
    }
    ensure!(as_stored.policies.len() == as_written.policies.len());
    ensure!(as_stored.address_sets == as_written.address_sets && !as_stored.address_sets.is_empty());
    Ok(())
}

#[test]
fn a_daemon_hears_of_what_calicoctl_does() -> Result<()> {
    let api = api_server("calico-watch")?;
    api.allow_as_installed()?;
    let daemon = api.ready_daemon(&[])?;

    let policy = json!({
        "apiVersion": CALICO,
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"selector": "app == 'web'", "ingress": [{"action": "Allow"}]},
    });
    apply(&api, &[policy])?;
    let (kind, stored) = ("NetworkPolicy.crd.projectcalico.org", "shop/default.a");
    daemon.wait_known(kind, stored, true)?;
    let delete = ["delete", "networkpolicy", "a", "--namespace", "shop"];
    execute(calicoctl(&api)?.args(delete), PATIENCE)?.success()?;
    daemon.wait_known(kind, stored, false)?;

    let set = json!({"apiVersion": CALICO, "kind": "GlobalNetworkSet", "metadata": {"name": "s", "labels": {"role": "db"}}, "spec": {"nets": ["192.0.2.0/24"]}});
    apply(&api, &[set])?;
    daemon.wait_known("GlobalNetworkSet.crd.projectcalico.org", "s", true)
}
