//! The mesh's own daemons, for whoever reports what they tell.
//!
//! In:  a client, the namespace of the daemons.
//! Out: the daemons that are ready; nothing until they were listed.
//! Invariant: a daemon counts while the kubelet says that its pod is ready: what one that is away told does not hold.
//! Source: Kubernetes `core/v1.Pod`, "PodCondition".

use crate::api::listening::{self, LISTENING};
use crate::model::Daemon;
use crate::telemetry;
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;

/// How the pods of daemons are told from those of the mesh's other programs.
const SELECTOR: &str = "app.kubernetes.io/name=mesh-node";

/// Those that are ready; `None` until they were listed.
pub type Daemons = Option<Arc<[Daemon]>>;

/// Watches the daemons of `namespace`. Where that is not permitted, nothing is ever told.
pub fn watch(client: Client, namespace: &str) -> watch::Receiver<Daemons> {
    let (told, daemons) = watch::channel(None);
    telemetry::spawn("daemons", follow(Api::namespaced(client, namespace), told));
    daemons
}

async fn follow(api: Api<Pod>, told: watch::Sender<Daemons>) {
    let config = watcher::Config::default().labels(SELECTOR);
    let mut events = pin!(watcher::watcher(api, config).default_backoff());
    let mut known: BTreeMap<String, Option<Daemon>> = BTreeMap::new();
    let (mut is_whole, mut is_warned) = (false, false);
    while !told.is_closed() {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                if !std::mem::replace(&mut is_warned, true) {
                    tracing::warn!(%error, "what daemons tell of gateways is not heard; may pods be listed here?");
                }
                continue;
            }
        };
        match event {
            Event::Init => {
                known.clear();
                is_whole = false;
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                known.insert(pod.metadata.name.clone().unwrap_or_default(), daemon(&pod));
            }
            Event::Delete(pod) => drop(known.remove(&pod.metadata.name.unwrap_or_default())),
            Event::InitDone => (is_whole, is_warned) = (true, false),
        }
        if is_whole {
            let now: Arc<[Daemon]> = known.values().flatten().cloned().collect();
            told.send_if_modified(|before| {
                let is_new = before.as_ref() != Some(&now);
                *before = Some(now);
                is_new
            });
        }
    }
}

/// The daemon that a pod is, if it is ready.
fn daemon(pod: &Pod) -> Option<Daemon> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let is_ready = conditions.into_iter().any(|of| of.type_ == "Ready" && of.status == "True");
    if !is_ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let told = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(LISTENING));
    // It is on its node's network, so that its addresses are the node's.
    let addresses = status.pod_ips.iter().flatten().filter_map(|entry| entry.ip.parse().ok());
    Some(Daemon {
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        addresses: addresses.collect(),
        listening: told.map(|text| listening::read(text)).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Listening, Told};

    fn pod(metadata: &str, ready: &str) -> Pod {
        let text = format!(
            r#"{{"metadata": {{"name": "d"{metadata}}}, "spec": {{"nodeName": "one", "containers": []}}, "status": {{
                "podIP": "192.0.2.1", "podIPs": [{{"ip": "192.0.2.1"}}, {{"ip": "2001:db8::1"}}],
                "conditions": [{{"type": "Initialized", "status": "True"}}, {{"type": "Ready", "status": "{ready}"}}]}}}}"#
        );
        serde_json::from_str(&text).expect("a pod")
    }

    #[test]
    fn a_daemon_that_is_ready_tells_of_its_node() {
        let telling = r#", "annotations": {"mesh.internal/listening": "{\"u\":{\"generation\":2}}"}"#;
        let found = daemon(&pod(telling, "True")).expect("it is ready");
        assert_eq!((found.node.as_str(), found.addresses.len()), ("one", 2));
        let told = Told { generation: 2, ..Told::default() };
        assert_eq!(found.listening, Listening::from([("u".to_owned(), told)]));
        assert_eq!(daemon(&pod("", "True")).expect("it is ready").listening, Listening::new());
    }

    #[test]
    fn one_that_is_not_ready_or_about_to_go_tells_nothing() {
        assert_eq!(daemon(&pod("", "False")), None);
        assert_eq!(daemon(&pod(r#", "deletionTimestamp": "2026-01-01T00:00:00Z""#, "True")), None);
        assert_eq!(daemon(&Pod::default()), None);
    }
}
