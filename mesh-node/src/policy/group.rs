//! Who is meant by a selector, found without looking at labels.
//!
//! In:  the subjects and the addresses that a selector selects.
//! Out: [`Group`].
//! Invariant: a subject is one `Arc` for all who compare it; groups of equal subjects are equal.

use crate::model::Subject;
use crate::model::policy::Prefixes;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Those whom a selector selects.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Ordered by where they are in memory, so that one is found by where it is.
    members: Box<[Arc<Subject>]>,
    addresses: Prefixes,
}

impl Group {
    /// These subjects and addresses.
    pub fn new(members: impl IntoIterator<Item = Arc<Subject>>, addresses: Prefixes) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_unstable_by_key(Arc::as_ptr);
        members.dedup_by(|one, other| Arc::ptr_eq(one, other));
        Self { members: members.into(), addresses }
    }

    /// Is whoever has this address one of them? `subject` is who is known to be there.
    #[must_use]
    pub fn contains(&self, address: IpAddr, subject: Option<&Arc<Subject>>) -> bool {
        let is_member = |subject: &Arc<Subject>| self.members.binary_search_by_key(&Arc::as_ptr(subject), Arc::as_ptr);
        subject.is_some_and(|subject| is_member(subject).is_ok()) || self.addresses.contains(address)
    }

    /// The subjects, in no order that means anything.
    #[must_use]
    pub fn members(&self) -> &[Arc<Subject>] {
        &self.members
    }

    /// The addresses that are meant whoever is there.
    #[must_use]
    pub fn addresses(&self) -> &Prefixes {
        &self.addresses
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        let same = || self.members.iter().zip(&other.members).all(|(one, other)| Arc::ptr_eq(one, other));
        let equal = || {
            let sorted = |group: &Self| group.members.iter().cloned().collect::<BTreeSet<_>>();
            sorted(self) == sorted(other)
        };
        self.addresses == other.addresses && self.members.len() == other.members.len() && (same() || equal())
    }
}

impl Eq for Group {}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(namespace: &str) -> Arc<Subject> {
        Arc::new(Subject { namespace: Some(namespace.into()), ..Subject::default() })
    }

    #[test]
    fn members_are_found_by_identity_and_groups_compared_by_content() {
        let (shop, bank, other) = (subject("shop"), subject("bank"), subject("other"));
        let set: Prefixes = [IpAddr::from([10, 0, 0, 1])].into_iter().collect();
        let group = Group::new([Arc::clone(&shop), Arc::clone(&bank), Arc::clone(&shop)], set.clone());
        let nowhere = IpAddr::from([192, 0, 2, 1]);
        assert!(group.contains(nowhere, Some(&shop)) && group.contains(nowhere, Some(&bank)));
        assert!(!group.contains(nowhere, Some(&other)) && !group.contains(nowhere, None));
        assert!(group.contains([10, 0, 0, 1].into(), None));
        assert_eq!(group, Group::new([subject("bank"), subject("shop")], set.clone()));
        assert_ne!(group, Group::new([subject("bank"), subject("other")], set));
        assert_ne!(group, Group::new([shop, bank], Prefixes::default()));
    }
}
