//! By what policies know a workload.
//!
//! In:  a workload, its namespace and its account; the labels that selectors ask for.
//! Out: its [`Subject`]; who is in the directory.
//! Invariant: labels that tell pods of one template apart are no part of a subject unless a selector asks for them, for there are
//! many pods and few templates.

use super::groups::{namespace_labels, place};
use crate::model::{Key, Name, Selector, Subject, Text, Workload};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Labels that controllers give to single pods, or to those of one revision.
const OF_SINGLE_PODS: [&str; 10] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Labels of single pods that selectors of peers ask for, and how many do.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct Asked(BTreeMap<&'static str, usize>);

impl Asked {
    /// These selectors ask, or no longer do.
    pub(super) fn note(&mut self, selectors: &BTreeSet<Selector>, is_there: bool) {
        for selector in selectors {
            selector.each_key(&mut |key| {
                let Key::Label(name) = key else { return };
                let Some(known) = OF_SINGLE_PODS.iter().find(|known| ***known == **name) else { return };
                let count = self.0.entry(known).or_default();
                *count = if is_there { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    self.0.remove(known);
                }
            });
        }
    }

    /// The labels that are asked for.
    pub(super) fn keys(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    fn keeps(&self, label: &str) -> bool {
        !OF_SINGLE_PODS.contains(&label) || self.0.contains_key(label)
    }
}

/// The subject of a workload, with all labels.
pub(super) fn whole(world: &World, workload: &Workload) -> Subject {
    subject(world, workload, |_| true, |text| text.into())
}

/// The subject of a workload in the directory.
pub(in crate::compile) fn known(
    world: &World,
    workload: &Workload,
    asked: &Asked,
    share: impl FnMut(&str) -> Text,
) -> Subject {
    subject(world, workload, |label| asked.keeps(label), share)
}

fn subject(
    world: &World,
    workload: &Workload,
    keeps: impl Fn(&str) -> bool,
    mut share: impl FnMut(&str) -> Text,
) -> Subject {
    let identity = &workload.identity;
    let account = Name::new(&*identity.namespace, &*identity.service_account);
    let account = world.service_accounts().get(&account);
    let labels = workload.labels.iter().filter(|(key, _)| keeps(key));
    Subject {
        labels: labels.map(|(key, value)| (share(key), share(value))).collect(),
        namespace_labels: namespace_labels(world, &identity.namespace),
        account_labels: account.map(|account| Arc::clone(&account.metadata.labels)).unwrap_or_default(),
        ports: workload.port_names.iter().map(|(name, port)| (share(name), *port)).collect(),
        namespace: Some(Arc::clone(&identity.namespace)),
        account: Some(Arc::clone(&identity.service_account)),
    }
}

/// Who is in the directory.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct Population {
    /// By place, with the number of addresses that lead there.
    known: HashMap<usize, usize>,
    touched: HashMap<usize, (Arc<Subject>, bool)>,
}

impl Population {
    /// One more address leads to it.
    pub(in crate::compile) fn add(&mut self, subject: &Arc<Subject>) {
        let count = self.known.entry(place(subject)).or_default();
        self.touched.entry(place(subject)).or_insert_with(|| (Arc::clone(subject), *count > 0));
        *count += 1;
    }

    /// One address less leads to it.
    pub(in crate::compile) fn remove(&mut self, subject: &Arc<Subject>) {
        let place = place(subject);
        let Some(count) = self.known.get_mut(&place) else { return };
        self.touched.entry(place).or_insert_with(|| (Arc::clone(subject), true));
        *count -= 1;
        if *count == 0 {
            self.known.remove(&place);
        }
    }

    /// Who came, and who went, since this was asked last.
    pub(super) fn take_changes(&mut self) -> Vec<(Arc<Subject>, bool)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        let now = touched.map(|(place, (subject, was_there))| (subject, was_there, self.known.contains_key(&place)));
        now.filter(|(_, was_there, is_there)| was_there != is_there).map(|(subject, _, is)| (subject, is)).collect()
    }
}
