//! What routes, faults, gateways and policies do to an application, one step after another.
//!
//! In:  for Bookinfo Istio's samples as they are, and a few files of our own for what those lack; for the bank our own.
//! Out: lines for people: which files are in force, and what visitors then see.
//! Invariant: each step applies files as a user would, and ends only when what the files say was seen; what a step
//! applied and the next one does not name is deleted, so that no step leans on another.
//! Source: Istio's tasks "Request Routing", "Fault Injection", "Traffic Shifting", "Mirroring", "Ingress Gateways"; Calico's tutorial
//! "Enforce network policy for Istio".

mod bank;
mod page;
mod stops;

use crate::stage::{self, Stage};
use crate::{Options, manifests};
use anyhow::{Context as _, Result};
use mesh_tests::http::Seen;
use mesh_tests::wait::{self, PATIENCE};
use page::Page;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is toured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Bookinfo.
    Bookinfo,
    /// The bank.
    Bank,
}

impl Place {
    /// The namespace, the program and the directory of manifests.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bookinfo => "bookinfo",
            Self::Bank => "bank",
        }
    }

    const fn stops(self) -> &'static [Stop] {
        match self {
            Self::Bookinfo => stops::ALL,
            Self::Bank => bank::ALL,
        }
    }
}

/// How many pages in a row show that a change is in force at both nodes.
const SETTLED: u32 = 8;

/// A file that a step applies.
#[derive(Clone, Copy, Debug)]
enum File {
    /// Of Istio's sample `bookinfo`.
    Istio(&'static str),
    /// Of our manifests' directory `tour`.
    Own(&'static str),
}

/// One step.
struct Stop {
    title: &'static str,
    /// What is in force; of two files with one object the later counts.
    files: &'static [File],
    /// What follows for visitors.
    check: fn(&Tour) -> Result<()>,
}

/// Kind, namespace and name.
type Key = [String; 3];

/// Where the tour is.
struct Tour {
    place: Place,
    stage: Stage,
    samples: PathBuf,
    own: PathBuf,
    /// What the step applied.
    applied: BTreeMap<Key, Value>,
}

/// Takes the tour.
///
/// **Errors**: something did not work, or visitors saw something else than the files say.
pub(crate) fn take(options: &Options, place: Place, samples: &Path) -> Result<()> {
    let begun = Instant::now();
    match place {
        Place::Bookinfo => {
            println!("Bookinfo on two nodes, everything in the mesh; Istio's files are those of {}", samples.display());
        }
        Place::Bank => println!("A bank on two nodes, everything in the mesh; policies are Calico's"),
    }
    let mut stage = Stage::new(stage::nodes(options)?, place.name());
    let mut application = manifests::read(&options.manifests)?;
    stage.apply(&mut application)?;
    for workload in &application.pods {
        stage.start(workload).with_context(|| format!("the pod {} did not start", workload.name))?;
    }
    let (samples, own) = (samples.to_owned(), options.manifests.join("tour"));
    let mut tour = Tour { place, stage, samples, own, applied: BTreeMap::new() };
    for (number, stop) in place.stops().iter().enumerate() {
        println!("\n[{}/{}] {}", number + 1, place.stops().len(), stop.title);
        let taken = tour.stop(stop);
        if taken.is_err() {
            tour.stage.show_logs();
        }
        taken.with_context(|| format!("step {}, {}", number + 1, stop.title))?;
    }
    println!("\ndemo: every step did what its files say ({:.0} s)", begun.elapsed().as_secs_f64());
    if options.keep {
        println!("Objects:       {} (edit them, the daemons watch)", tour.stage.mesh.kube().dir().display());
        println!("Take it down:  cargo xtask demo --down");
    }
    Ok(())
}

impl Tour {
    fn stop(&mut self, stop: &Stop) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for file in stop.files {
            let (path, shown) = match file {
                File::Istio(path) => (self.samples.join(path), format!("samples/bookinfo/{path}")),
                File::Own(path) => (self.own.join(path), format!("manifests/{}/tour/{path}", self.place.name())),
            };
            println!("      apply {shown}");
            let mut application = manifests::read_into(&path, self.place.name())?;
            wanted.extend(application.others.drain(..).map(|object| (key(&object), object)));
            application.services.retain(|service| !self.stage.services.contains_key(&service.name));
            self.stage.apply(&mut application)?;
        }
        let gone: Vec<Key> = self.applied.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for [kind, namespace, name] in gone {
            self.stage.mesh.kube().delete(&kind, &namespace, &name)?;
        }
        for object in wanted.values() {
            self.stage.mesh.kube().apply(object.clone())?;
        }
        self.applied = wanted;
        (stop.check)(self)
    }

    /// Changes an object that the step applied.
    fn change(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.stage.mesh.kube().change(kind, self.place.name(), name, change)
    }

    /// One page, as somebody who is logged in under this name gets it, or a stranger.
    fn page(&self, user: Option<&str>) -> Result<Page> {
        let url = format!("http://{}/productpage", self.stage.address("productpage")?);
        let header = user.map(|user| format!("end-user: {user}"));
        Page::fetch(self.stage.pod("visitor")?, &url, header.as_deref())
    }

    /// That many pages.
    fn pages(&self, user: Option<&str>, count: u32) -> Result<Vec<Page>> {
        (0..count).map(|_| self.page(user)).collect()
    }

    /// Waits until pages are so.
    fn settled(&self, user: Option<&str>, what: &str, is: impl Fn(&Page) -> bool) -> Result<()> {
        let mut last = None;
        let waited = wait::until_true(what, PATIENCE, || {
            for _ in 0..SETTLED {
                let page = self.page(user)?;
                let met = is(&page);
                last = Some(page);
                if !met {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        waited.with_context(|| format!("the last page was {last:?}"))
    }
}

/// What a pod gets of a service.
fn got(tour: &Tour, by: &str, service: &str, (method, path): (&str, &str)) -> Result<Seen> {
    let url = format!("http://{}{path}", tour.stage.address(service)?);
    tour.stage.pod(by)?.ask(&url, &["--request", method])
}

/// Is this what whoever is denied a request gets?
fn is_denied(seen: &Seen) -> bool {
    seen.status == 403 && seen.body == "RBAC: access denied"
}

fn key(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    [text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"])]
}
