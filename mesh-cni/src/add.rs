//! ADD: puts a pod into the mesh.
//!
//! In:  the sandbox and the pod from the environment, the addresses from `prevResult`.
//! Out: `prevResult`, once the daemon has said that identity, policy and steering of the pod are in force.
//! Invariant: pods of excluded namespaces pass without the daemon, so that a node can boot.
//! Source: CNI 1.1.0, section 2, "ADD".

use crate::config::{Config, Settings};
use crate::daemon;
use crate::env::Environment;
use crate::failure::Failure;
use crate::prev_result::PrevResult;
use mesh_common::cni::{Attachment, Request, Response};

pub(crate) fn add(environment: &Environment, config: Config) -> Result<String, Failure> {
    let settings = config.settings?;
    let prev_result = PrevResult::new(config.prev_result)?;
    let attachment = attachment(environment, &settings, &prev_result)?;
    let result = prev_result.print(config.version)?;
    if let Some(attachment) = attachment {
        accepted(daemon::ask(&settings.socket, settings.timeout, &Request::Add(attachment))?)?;
    }
    Ok(result)
}

/// What the daemon is told of the pod; `None` if the container passes untouched.
pub(crate) fn attachment(
    environment: &Environment,
    settings: &Settings,
    prev_result: &PrevResult,
) -> Result<Option<Attachment>, Failure> {
    let (sandbox, netns) = environment.sandbox_and_netns()?;
    let Some(pod) = environment.pod()? else { return Ok(None) };
    if settings.exclude_namespaces.contains(&pod.namespace) {
        return Ok(None);
    }
    let addresses = prev_result.addresses(&sandbox.ifname)?;
    Ok(Some(Attachment {
        container_id: sandbox.container_id,
        ifname: sandbox.ifname,
        netns,
        pod_namespace: pod.namespace,
        pod_name: pod.name,
        pod_uid: pod.uid,
        addresses,
    }))
}

/// Turns the daemon's refusal into a failure.
pub(crate) fn accepted(response: Response) -> Result<(), Failure> {
    match response {
        Response::Ok => Ok(()),
        Response::Error { retriable, message } => Err(Failure::Refused { retriable, message }),
    }
}
