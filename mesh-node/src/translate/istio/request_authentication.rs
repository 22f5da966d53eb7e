//! RequestAuthentications: tokens that requests carry.
//!
//! In:  a RequestAuthentication as written.
//! Out: a [`Policy`] that denies whomever it is about.
//! Invariant: nobody here reads tokens. A request with a wrong one must be refused, and so all are.
//! Source: Istio `security.istio.io/v1.RequestAuthentication`.

use super::policy_scope::scope;
use crate::api::custom::Custom;
use crate::model::policy::{Action, Condition, Order, Policy, Rule, Stage, TierKey};
use crate::translate::read::Log;

/// What is denied because of an object; nothing if it says nothing of tokens.
pub(in crate::translate) fn request_authentication(log: &Log, object: &Custom, root_namespace: &str) -> Option<Policy> {
    let (found, is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let scope = scope(&mut fields, root_namespace);
        let rules = fields.take("jwtRules");
        rules.unsupported("remove the object, and decide by the identities that certificates prove");
        (scope, rules.is_there())
    });
    let (scope, has_rules) = found;
    let rule = Rule { name: "jwtRules".to_owned(), action: Action::Deny, condition: Condition::default() };
    (has_rules || !is_clear).then(|| Policy {
        object: log.object().clone(),
        tier: TierKey::mesh(TierKey::DENY),
        order: Order::LAST,
        scope,
        ingress: Some(vec![rule]),
        egress: None,
        stage: Stage::Enforced,
    })
}
