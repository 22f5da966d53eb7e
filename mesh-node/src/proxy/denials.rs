//! Who is told that something was denied at a pod.
//!
//! In:  the pod, what was denied, the reason.
//! Out: [`Denied`], to whoever asked for it.
//! Invariant: the reason and the rule are those of the access log and of the metrics.

use super::refusal::Refusal;
use crate::model::ObjectRef;
use crate::snapshot::LocalPod;
use std::sync::Arc;

/// Something was denied at a pod.
#[derive(Clone, Debug)]
pub struct Denied {
    /// The pod for which it arrived, or which it would leave.
    pub pod: Arc<LocalPod>,
    /// The rule's name or place, as the metric has it.
    pub rule: String,
    /// The policy that it is of, where one object says so.
    pub policy: Option<ObjectRef>,
    /// What was denied, with the reason and the rule.
    pub note: String,
}

/// Takes what was denied. It must not wait.
pub type TellDenied = Arc<dyn Fn(Denied) + Send + Sync>;

impl Denied {
    /// What `flow` says was denied by `rule` of `policy`, which `refusal` says in words.
    pub(crate) fn new(
        pod: &Arc<LocalPod>,
        flow: &str,
        refusal: &Refusal,
        (policy, rule): (Option<&ObjectRef>, String),
    ) -> Self {
        let note = format!("{flow}: {} ({})", refusal.detail, refusal.reason);
        Self { pod: Arc::clone(pod), rule, policy: policy.cloned(), note }
    }
}
