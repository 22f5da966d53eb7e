//! Who may have which identity.
//!
//! In:  what a request claims, and the objects it names as the API server has them.
//! Out: the identity, or why not.
//! Invariant: nothing that a request says is believed; it is compared with the pod, its service account and its node.
//! Source: Kubernetes `NodeRestriction`, which checks the same of a kubelet's requests.

use crate::identity::api::{ApiError, failed};
use crate::model::{Identity, TrustDomain};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::Client;
use kube::api::Api;

/// What a request claims; what it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) pod_uid: String,
    pub(super) service_account: Option<(String, String)>,
    /// The node that asks.
    pub(super) node: String,
    pub(super) node_uid: Option<String>,
}

/// Why a request is denied: a reason for programs and a message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn deny<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Denial> {
    Err(Denial { reason, message: message.into() })
}

/// Compares a claim with what the API server says now.
///
/// **Errors**: the API server does not answer; that says nothing about the claim.
pub(super) async fn check(
    client: &Client,
    claim: &Claim,
    trust_domain: &TrustDomain,
) -> Result<Result<Identity, Denial>, ApiError> {
    let pods = Api::<Pod>::namespaced(client.clone(), &claim.namespace);
    let pod = pods.get_opt(&claim.pod).await.map_err(failed(format!("read the pod {}", claim.pod)))?;
    let account = match pod.as_ref().and_then(|pod| pod.spec.as_ref()?.service_account_name.clone()) {
        Some(name) => {
            let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &claim.namespace);
            accounts.get_opt(&name).await.map_err(failed(format!("read the service account {name}")))?
        }
        None => None,
    };
    let nodes = Api::<Node>::all(client.clone());
    let node = nodes.get_opt(&claim.node).await.map_err(failed(format!("read the node {}", claim.node)))?;
    Ok(judge(claim, (pod.as_ref(), account.as_ref(), node.as_ref()), trust_domain))
}

/// Compares a claim with the objects it names.
fn judge(
    claim: &Claim,
    (pod, account, node): (Option<&Pod>, Option<&ServiceAccount>, Option<&Node>),
    trust_domain: &TrustDomain,
) -> Result<Identity, Denial> {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let name = format!("{}/{}", claim.namespace, claim.pod);
    let Some(pod) = pod.filter(|pod| pod.metadata.uid.as_ref() == Some(&claim.pod_uid)) else {
        return deny("PodNotFound", format!("there is no pod {name} with the UID {}", claim.pod_uid));
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let runs_on = spec.node_name.unwrap_or_default();
    if claim.node.is_empty() || runs_on != claim.node {
        return deny("PodOnOtherNode", format!("the pod {name} is not on the node {}", claim.node));
    }
    let node_uid = node.and_then(|node| node.metadata.uid.as_ref());
    if node_uid.is_none() || claim.node_uid.as_ref().is_some_and(|claimed| Some(claimed) != node_uid) {
        return deny("NodeNotFound", format!("there is no such node {}", claim.node));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return deny("PodFinished", format!("the pod {name} has finished: {phase}"));
    }
    if pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return deny(
            "MirrorPod",
            format!("the pod {name} mirrors one of the node's own, which has no service account"),
        );
    }
    let runs_under = spec.service_account_name.unwrap_or_default();
    let account_uid = account.and_then(|account| account.metadata.uid.clone()).unwrap_or_default();
    if account_uid.is_empty() {
        return deny("ServiceAccountNotFound", format!("there is no service account {}/{runs_under}", claim.namespace));
    }
    if claim.service_account.as_ref().is_some_and(|claimed| *claimed != (runs_under.clone(), account_uid)) {
        return deny("OtherServiceAccount", format!("the pod {name} runs under the service account {runs_under}"));
    }
    Identity::new(trust_domain, claim.namespace.as_str(), runs_under)
        .or_else(|error| deny("NoIdentity", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim() -> Claim {
        Claim {
            namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            pod_uid: "p1".to_owned(),
            service_account: Some(("web".to_owned(), "s1".to_owned())),
            node: "a".to_owned(),
            node_uid: Some("n1".to_owned()),
        }
    }

    struct Facts {
        pod: serde_json::Value,
        account: Option<&'static str>,
        node: Option<&'static str>,
    }

    fn facts() -> Facts {
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "p1", "annotations": {}},
            "spec": {"serviceAccountName": "web", "nodeName": "a", "containers": []},
            "status": {"phase": "Running"},
        });
        Facts { pod, account: Some("s1"), node: Some("n1") }
    }

    fn verdict(claim: &Claim, facts: &Facts) -> Result<String, &'static str> {
        let pod: Option<Pod> = serde_json::from_value(facts.pod.clone()).expect("a pod");
        let with_uid = |uid: &str| json!({"metadata": {"uid": uid}});
        let account = facts.account.map(|uid| serde_json::from_value(with_uid(uid)).expect("an account"));
        let node = facts.node.map(|uid| serde_json::from_value(with_uid(uid)).expect("a node"));
        judge(claim, (pod.as_ref(), account.as_ref(), node.as_ref()), &"cluster.local".into())
            .map(|identity| identity.to_string())
            .map_err(|denial| denial.reason)
    }

    #[test]
    fn a_pod_of_the_asking_node_has_the_identity_of_its_service_account() {
        let identity = Ok("spiffe://cluster.local/ns/shop/sa/web".to_owned());
        assert_eq!(verdict(&claim(), &facts()), identity);
        let terse = Claim { service_account: None, node_uid: None, ..claim() };
        assert_eq!(verdict(&terse, &facts()), identity);
    }

    #[test]
    fn whatever_differs_from_the_objects_is_denied() {
        type Spoil = fn(&mut Claim, &mut Facts);
        let cases: [(&str, Spoil); 14] = [
            ("PodNotFound", |_, facts| facts.pod = json!(null)),
            ("PodNotFound", |claim, _| claim.pod_uid = "p2".to_owned()),
            ("PodOnOtherNode", |claim, _| claim.node = "b".to_owned()),
            ("PodOnOtherNode", |_, facts| facts.pod["spec"]["nodeName"] = json!("b")),
            ("PodOnOtherNode", |claim, facts| {
                claim.node.clear();
                facts.pod["spec"]["nodeName"] = json!(null);
            }),
            ("NodeNotFound", |_, facts| facts.node = None),
            ("NodeNotFound", |claim, _| claim.node_uid = Some("n2".to_owned())),
            ("PodFinished", |_, facts| facts.pod["status"]["phase"] = json!("Succeeded")),
            ("PodFinished", |_, facts| facts.pod["status"]["phase"] = json!("Failed")),
            ("MirrorPod", |_, facts| {
                facts.pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"})
            }),
            ("ServiceAccountNotFound", |_, facts| facts.account = None),
            ("OtherServiceAccount", |claim, _| claim.service_account = Some(("admin".to_owned(), "s1".to_owned()))),
            ("OtherServiceAccount", |claim, _| claim.service_account = Some(("web".to_owned(), "s0".to_owned()))),
            ("NoIdentity", |claim, facts| {
                claim.service_account = None;
                facts.pod["spec"]["serviceAccountName"] = json!("a/b");
            }),
        ];
        for (reason, spoil) in cases {
            let (mut claim, mut facts) = (claim(), facts());
            spoil(&mut claim, &mut facts);
            assert_eq!(verdict(&claim, &facts), Err(reason), "{claim:?}");
        }
    }
}
