//! What felix computes of random worlds: the mesh allows the same.
//!
//! Felix' own code computes which pods a policy is about, whom its selectors select and in which order all is asked. Rules are met in
//! `tests/tools/calico/oracle`, as felix renders them.

use super::ours::{Connection, Ours, ask, told};
use super::random::{About, policies, population};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use mesh_node::policy::Spoken;
use mesh_tests::env;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

const WORLDS: u64 = 200;
/// How many of them are asked for at once.
const BATCH: usize = 50;
const CONNECTIONS: usize = 300;

/// What felix says of a connection.
#[derive(Debug, Deserialize)]
struct OfFelix {
    egress: Option<bool>,
    ingress: Option<bool>,
}

/// How often each way was judged by policies, and with which outcome.
type Counts = BTreeMap<(&'static str, bool), usize>;

#[test]
fn felix_and_the_mesh_allow_the_same_connections() -> Result<()> {
    let seeds: Vec<u64> = (0..WORLDS * env::thoroughness()?).collect();
    let mut counts = Counts::new();
    for seeds in seeds.chunks(BATCH) {
        agree(seeds, &mut counts)?;
    }
    // The worlds are about something.
    for way in ["arrives", "leaves"] {
        for is_allowed in [true, false] {
            ensure!(counts.get(&(way, is_allowed)).is_some_and(|&count| count > 1_000), "{counts:?}");
        }
    }
    println!("{} worlds: {counts:?}", seeds.len());
    Ok(())
}

/// Do felix and the mesh judge the same in the worlds of these seeds?
fn agree(seeds: &[u64], counts: &mut Counts) -> Result<()> {
    let (mut worlds, mut questions) = (Vec::new(), Vec::new());
    for &seed in seeds {
        let mut rng = Rng::with_seed(seed);
        let mut objects = population(&mut rng);
        objects.extend(policies(&mut rng, About::Connections));
        let ours = Ours::new(&objects)?;
        let pods: Vec<IpAddr> = ours.sandboxes.keys().copied().collect();
        let connections: Vec<Connection> =
            (0..CONNECTIONS).map(|_| Connection::new(&mut rng, &pods)).collect::<Result<_>>()?;
        let flows: Vec<Value> = connections.iter().map(Connection::for_calico).collect();
        questions.push(json!({"world": {"objects": objects, "flows": flows}}));
        worlds.push((seed, objects, ours, connections));
    }
    for ((seed, objects, ours, connections), answer) in worlds.iter().zip(ask("calico-oracle", &questions)?) {
        let verdicts: Vec<OfFelix> = serde_json::from_value(answer["world"].clone())?;
        ensure!(verdicts.len() == connections.len());
        for (connection, felix) in connections.iter().zip(verdicts) {
            let arrives = (felix.ingress, ours.chains(&connection.destination).map(|(inbound, _)| inbound), "arrives");
            let leaves = (felix.egress, ours.chains(&connection.source).map(|(_, outbound)| outbound), "leaves");
            for (felix, chains, way) in [arrives, leaves] {
                let Some(felix) = felix else { continue };
                let chains = chains.with_context(|| format!("no policies for {connection:?}"))?;
                let (is_allowed, by) = ours.judge(chains, connection, Spoken::Opaque);
                ensure!(
                    is_allowed == felix,
                    "seed {seed}, {connection:?} {way}: felix says {felix}, the mesh {is_allowed} by {by}\n{}",
                    told(objects)
                );
                if !chains.is_empty() {
                    *counts.entry((way, is_allowed)).or_insert(0) += 1;
                }
            }
        }
    }
    Ok(())
}
