//! Pods that ran before the plugin was in the chain.
//!
//! In:  the pods of this node that no ADD told of.
//! Out: orders to look for their sandboxes; attachments, as if ADD had brought them; an issue for each in vain.
//! Invariant: a pod whose ADD is under way is left to it: only one that stays unknown for a while is looked for.

use super::Control;
use crate::model::{Issue, Name, ObjectRef, Workload};
use crate::source::running::Stranger;
use crate::world::{Change, Kind};
use mesh_common::cni::Attachment;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a pod may be unknown before it is looked for: ADD tells of it while it gets its address.
const GRACE: Duration = Duration::from_secs(2);
/// How long after a search in vain the next one begins.
const RETRY: Duration = Duration::from_secs(10);

/// The pods that are looked for.
#[derive(Default)]
pub(super) struct Strangers {
    pods: BTreeMap<Name, Sought>,
    /// A search is under way.
    searching: bool,
}

struct Sought {
    stranger: Stranger,
    due: Instant,
}

/// What a search brought.
pub(super) struct Found {
    pub(super) name: Name,
    /// The sandbox, or why there is none.
    pub(super) attachment: Result<Attachment, String>,
}

impl Control {
    /// The pods of this node that no ADD told of.
    pub(super) fn unattached(&self) -> Vec<Stranger> {
        let stranger = |workload: &Arc<Workload>| Stranger {
            name: workload.name.clone(),
            uid: workload.uid.clone(),
            container_id: workload.container_id.clone(),
            addresses: workload.addresses.clone(),
        };
        self.compiler.strangers().map(stranger).collect()
    }

    /// Learns which pods no ADD told of. Returns whether the world is different for it.
    pub(super) fn set_strangers(&mut self, strangers: Vec<Stranger>) -> bool {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.strangers.pods);
        for stranger in strangers {
            let known = before.remove(&stranger.name).filter(|known| known.stranger.uid == stranger.uid);
            let due = known.map_or(now + GRACE, |known| known.due);
            self.strangers.pods.insert(stranger.name.clone(), Sought { stranger, due });
        }
        // Told of, or gone: either way nothing is wrong with them any more.
        before.into_keys().fold(false, |changed, name| changed | self.apply(fault(&name, None)))
    }

    /// Begins a search for those that are due.
    pub(super) fn look_for_strangers(&mut self) {
        let now = Instant::now();
        if self.strangers.searching {
            return;
        }
        let due: Vec<_> = self
            .strangers
            .pods
            .values_mut()
            .filter(|sought| sought.due <= now)
            .map(|sought| {
                sought.due = now + RETRY;
                sought.stranger.clone()
            })
            .collect();
        if !due.is_empty() {
            self.strangers.searching = true;
            self.parts.steerer.find(due);
        }
    }

    /// A search has ended.
    pub(super) fn take_found(&mut self, found: Vec<Found>) {
        self.strangers.searching = false;
        let mut changed = false;
        for Found { name, attachment } in found {
            // Its own ADD may have come meanwhile, or the pod may be gone.
            let Some(sought) = self.strangers.pods.get(&name) else { continue };
            let attachment = attachment.and_then(|attachment| {
                let current = attachment.pod_uid.as_deref().unwrap_or_default() == sought.stranger.uid;
                if !current {
                    return Err("the pod was replaced meanwhile".to_owned());
                }
                self.parts.store.save(&attachment).map_err(|error| crate::telemetry::explain(&error))?;
                Ok(attachment)
            });
            changed |= match attachment {
                Ok(attachment) => {
                    tracing::info!(pod = %name, netns = attachment.netns, "a pod that ran before joins the mesh");
                    self.apply(Change::Attach(attachment))
                }
                Err(why) => self.apply(fault(&name, Some(&why))),
            };
        }
        if changed {
            self.publish();
        }
    }
}

/// What is wrong with a pod that is not found; nothing any more without a reason.
fn fault(name: &Name, why: Option<&str>) -> Change {
    let object = ObjectRef::new(Kind::Pod.name(), name.clone());
    let issue = |why: &str| {
        Issue::new(
            &object,
            "",
            format!("the pod is not in the mesh: its sandbox cannot be found: {why}"),
            "wait if the pod is about to start; if it runs, restart it, and it is enrolled from its start",
        )
    };
    Change::Faults { origin: format!("running/{name}"), issues: why.map(issue).into_iter().collect() }
}
