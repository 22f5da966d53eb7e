//! Answers to the CNI plugin.
//!
//! In:  requests, each with the place where its answer is awaited.
//! Out: an answer: at once, or for ADD when the pod is in force, or when patience ends.
//! Invariant: what a request changes is on disk before anything else happens.

use super::Control;
use super::pods::State;
use crate::model::Name;
use crate::telemetry;
use crate::world::Change;
use mesh_common::cni::{Attachment, Request, Response};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long ADD may take; the plugin's own patience is a little longer.
const PATIENCE: Duration = Duration::from_secs(25);

/// A request and where its answer is awaited.
pub struct Asked {
    /// The request.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Response>,
}

/// An ADD whose pod is not yet in force.
pub(super) struct Waiting {
    attachment: Attachment,
    deadline: Instant,
    answer: oneshot::Sender<Response>,
}

impl Waiting {
    /// Is it for this sandbox?
    pub(super) fn is_for(&self, key: &str) -> bool {
        self.attachment.container_id == key
    }
}

/// Where an attached pod stands.
enum Standing {
    InForce,
    /// It is not to be steered.
    Exempt,
    Pending(String),
}

impl Control {
    pub(super) fn answer(&mut self, asked: Asked) {
        let response = match asked.request {
            Request::Add(attachment) => match self.attach(&attachment) {
                Ok(()) => {
                    let deadline = Instant::now() + PATIENCE;
                    return self.waiting.push(Waiting { attachment, deadline, answer: asked.answer });
                }
                Err(response) => response,
            },
            Request::Check(attachment) => self.check(&attachment),
            Request::Del { container_id, ifname } => {
                self.parting.clear();
                self.detach(vec![(container_id, ifname)]);
                // The network goes with the answer, and with it any chance to tell the other ends.
                let parting = std::mem::take(&mut self.parting);
                telemetry::spawn("parting", async move {
                    for cut in parting {
                        let _closed_is_cut = cut.await;
                    }
                    respond(asked.answer, Response::Ok);
                });
                return;
            }
            Request::Status => self.status(),
            Request::Gc { valid } => {
                let valid: BTreeSet<_> = valid.into_iter().collect();
                let known: Vec<_> = self
                    .world()
                    .attachments()
                    .map(|attachment| (attachment.container_id.clone(), attachment.ifname.clone()))
                    .collect();
                self.detach(known.into_iter().filter(|id| !valid.contains(id)).collect());
                Response::Ok
            }
        };
        respond(asked.answer, response);
    }

    fn attach(&mut self, attachment: &Attachment) -> Result<(), Response> {
        self.parts.store.save(attachment).map_err(|error| {
            let message = format!("the daemon cannot remember the pod: {error}; is its disk full?");
            Response::Error { retriable: true, message }
        })?;
        if self.apply(Change::Attach(attachment.clone())) {
            self.publish();
        }
        Ok(())
    }

    /// Forgets sandboxes, on disk last: a daemon that dies in between finds their namespaces gone.
    pub(super) fn detach(&mut self, sandboxes: Vec<(String, String)>) {
        let mut changed = false;
        for (container_id, ifname) in &sandboxes {
            let change = Change::Detach { container_id: container_id.clone(), ifname: ifname.clone() };
            changed |= self.apply(change);
        }
        if changed {
            self.publish();
        }
        for (container_id, ifname) in &sandboxes {
            self.forget_on_disk(container_id, ifname);
        }
    }

    fn check(&self, attachment: &Attachment) -> Response {
        match self.standing(attachment) {
            Standing::InForce | Standing::Exempt => Response::Ok,
            Standing::Pending(why) => Response::Error { retriable: true, message: why },
        }
    }

    fn status(&self) -> Response {
        if self.published.is_some() {
            Response::Ok
        } else {
            let message = "the daemon is starting: it is still reading the users' objects".to_owned();
            Response::Error { retriable: true, message }
        }
    }

    fn standing(&self, attachment: &Attachment) -> Standing {
        let name = Name::new(attachment.pod_namespace.as_str(), attachment.pod_name.as_str());
        let Some(published) = &self.published else {
            return Standing::Pending("the daemon is still reading the users' objects".to_owned());
        };
        if let Some(pod) = published.pods.get(attachment.container_id.as_str()) {
            return match self.enrolments.state(&attachment.container_id) {
                Some(State::InForce) if pod.enrolled && !pod.is_settled() => Standing::Pending(self.unannounced(&name)),
                Some(State::InForce) => Standing::InForce,
                Some(State::Failed(error, _)) => Standing::Pending(format!("pod {name} cannot be enrolled: {error}")),
                Some(State::Certificate) => Standing::Pending(format!("pod {name} waits for its certificate")),
                Some(State::Steering(_) | State::Leaving) | None => {
                    Standing::Pending(format!("pod {name} is being enrolled"))
                }
            };
        }
        match self.compiler.workload(&name) {
            // The namespace says whether the pod is in the mesh, and may be heard of after the pod.
            Some(workload) if !workload.uid.is_empty() && !self.knows_namespace_of(&name) => {
                Standing::Pending(format!("the namespace of pod {name} is not known to the mesh yet"))
            }
            Some(workload) if !workload.enrolled || workload.host_network => Standing::Exempt,
            Some(_) => {
                let issue = published.issues.iter().find(|issue| issue.object.name == name);
                let why =
                    issue.map_or_else(|| "its address or UID does not match".to_owned(), |issue| issue.to_string());
                Standing::Pending(format!("pod {name} is known, but not this sandbox of it: {why}"))
            }
            None => Standing::Pending(format!("pod {name} is not known to the mesh yet")),
        }
    }

    /// Why a pod that is in force here is not yet in the mesh.
    pub(super) fn unannounced(&self, pod: &Name) -> String {
        let why = self.parts.announcer.trouble(pod).map_or_else(String::new, |why| format!(": {why}"));
        format!("pod {pod} waits until the other nodes are told of it{why}")
    }

    fn knows_namespace_of(&self, pod: &Name) -> bool {
        self.world().namespace(&pod.namespace).is_some()
    }

    /// Answers the ADDs whose pods are in force.
    pub(super) fn answer_ready(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match self.standing(&waiting.attachment) {
                Standing::InForce | Standing::Exempt => respond(waiting.answer, Response::Ok),
                // The plugin hung up: nobody waits any more.
                Standing::Pending(_) if waiting.answer.is_closed() => {}
                Standing::Pending(_) => self.waiting.push(waiting),
            }
        }
    }

    /// Gives up on the ADDs that waited too long.
    pub(super) fn answer_late(&mut self) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.deadline > now {
                self.waiting.push(waiting);
            } else if let Standing::Pending(message) = self.standing(&waiting.attachment) {
                respond(waiting.answer, Response::Error { retriable: true, message });
            } else {
                respond(waiting.answer, Response::Ok);
            }
        }
    }
}

fn respond(answer: oneshot::Sender<Response>, response: Response) {
    // The plugin may have hung up.
    let _hung_up = answer.send(response);
}
