//! Random policies of every API in force, and what pods then get through: it is what `why` says, flow by flow.
//!
//! `why` is asked of the objects, as `mesh-node why --objects` asks it. Flows are real: connections between pods of two nodes, and
//! requests on connections that are kept, from pods in the mesh and one that is not, half of them over IPv6.

mod mesh_policies;
mod stage;

use super::random::{About, pick, policies};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use mesh_node::why::{self, Place, Question};
use mesh_node::world::World;
use mesh_node::{compile, translate};
use mesh_tests::env;
use serde_json::{Value, json};
use stage::{Flow, Kind, Outcome, Stage};
use std::collections::BTreeMap;

/// Flows in a run: `MESH_RANDOM=10` makes them 10,000.
const FLOWS: usize = 1_000;
/// Flows for each set of policies.
const OF_A_SET: usize = 40;
const METHODS: [&str; 3] = ["GET", "PUT", "DELETE"];
const PATHS: [&str; 9] = ["/", "/a", "/a/b", "/b", "/c/d?x=1", "/ab", "/a/", "/b/../a/b", "/a/%2e%2e/b"];

/// What `why` says that becomes of a flow, and by whom.
fn expected(world: &World, flow: &Flow) -> Result<(bool, String)> {
    let request = match flow.kind {
        Kind::Tcp => None,
        Kind::Http { method, path } => Some(why::Request {
            method: method.to_owned(),
            path: path.to_owned(),
            host: Some(stage::HOST.to_owned()),
            headers: Vec::new(),
        }),
    };
    let is_request = request.is_some();
    let source: Place = flow.source.parse()?;
    let question =
        Question { source, destination: Place::Address(flow.to.ip()), port: Some(flow.to.port()), request, sni: None };
    let answer = why::ask(world.clone(), translate::Settings::default(), compile::Settings::default(), &question)?;
    let steps = || answer.ways.iter().flat_map(|way| &way.steps);
    let is_denied_unless_http =
        !is_request && steps().any(|step| step.told.iter().any(|told| told.starts_with(why::OTHERWISE_DENIED)));
    let told: Vec<String> = steps().map(|step| format!("{:?} {} {:?}", step.what, step.by, step.told)).collect();
    Ok((answer.is_allowed() && !is_denied_unless_http, format!("{:?}; {}", answer.route, told.join("; "))))
}

fn flow(rng: &mut Rng, stage: &Stage) -> Flow {
    loop {
        let source = pick(rng, &stage.names());
        let kind = match rng.u8(..4) {
            0 => Kind::Tcp,
            _ => Kind::Http { method: pick(rng, &METHODS), path: pick(rng, &PATHS) },
        };
        let targets = if matches!(kind, Kind::Tcp) { stage.sockets(&source) } else { stage.servers(&source) };
        if !targets.is_empty() {
            let to = pick(rng, &targets);
            return Flow { source, to, kind };
        }
    }
}

/// The policies of a set: some of each API, or of some.
fn set(rng: &mut Rng) -> Vec<Value> {
    let mut all = Vec::new();
    if rng.u8(..4) > 0 {
        all.extend(policies(rng, About::Everything));
    }
    let tier = json!({"order": pick(rng, &[10, 2_000_000]), "defaultAction": pick(rng, &["Pass", "Deny"])});
    all.push(json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "own"}, "spec": tier}));
    if rng.bool() {
        all.extend(mesh_policies::cluster(rng));
    }
    if rng.u8(..4) > 0 {
        all.extend(mesh_policies::istio(rng));
    }
    all
}

fn listed(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("{object}\n")).collect()
}

#[test]
fn what_why_says_of_random_policies_is_what_then_happens() -> Result<()> {
    let flows = FLOWS * usize::try_from(env::thoroughness()?)?;
    let stage = Stage::build()?;
    let mut counts: BTreeMap<(&str, &str, bool), usize> = BTreeMap::new();
    let mut tried = 0;
    for seed in 0.. {
        if tried >= flows {
            break;
        }
        let mut rng = Rng::with_seed(seed);
        let objects = set(&mut rng);
        stage.enforce(seed, &objects).with_context(|| format!("seed {seed}"))?;
        let world = stage.world()?;
        let asked: Vec<Flow> = (0..OF_A_SET).map(|_| flow(&mut rng, &stage)).collect();
        let seen = stage.send(&asked).with_context(|| format!("seed {seed}\n{}", listed(&objects)))?;
        for (flow, seen) in asked.iter().zip(seen) {
            let (is_allowed, by) = expected(&world, flow)?;
            ensure!(
                matches!(seen, Outcome::Passed) == is_allowed,
                "seed {seed}, {flow}: why says {is_allowed} ({by}), and {seen}\n{}",
                listed(&objects)
            );
            let kind = if matches!(flow.kind, Kind::Tcp) { "connection" } else { "request" };
            let family = if flow.to.is_ipv4() { "IPv4" } else { "IPv6" };
            *counts.entry((kind, family, is_allowed)).or_insert(0) += 1;
        }
        tried += asked.len();
    }
    println!("{tried} flows: {counts:?}");
    for kind in ["connection", "request"] {
        for family in ["IPv4", "IPv6"] {
            for is_allowed in [true, false] {
                ensure!(
                    counts.get(&(kind, family, is_allowed)).is_some_and(|&count| count * 100 > tried),
                    "{counts:?}"
                );
            }
        }
    }
    Ok(())
}
