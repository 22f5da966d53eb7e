//! A world as the mesh understands it, and what Calico's programs say of the same.

use super::random::{self, pick};
use anyhow::{Result, ensure};
use fastrand::Rng;
use mesh_common::cni::Attachment;
use mesh_node::compile::{self, Compiler};
use mesh_node::model::Identity;
use mesh_node::policy::flow::TCP;
use mesh_node::policy::{Chains, Flow, Party, Proof, Sni, Spoken, judge};
use mesh_node::snapshot::NodeSnapshot;
use mesh_node::source::file::parse_documents;
use mesh_node::translate;
use mesh_node::world::{Change, Object, SourceId, World};
use mesh_tests::{env, feed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(300);
/// Ports of pods: those that have a name or are in a range of a rule, and one that has neither.
const PORTS: [u16; 5] = [8080, 9090, 9050, 7000, 5432];
/// Addresses that are no pod's: some of sets.
const OUTSIDE: [&str; 5] = ["192.0.2.1", "192.0.2.9", "198.51.100.7", "203.0.113.1", "2001:db8::1"];

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) port: u16,
}

impl Connection {
    pub(crate) fn new(rng: &mut Rng, pods: &[IpAddr]) -> Result<Self> {
        loop {
            let outside: IpAddr = pick(rng, &OUTSIDE).parse()?;
            let (one, other) = (pick(rng, pods), if rng.u8(..4) == 0 { outside } else { pick(rng, pods) });
            if one.is_ipv4() == other.is_ipv4() && one != other {
                let (source, destination) = if rng.bool() { (one, other) } else { (other, one) };
                let (source_port, port) = (pick(rng, &[30_000, 50_000]), pick(rng, &PORTS));
                return Ok(Self { source, destination, source_port, port });
            }
        }
    }

    pub(crate) fn for_calico(&self) -> Value {
        json!({
            "source": self.source, "destination": self.destination, "sourcePort": self.source_port, "port": self.port,
        })
    }
}

/// A world as the mesh understands it.
pub(crate) struct Ours {
    pub(crate) snapshot: NodeSnapshot,
    /// Sandboxes by the addresses of their pods.
    pub(crate) sandboxes: BTreeMap<IpAddr, String>,
}

impl Ours {
    pub(crate) fn new(objects: &[Value]) -> Result<Self> {
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        let (objects, faults) = parse_documents(text.as_bytes());
        ensure!(faults.is_empty(), "{faults:?}");
        let (mut world, mut sandboxes) = (World::default(), BTreeMap::new());
        for object in objects {
            if let Object::Pod(pod) = &object {
                let container_id = format!("{}-{}", pod.metadata.namespace, pod.metadata.name);
                for address in &pod.status.pod_ips {
                    sandboxes.insert(address.ip.parse()?, container_id.clone());
                }
                world.apply(Change::Attach(Attachment {
                    container_id,
                    ifname: "eth0".to_owned(),
                    netns: "/run/netns/none".to_owned(),
                    pod_namespace: pod.metadata.namespace.to_string(),
                    pod_name: pod.metadata.name.to_string(),
                    pod_uid: None,
                    addresses: Vec::new(),
                }));
            }
            world.apply(Change::Upsert(Box::new(object)));
        }
        for source in SourceId::ALL {
            world.apply(Change::Synced(source));
        }
        let settings = compile::Settings { node: random::NODE.to_owned(), ..compile::Settings::default() };
        let snapshot = Compiler::of(&world, translate::Settings::default(), settings).snapshot();
        Ok(Self { snapshot, sandboxes })
    }

    /// What holds for the pod at an address: for what arrives, and for what leaves.
    pub(crate) fn chains(&self, address: &IpAddr) -> Option<(&Chains, &Chains)> {
        let policies = self.snapshot.policies.get(self.sandboxes.get(address)?.as_str())?;
        Some((&policies.inbound, &policies.outbound))
    }

    pub(crate) fn party<'a>(&'a self, address: IpAddr, port: u16) -> Party<'a> {
        let subject = self.snapshot.directory.workloads.get(&address).map(|entry| &entry.subject);
        Party { address, port: Some(port), subject }
    }

    pub(crate) fn identity(&self, address: &IpAddr) -> Option<&Identity> {
        self.snapshot.directory.workloads.get(address).map(|entry| &*entry.identity)
    }

    /// Is it allowed, and who says so?
    pub(crate) fn judge(&self, chains: &Chains, connection: &Connection, spoken: Spoken<'_>) -> (bool, String) {
        let identity = self.identity(&connection.source);
        let principal = identity.map(Identity::principal).unwrap_or_default();
        let flow = Flow {
            source: self.party(connection.source, connection.source_port),
            destination: self.party(connection.destination, connection.port),
            with_node: false,
            protocol: TCP,
            proof: identity.map(|identity| Proof { identity, principal: &principal }),
            sni: &Sni::Absent,
            spoken,
        };
        let verdict = judge(chains, &flow, |_| {});
        (verdict.is_allowed, verdict.by.to_string())
    }
}

/// Asks a program, in one question and one answer a line.
pub(crate) fn ask(tool: &str, questions: &[Value]) -> Result<Vec<Value>> {
    let asked: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let said = feed(&mut Command::new(env::tool(tool)?), asked.as_bytes(), PATIENCE)?.success()?;
    let answers: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(answers.len() == questions.len(), "{} answers to {} questions", answers.len(), questions.len());
    Ok(answers)
}

/// The policies among objects, to be read.
pub(crate) fn told(objects: &[Value]) -> String {
    let is_policy = |object: &&Value| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Policy"));
    objects.iter().filter(is_policy).map(|object| format!("{object}\n")).collect()
}
