//! What becomes of each field of the foreign APIs.
//!
//! Out: a [`Fate`] for each field that readers ask for, as a list and as a table for people.
//! Invariant: derived from the readers themselves, so that it cannot disagree with them.

use super::kube::network_policy;
use super::read::Log;
use super::{calico, cluster_network_policy, gateway, istio};
use crate::api::custom::{CalicoStore, Custom, CustomKind};
use crate::model::{Name, ObjectRef};
use std::collections::BTreeMap;
use std::fmt::Write;

pub use super::read::Fate;

#[cfg(test)]
mod tests;

/// The fate of each field of a kind, by path, as in `spec.http[].match[].uri.exact`. A key that users choose is `*`. A
/// field that is refused or reported as a whole stands for whatever is in it.
#[must_use]
pub fn of(kind: CustomKind) -> BTreeMap<String, Fate> {
    let log = Log::survey(ObjectRef::new(kind.full_name(), Name::new("", "")));
    gateway::survey(&log, kind);
    istio::survey(&log, kind);
    calico::survey(&log, kind);
    if kind == CustomKind::NetworkPolicy {
        network_policy::policy(&log, &Custom::default());
    } else if kind == CustomKind::ClusterNetworkPolicy {
        cluster_network_policy::policy(&log, &Custom::default());
    }
    log.into_fates()
}

/// Every kind's fields in Markdown.
#[must_use]
pub fn table() -> String {
    let mut text = String::from(
        "# What becomes of each field\n\n\
        Made from the readers by the test `the_table_is_what_the_readers_do`; do not edit.\n\n\
        - *enforced*: it does what its API says; where words are listed, another is refused.\n\
        - *reported*: it is accepted and has no effect, which an issue says.\n\
        - *refused*: an issue says so, and what it belongs to is closed: a rule answers 500, a backend takes no request, \
        a listener does not listen; a rule of a network policy allows nothing, or denies whatever the rest of it covers.\n\n\
        A field that is not listed is refused.\n",
    );
    // Calico's kinds have the same fields wherever they are stored.
    let is_stored = |kind: &CustomKind| matches!(kind, CustomKind::Calico(_, CalicoStore::Crd));
    for kind in CustomKind::ALL.into_iter().filter(|kind| !is_stored(kind)) {
        // Writing to a text does not fail.
        let _ = write!(text, "\n## {} of {} ({})\n\n", kind.name(), kind.group(), kind.versions().join(", "));
        text.push_str("| field | fate | |\n|---|---|---|\n");
        for (path, fate) in of(kind) {
            let (word, said) = match fate {
                Fate::Enforced(words) => ("enforced", words.join(", ")),
                Fate::Reported(why) => ("reported", why),
                Fate::Refused(cure) => ("refused", cure),
            };
            let _ = writeln!(text, "| `{path}` | {word} | {said} |");
        }
    }
    text
}
