//! Why something may speak with something, or may not.
//!
//! In:  a world; who asks whom, and for what.
//! Out: an [`Answer`]: where it would go, and every verdict with the object that gives it.
//! Invariant: nothing is decided here. Routes, modes and policies are those of the snapshot of a node on which both pods run, made
//! by the compiler of the data plane and judged by its evaluator.
//! Invariant: pure. The world is the asker's own, in which the pods that are asked about are given sandboxes.

mod edge;
mod end;
mod making;
mod page;
mod question;
mod route;
mod verdict;

#[cfg(test)]
mod tests;

pub use page::render;
pub use question::{Noun, Place, Question, Request};
pub use verdict::OTHERWISE_DENIED;

use crate::api::apps::Plan;
use crate::compile::{self, Compiler};
use crate::model::Name;
use crate::policy::Sni;
use crate::snapshot::{LocalPod, NodeSnapshot, PodKey, WorkloadEntry};
use crate::translate;
use crate::world::{Attachment, Change, Object, Touched, World};
use end::End;
use making::Made;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// Whoever was asked knows too little.
    #[error("only the daemon of a node can say why; ask one of those")]
    Elsewhere,
    /// It names no such end.
    #[error(
        "`{text}` cannot be meant here: name a pod or service as namespace/name, something else as kind/namespace/name, an \
         address, a host that a gateway serves, or, as who asks, `outside`"
    )]
    Place {
        /// What was given.
        text: String,
    },
    /// The request is none.
    #[error("this is no request: {what}")]
    Request {
        /// What is wrong with it.
        what: String,
    },
    /// No object has the name.
    #[error(
        "there is no pod {name} with an address, and no service; name one that `kubectl get pods,services` shows, or name what pods \
         are made by, as in deploy/{name}"
    )]
    Unknown {
        /// The name.
        name: Name,
    },
    /// Who asks has no address.
    #[error(
        "there is no pod {name} with an address; name one that `kubectl get pods` shows, or name what pods are made by, as in \
         deploy/{name}"
    )]
    NoPod {
        /// The name.
        name: Name,
    },
    /// Something has made no pods.
    #[error(
        "no pod with an address is of {place}. A daemon knows pods, and not what they are made by: before they run, ask about a tree of \
         objects that holds it, by `--objects`"
    )]
    NothingMade {
        /// What it is.
        place: Place,
    },
    /// No gateway has the name.
    #[error("there is no gateway {name}, neither of the Gateway API nor of Istio")]
    NoGateway {
        /// The name.
        name: Name,
    },
    /// It is not clear which host is asked for.
    #[error("say by `--host` which host is asked for: {place} serves {hosts}")]
    Host {
        /// What is dialled.
        place: Place,
        /// The hosts that it serves, for people.
        hosts: String,
    },
    /// The service has no address that can be dialled.
    #[error("service {name} has no address of its own; name one of its pods")]
    Headless {
        /// Its name.
        name: Name,
    },
    /// It is not clear which port is meant.
    #[error("say which port of {place} is dialled: it has {ports}")]
    Port {
        /// What is dialled.
        place: Place,
        /// The ports that it has, for people.
        ports: String,
    },
}

/// Where it would go, and what becomes of it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who asks, for people.
    pub source: String,
    /// What is dialled, for people.
    pub destination: String,
    /// By what it enters the mesh, if it comes from outside by a gateway.
    #[serde(default)]
    pub entered: Option<Entered>,
    /// How it is routed.
    pub route: Route,
    /// What becomes of it at each place that it may go to; places at which the same becomes of it stand together.
    pub ways: Vec<Way>,
}

impl Answer {
    /// Is it allowed wherever it may go, and goes somewhere?
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        let enters = self.entered.as_ref().is_none_or(Entered::is_allowed);
        enters && self.route.answered.is_none() && !self.ways.is_empty() && self.ways.iter().all(Way::is_allowed)
    }
}

/// How something enters the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The listeners of gateways by which it does.
    pub by: Vec<String>,
    /// What policies say of that, in order; the first that denies ends it.
    pub steps: Vec<Step>,
}

impl Entered {
    /// Does nothing deny it?
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.steps.iter().all(|step| step.is_allowed)
    }
}

/// How something is routed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The rule that says so; `None` where none does.
    pub rule: Option<String>,
    /// With what it is answered before it goes anywhere.
    pub answered: Option<String>,
    /// Where else it goes.
    pub notes: Vec<String>,
}

/// What becomes of it at some places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Its share, where the route splits: as in `90 of 100`.
    pub share: Option<String>,
    /// The places.
    pub to: Vec<String>,
    /// What is said of it, in order; the first that denies ends it.
    pub steps: Vec<Step>,
}

impl Way {
    /// Does nothing deny it?
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.steps.iter().all(|step| step.is_allowed)
    }
}

/// One verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is asked.
    pub what: What,
    /// Is it allowed?
    pub is_allowed: bool,
    /// Who says so.
    pub by: String,
    /// What is told besides: rules that only tell, and what policies on trial would say.
    pub told: Vec<String>,
}

/// What is asked on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Policies for what enters by gateways.
    Entering,
    /// Policies for what leaves the source.
    Egress,
    /// How the connection is protected, and whether that is enough.
    Protection,
    /// Policies for what arrives at the destination.
    Ingress,
}

/// Answers.
///
/// **Errors**: the question is not clear.
pub fn ask(
    world: World,
    names: translate::Settings,
    settings: compile::Settings,
    question: &Question,
) -> Result<Answer, WhyError> {
    ask_about_plans((world, &[]), names, settings, question)
}

/// Answers, also about pods that would be made if these plans were carried out.
///
/// **Errors**: the question is not clear.
pub fn ask_about_plans(
    (mut world, plans): (World, &[Plan]),
    names: translate::Settings,
    settings: compile::Settings,
    question: &Question,
) -> Result<Answer, WhyError> {
    let made = Made::fill(&mut world, plans, &question.source);
    let question = Question {
        source: made_by(&world, &question.source, true)?,
        destination: made_by(&world, &question.destination, false)?,
        ..question.clone()
    };
    let mut case = Case::new((world, made), names, settings, &question.source);
    let mut answer = answer(&mut case, &question)?;
    answer.route.notes.extend(case.involved.then(|| making::REMARK.to_owned()));
    Ok(answer)
}

/// The pod that is meant where what makes pods is named: the last asks the first, since replicas ask each other.
fn made_by(world: &World, place: &Place, asks: bool) -> Result<Place, WhyError> {
    let Place::Kind(Noun::Maker(maker), name) = place else { return Ok(place.clone()) };
    let pods = making::pods_of(world, *maker, name);
    let pod = if asks { pods.last() } else { pods.first() };
    let pod = pod.ok_or_else(|| WhyError::NothingMade { place: place.clone() })?;
    Ok(Place::Kind(Noun::Pod, pod.clone()))
}

fn answer(case: &mut Case, question: &Question) -> Result<Answer, WhyError> {
    let source = End::source(case, &question.source)?;
    if let Place::Kind(Noun::Gateway, _) | Place::Host(_) = &question.destination {
        return edge::enter(case, source, question);
    }
    let target = end::target(case, question)?;
    let request = question.request.as_ref().map(|request| request.understood(&target.host, "http")).transpose()?;
    let sni = match (&question.sni, &request) {
        (Some(name), _) => Sni::of(name),
        // Requests are read where no TLS is around them.
        (None, Some(_)) => Sni::Absent,
        (None, None) => Sni::Unread,
    };
    let snapshot = case.compiler.snapshot();
    let routed = route::find(&snapshot, &source, target.address, (request.as_ref(), &sni));
    let ways = ways(case, (&source, &sni), routed.ways);
    Ok(Answer { source: source.shown, destination: target.shown, entered: None, route: routed.route, ways })
}

/// What becomes of it at each place, asked with such a server name in TLS.
fn ways(case: &mut Case, (source, sni): (&End, &Sni), routed: Vec<route::Way>) -> Vec<Way> {
    // Their pods are judged as if they were of this node.
    let pods: BTreeSet<Name> =
        routed.iter().flat_map(|way| &way.to).filter_map(|to| case.compiler.pod_at(&to.ip()).cloned()).collect();
    case.attach(pods);
    let snapshot = case.compiler.snapshot();
    let mut ways: Vec<Way> = Vec::new();
    for route::Way { share, to, names, is_mutual, request } in routed {
        let mut of_share: Vec<Way> = Vec::new();
        if !names.is_empty() {
            of_share.push(Way { share: share.clone(), to: names, steps: vec![verdict::unresolved()] });
        }
        for address in to {
            let steps = verdict::steps((&snapshot, case), source, (address, is_mutual), (request.as_ref(), sni));
            let shown = case.place(address);
            match of_share.iter_mut().find(|way| way.steps == steps) {
                Some(way) => way.to.push(shown),
                None => of_share.push(Way { share: share.clone(), to: vec![shown], steps }),
            }
        }
        ways.append(&mut of_share);
    }
    ways
}

/// A world in which the pods that are asked about run on one node: that of the source, for the sake of distances.
struct Case {
    world: World,
    compiler: Compiler,
    node: String,
    /// The edge of a node, as pods see it.
    edge: Arc<WorkloadEntry>,
    made: Made,
    /// Does the answer speak of a pod that was made?
    involved: bool,
}

impl Case {
    fn new(
        (mut world, made): (World, Made),
        names: translate::Settings,
        settings: compile::Settings,
        source: &Place,
    ) -> Self {
        let node = match source {
            Place::Named(pod) | Place::Kind(Noun::Pod, pod) => world.pod(pod).and_then(|pod| pod.spec.node_name),
            Place::Kind(Noun::Service | Noun::Gateway | Noun::Maker(_), _)
            | Place::Host(_)
            | Place::Address(_)
            | Place::Outside => None,
        };
        let settings = compile::Settings { node: node.unwrap_or(settings.node), ..settings };
        let node = settings.node.clone();
        let others: Vec<_> = world.attachments().map(|one| (one.container_id.clone(), one.ifname.clone())).collect();
        for (container_id, ifname) in others {
            world.apply(Change::Detach { container_id, ifname });
        }
        let edge = Arc::new(compile::edge_workload(&settings));
        let compiler = Compiler::of(&world, names, settings);
        Self { world, compiler, node, edge, made, involved: false }
    }

    /// Gives pods sandboxes on this node.
    fn attach(&mut self, pods: impl IntoIterator<Item = Name>) {
        let mut touched = Touched::default();
        for pod in pods {
            self.involved |= self.made.of(&pod).is_some();
            if let Some(mut moved) = self.world.pod(&pod) {
                moved.spec.node_name = Some(self.node.clone());
                touched.extend(self.world.learn(Change::Upsert(Box::new(Object::Pod(moved)))));
            }
            let attachment = Attachment {
                container_id: pod.to_string(),
                ifname: "eth0".to_owned(),
                netns: String::new(),
                addresses: self.compiler.claims(&self.world, &pod),
                pod_namespace: pod.namespace.to_string(),
                pod_name: pod.name.to_string(),
                pod_uid: None,
            };
            touched.extend(self.world.learn(Change::Attach(attachment)));
        }
        self.compiler.learn(&self.world, touched);
    }

    /// What is at an address, for people.
    fn place(&self, address: SocketAddr) -> String {
        match self.compiler.pod_at(&address.ip()) {
            Some(pod) => self.shown(pod, address),
            None => address.to_string(),
        }
    }

    /// A pod at an address, for people.
    fn shown(&self, pod: &Name, address: impl Display) -> String {
        match self.made.of(pod) {
            Some((maker, name)) => format!("a pod of {} {name} at {address}", maker.name()),
            None => format!("{pod} at {address}"),
        }
    }
}

/// The pod of this name, if its traffic is steered.
fn pod<'s>(snapshot: &'s NodeSnapshot, name: &Name) -> Option<(&'s PodKey, &'s Arc<LocalPod>)> {
    snapshot.pods.iter().find(|(_, pod)| pod.name == *name)
}
