//! Who is told that something was denied.
//!
//! In:  where, by which rule, and what was denied.
//! Out: [`Denied`], to whoever asked for it.
//! Invariant: the reason and the rule are those of the access log and of the metrics.
//! Invariant: words are made only for who takes them: denials are as many as traffic pleases.

use super::refusal::Refusal;
use crate::model::ObjectRef;
use crate::snapshot::LocalPod;
use crate::snapshot::edge::GatewayRef;
use std::fmt::Display;
use std::sync::Arc;

/// Something was denied.
pub struct Denied<'a> {
    /// Where.
    pub at: At<'a>,
    /// The rule's name or place, as the metric has it.
    pub rule: &'a str,
    /// The policy that it is of, where one object says so.
    pub policy: Option<&'a ObjectRef>,
    pub(crate) flow: &'a dyn Display,
    pub(crate) refusal: &'a Refusal,
}

/// Where something was denied.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// At the pod for which it arrived, or which it would leave.
    Pod(&'a LocalPod),
    /// At a gateway by which it would enter.
    Gateway(&'a GatewayRef),
}

/// Takes what was denied. It must not wait.
pub type TellDenied = Arc<dyn Fn(&Denied<'_>) + Send + Sync>;

impl Denied<'_> {
    /// What was denied, with the reason and the rule.
    #[must_use]
    pub fn note(&self) -> String {
        let Refusal { detail, reason, .. } = self.refusal;
        format!("{}: {detail} ({reason})", self.flow)
    }
}
