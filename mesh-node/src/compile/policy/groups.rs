//! Whom the selectors of peers select.
//!
//! In:  the subjects of the directory as they come and go; sets of addresses; selectors, with those who ask by them.
//! Out: a [`Group`] for each selector that somebody asks by, kept up to date.
//! Invariant: a group has the subjects that are in the directory now and no others. One whose members did not change stays the same
//! `Arc`.
//! Invariant: a selector that names its namespace is compared with nobody else's subjects.

use crate::model::policy::{AddressSet, Prefixes};
use crate::model::{Labels, ObjectRef, Selector, Subject};
use crate::policy::Group;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Where a subject is in memory, by which it is told from every other.
pub(super) fn place(subject: &Arc<Subject>) -> usize {
    Arc::as_ptr(subject).addr()
}

/// The groups that somebody asks by.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// The subjects that are in the directory, by namespace and place.
    subjects: BTreeMap<Arc<str>, HashMap<usize, Arc<Subject>>>,
    groups: HashMap<Selector, Shared>,
    /// The selectors, by the namespace that they name.
    by_namespace: BTreeMap<Option<Arc<str>>, HashSet<Selector>>,
    /// The sets of addresses, as selectors see them.
    sets: Vec<(Subject, Prefixes)>,
}

#[derive(Clone, Debug)]
struct Shared {
    group: Arc<Group>,
    by: BTreeSet<ObjectRef>,
}

impl Groups {
    /// The sets of addresses are these. Returns who asks by a group that is another now.
    pub(super) fn set_addresses<'s>(
        &mut self,
        sets: impl Iterator<Item = &'s Arc<AddressSet>>,
        world: &World,
    ) -> BTreeSet<ObjectRef> {
        let sets: Vec<_> = sets.map(|set| (subject_of(set, world), set.addresses.clone())).collect();
        if sets == self.sets {
            return BTreeSet::new();
        }
        self.sets = sets;
        let mut askers = BTreeSet::new();
        for (selector, asked) in &mut self.groups {
            let addresses = addresses(&self.sets, selector);
            if addresses != *asked.group.addresses() {
                asked.group = Arc::new(Group::new(asked.group.members().iter().cloned(), addresses));
                askers.extend(asked.by.iter().cloned());
            }
        }
        askers
    }

    /// These subjects are in the directory now, and those no longer. Returns who asks by a group that is another now.
    pub(super) fn change(&mut self, changes: Vec<(Arc<Subject>, bool)>) -> BTreeSet<ObjectRef> {
        let mut changed: HashMap<&Selector, Vec<(&Arc<Subject>, bool)>> = HashMap::new();
        for (subject, is_there) in &changes {
            let namespace = subject.namespace.clone().unwrap_or_else(|| "".into());
            let known = self.subjects.entry(namespace.clone()).or_default();
            let was_there = if *is_there {
                known.insert(place(subject), Arc::clone(subject)).is_some()
            } else {
                known.remove(&place(subject)).is_some()
            };
            if known.is_empty() {
                self.subjects.remove(&namespace);
            }
            if was_there == *is_there {
                continue;
            }
            let selectors = [None, Some(namespace)].into_iter().filter_map(|key| self.by_namespace.get(&key)).flatten();
            for selector in selectors.filter(|selector| selector.matches(subject)) {
                changed.entry(selector).or_default().push((subject, *is_there));
            }
        }
        let mut askers = BTreeSet::new();
        for (selector, members) in changed {
            let Some(asked) = self.groups.get_mut(selector) else { continue };
            let gone = members.iter().filter(|(_, is_there)| !is_there).map(|(subject, _)| place(subject));
            let gone: HashSet<usize> = gone.collect();
            let stayed = asked.group.members().iter().filter(|subject| !gone.contains(&place(subject)));
            let came = members.iter().filter(|(_, is_there)| *is_there).map(|(subject, _)| *subject);
            let addresses = asked.group.addresses().clone();
            asked.group = Arc::new(Group::new(stayed.chain(came).cloned(), addresses));
            askers.extend(asked.by.iter().cloned());
        }
        askers
    }

    /// `asker` asks by these selectors, and by no others.
    pub(super) fn ask(&mut self, asker: &ObjectRef, before: &BTreeSet<Selector>, now: &BTreeSet<Selector>) {
        for selector in before.difference(now) {
            let Some(asked) = self.groups.get_mut(selector) else { continue };
            asked.by.remove(asker);
            if asked.by.is_empty() {
                self.groups.remove(selector);
                let key = selector.namespace().cloned();
                let selectors = self.by_namespace.entry(key.clone()).or_default();
                selectors.remove(selector);
                if selectors.is_empty() {
                    self.by_namespace.remove(&key);
                }
            }
        }
        for selector in now {
            if let Some(asked) = self.groups.get_mut(selector) {
                asked.by.insert(asker.clone());
                continue;
            }
            let group = Arc::new(self.select(selector));
            self.by_namespace.entry(selector.namespace().cloned()).or_default().insert(selector.clone());
            self.groups.insert(selector.clone(), Shared { group, by: BTreeSet::from([asker.clone()]) });
        }
    }

    /// The group of a selector by which somebody asks.
    pub(super) fn group(&self, selector: &Selector) -> Option<&Arc<Group>> {
        self.groups.get(selector).map(|asked| &asked.group)
    }

    fn select(&self, selector: &Selector) -> Group {
        let members: Vec<Arc<Subject>> = match selector.namespace() {
            Some(namespace) => selected(self.subjects.get(namespace), selector).collect(),
            None => self.subjects.values().flat_map(|subjects| selected(Some(subjects), selector)).collect(),
        };
        Group::new(members, addresses(&self.sets, selector))
    }
}

fn selected<'s>(
    subjects: Option<&'s HashMap<usize, Arc<Subject>>>,
    selector: &'s Selector,
) -> impl Iterator<Item = Arc<Subject>> + 's {
    subjects.into_iter().flat_map(HashMap::values).filter(|subject| selector.matches(subject)).cloned()
}

fn addresses(sets: &[(Subject, Prefixes)], selector: &Selector) -> Prefixes {
    Prefixes::union(sets.iter().filter(|(subject, _)| selector.matches(subject)).map(|(_, addresses)| addresses))
}

fn subject_of(set: &AddressSet, world: &World) -> Subject {
    Subject {
        namespace: set.namespace.clone(),
        labels: (&*set.labels).into(),
        namespace_labels: set.namespace.as_deref().map(|name| namespace_labels(world, name)).unwrap_or_default(),
        ..Subject::default()
    }
}

/// The labels of a namespace.
pub(super) fn namespace_labels(world: &World, name: &str) -> Arc<Labels> {
    let namespace = world.namespace(name);
    namespace.map(|namespace| Arc::clone(&namespace.metadata.labels)).unwrap_or_default()
}
