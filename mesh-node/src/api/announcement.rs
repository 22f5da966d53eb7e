//! What a node announces of its pods to the other nodes, as an annotation of the pod.
//!
//! In:  annotations of a pod; the installation of the mesh that this daemon belongs to.
//! Out: what they say, as [`Announced`]; the text to write.
//! Invariant: what another installation said counts for nothing. Whoever uninstalls the mesh takes its rights before its daemons can
//! take back what they announced.

use crate::model::Announced;
use std::collections::BTreeMap;

/// The annotation. Its value is the installation, and what is not yet or no longer wholly so.
pub const ANNOUNCEMENT: &str = "mesh.internal/steered-by";

/// What is announced of a pod with these annotations.
#[must_use]
pub fn read(annotations: &BTreeMap<String, String>, installation: &str) -> Announced {
    let Some(said) = annotations.get(ANNOUNCEMENT).and_then(|text| text.strip_prefix(installation)) else {
        return Announced::Nothing;
    };
    let states = [Announced::Joining, Announced::InForce, Announced::Leaving];
    states.into_iter().find(|state| suffix(*state) == Some(said)).unwrap_or_default()
}

/// The value of the annotation that says so; none for nothing.
#[must_use]
pub fn text(announced: Announced, installation: &str) -> Option<String> {
    suffix(announced).map(|suffix| format!("{installation}{suffix}"))
}

const fn suffix(announced: Announced) -> Option<&'static str> {
    match announced {
        Announced::Nothing => None,
        Announced::Joining => Some("/joining"),
        Announced::InForce => Some(""),
        Announced::Leaving => Some("/leaving"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_same_installation_alone() {
        for announced in [Announced::Nothing, Announced::Joining, Announced::InForce, Announced::Leaving] {
            let annotations: BTreeMap<_, _> =
                text(announced, "b1").map(|text| (ANNOUNCEMENT.to_owned(), text)).into_iter().collect();
            assert_eq!(read(&annotations, "b1"), announced);
            assert_eq!(read(&annotations, "b"), Announced::Nothing);
            assert_eq!(read(&annotations, "b12"), Announced::Nothing);
        }
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for text in ["", "b1/", "b1/left", "b1 ", "enabled"] {
            let annotations = BTreeMap::from([(ANNOUNCEMENT.to_owned(), text.to_owned())]);
            assert_eq!(read(&annotations, "b1"), Announced::Nothing, "{text}");
        }
    }
}
