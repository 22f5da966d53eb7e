//! What dikastes makes of requests, by what felix tells it of random worlds: the mesh judges the same.
//!
//! Felix' own PolicySync tells what concerns each pod, and dikastes' own client reads that.
//! Dikastes is that of Calico 3.28. Where the mesh follows a newer Calico, or is stricter, stands in `mesh-node/ARCHITECTURE.md`,
//! "Calico's versions", and here, in [`CASES`].

use super::ours::{Connection, Ours, ask, told};
use super::random::{About, CALICO, pick, policies, population};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use hyper::HeaderMap;
use mesh_node::model::Identity;
use mesh_node::policy::{Request, Spoken};
use mesh_tests::env;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

const WORLDS: u64 = 60;
/// How many of them are asked for at once.
const BATCH: usize = 30;
const REQUESTS: usize = 200;
/// Paths that every version of Calico compares in one way with those of the rules.
const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/a/b/c", "/b", "/c/d", "/a?x=1", "/a/b?x=/../y"];

/// A request on a connection.
struct Asked {
    on: Connection,
    method: &'static str,
    path: &'static str,
    /// What the client proved to be; nothing in plain text.
    principal: String,
}

impl Asked {
    fn new(ours: &Ours, on: Connection, proves: bool, (method, path): (&'static str, &'static str)) -> Self {
        let identity = ours.identity(&on.source).filter(|_| proves);
        let principal = identity.map(|identity| format!("spiffe://{}", Identity::principal(identity)));
        Self { on, method, path, principal: principal.unwrap_or_default() }
    }

    fn for_dikastes(&self) -> Value {
        let mut asked = self.on.for_calico();
        for (field, text) in [("method", self.method), ("path", self.path), ("principal", &self.principal)] {
            asked[field] = text.into();
        }
        asked
    }

    /// Is it allowed, and who says so?
    fn judged(&self, ours: &Ours) -> Result<(bool, String)> {
        let (chains, _) = ours.chains(&self.on.destination).context("the destination is no pod")?;
        let (path, _) = self.path.split_once('?').unwrap_or((self.path, ""));
        let headers = HeaderMap::new();
        let request = Request::new(self.method, "web", path, &headers);
        Ok(ours.judge(chains, &self.on, Spoken::Http(&request)))
    }
}

/// What dikastes says of the requests of each world, given its objects.
fn dikastes(worlds: &[(&[Value], &[Asked])]) -> Result<Vec<Vec<bool>>> {
    let world = |(objects, _): &(&[Value], _)| json!({"world": {"objects": objects, "flows": [], "withSync": true}});
    let told = ask("calico-oracle", &worlds.iter().map(world).collect::<Vec<_>>())?;
    let question = |(mut told, (_, asked)): (Value, &(_, &[Asked]))| {
        let requests: Vec<Value> = asked.iter().map(Asked::for_dikastes).collect();
        json!({"sync": told["sync"].take(), "requests": requests})
    };
    let questions: Vec<Value> = told.into_iter().zip(worlds).map(question).collect();
    ask("calico-dikastes", &questions)?.into_iter().map(|answer| Ok(serde_json::from_value(answer)?)).collect()
}

#[test]
fn dikastes_and_the_mesh_allow_the_same_requests() -> Result<()> {
    let seeds: Vec<u64> = (0..WORLDS * env::thoroughness()?).collect();
    let mut counts = [0; 2];
    for seeds in seeds.chunks(BATCH) {
        let mut worlds = Vec::new();
        for &seed in seeds {
            let mut rng = Rng::with_seed(seed);
            let mut objects = population(&mut rng);
            // Where a set covers a pod, Dikastes and felix differ.
            for set in objects.iter_mut().filter(|object| object["kind"] == "GlobalNetworkSet") {
                set["spec"]["nets"] = json!(["192.0.2.0/24", "2001:db8::/64"]);
            }
            objects.extend(policies(&mut rng, About::Requests));
            let ours = Ours::new(&objects)?;
            let pods: Vec<IpAddr> = ours.sandboxes.keys().copied().collect();
            // Of a pod that policies are about only for what leaves, versions differ.
            let is_alike = |pod: &&IpAddr| {
                ours.chains(pod).is_some_and(|(inbound, outbound)| !inbound.is_empty() || outbound.is_empty())
            };
            let alike: BTreeSet<IpAddr> = pods.iter().filter(is_alike).copied().collect();
            let mut asked = Vec::new();
            while !alike.is_empty() && asked.len() < REQUESTS {
                let on = Connection::new(&mut rng, &pods)?;
                if alike.contains(&on.destination) {
                    let (method, path) = (pick(&mut rng, &["GET", "PUT", "DELETE"]), pick(&mut rng, &PATHS));
                    asked.push(Asked::new(&ours, on, rng.bool(), (method, path)));
                }
            }
            worlds.push((seed, objects, ours, asked));
        }
        let questions: Vec<(&[Value], &[Asked])> =
            worlds.iter().map(|(_, objects, _, asked)| (&objects[..], &asked[..])).collect();
        for ((seed, objects, ours, asked), verdicts) in worlds.iter().zip(dikastes(&questions)?) {
            ensure!(verdicts.len() == asked.len());
            for (asked, dikastes) in asked.iter().zip(verdicts) {
                let (is_allowed, by) = asked.judged(ours)?;
                ensure!(
                    is_allowed == dikastes,
                    "seed {seed}, {:?} {} {} by `{}`: dikastes says {dikastes}, the mesh {is_allowed} by {by}\n{}",
                    asked.on,
                    asked.method,
                    asked.path,
                    asked.principal,
                    told(objects)
                );
                counts[usize::from(is_allowed)] += 1;
            }
        }
    }
    ensure!(counts.iter().all(|&count| count > 500), "{counts:?}");
    println!("{} worlds, denied and allowed: {counts:?}", seeds.len());
    Ok(())
}

/// Where the mesh and Dikastes of Calico 3.28 differ: what a policy's only rule says beside `action: Allow` and `protocol: TCP`, or its
/// types; a path that is asked for; whether that Dikastes allows it, and whether the mesh does.
const CASES: [(&str, &str, bool, bool); 22] = [
    // As 3.32 has it. A pod that policies are about only for what leaves may be reached.
    (r#"{"types": ["Egress"]}"#, "/", false, true),
    // Prefixes are of whole elements.
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/ab", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a/"}]}}"#, "/a", false, true),
    // A slash at the end does not count.
    (r#"{"http": {"paths": [{"exact": "/a"}]}}"#, "/a/", false, true),
    (r#"{"http": {"paths": [{"exact": "/a/"}]}}"#, "/a", false, true),
    // Dots, doubled slashes, backslashes and parameters are resolved, also where they are escaped.
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/../b", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/%2e%2e/b", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/..%2fb", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/..%5cb", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/..;x/b", true, false),
    (r#"{"http": {"paths": [{"exact": "/a//b"}]}}"#, "/a/b", false, true),
    // What is escaped twice, or badly, or ends early, is no path that a rule allows.
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/%252e%252e/b", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/%zz", true, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "/a/%00", true, false),
    // What is excluded is looked at.
    (r#"{"destination": {"notPorts": [8080]}}"#, "/", true, false),
    (r#"{"source": {"notNets": ["10.0.0.0/24"]}}"#, "/", true, false),
    // Stricter than 3.32, where both allow or that alone does: a path must be allowed as it was sent, too.
    (r#"{"http": {"paths": [{"exact": "/b"}]}}"#, "/a/../b", false, false),
    (r#"{"http": {"paths": [{"prefix": "/a"}]}}"#, "//a", false, false),
    (r#"{"http": {"paths": [{"exact": "/a"}]}}"#, "/%61", false, false),
    // As felix has it, and no Dikastes: the version of IP is looked at; a set's range is met that has more than 24 bits and is no single
    // address; and of a set that covers a pod it does not matter which account that pod has. The sets are 10.0.0.0/28 and 10.0.0.0/24.
    (r#"{"ipVersion": 6}"#, "/", true, false),
    (r#"{"source": {"selector": "is == 'narrow'"}}"#, "/", false, true),
    (
        r#"{"source": {"selector": "is == 'wide'", "serviceAccounts": {"selector": "!has(projectcalico.org/name)"}}}"#,
        "/",
        false,
        true,
    ),
];

#[test]
fn where_calico_s_versions_differ_is_known() -> Result<()> {
    let mut worlds = Vec::new();
    for (said, path, ..) in CASES {
        let mut said: Value = serde_json::from_str(said)?;
        let spec = if said["types"].is_null() {
            said["action"] = "Allow".into();
            said["protocol"] = "TCP".into();
            json!({"selector": "all()", "ingress": [said]})
        } else {
            json!({"selector": "all()", "types": said["types"]})
        };
        let metadata = json!({"name": "case"});
        let mut objects = population(&mut Rng::with_seed(1));
        for (name, net) in [("narrow", "10.0.0.0/28"), ("wide", "10.0.0.0/24")] {
            let (metadata, spec) = (json!({"name": name, "labels": {"is": name}}), json!({"nets": [net]}));
            objects.push(json!({"apiVersion": CALICO, "kind": "GlobalNetworkSet", "metadata": metadata, "spec": spec}));
        }
        objects.push(json!({"apiVersion": CALICO, "kind": "GlobalNetworkPolicy", "metadata": metadata, "spec": spec}));
        let ours = Ours::new(&objects)?;
        ensure!(ours.snapshot.issues.is_empty(), "{said}: {:?}", ours.snapshot.issues);
        let on = Connection {
            source: "10.0.0.1".parse()?,
            destination: "10.0.0.2".parse()?,
            source_port: 50_000,
            port: 8080,
        };
        let asked = Asked::new(&ours, on, true, ("GET", path));
        worlds.push((objects, ours, [asked]));
    }
    let questions: Vec<(&[Value], &[Asked])> =
        worlds.iter().map(|(objects, _, asked)| (&objects[..], &asked[..])).collect();
    for (((said, path, calico, mesh), (_, ours, [asked])), verdicts) in
        CASES.iter().zip(&worlds).zip(dikastes(&questions)?)
    {
        let (is_allowed, by) = asked.judged(ours)?;
        ensure!(
            verdicts == [*calico] && is_allowed == *mesh,
            "{said} {path}: dikastes says {verdicts:?}, the mesh {is_allowed} by {by}"
        );
    }
    Ok(())
}
