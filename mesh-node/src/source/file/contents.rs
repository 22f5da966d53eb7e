//! What the files hold together, and what changed.
//!
//! In:  what was seen of each file.
//! Out: the `Change`s that lead from what was told before to what is so now.
//! Invariant: pure; the sum of all changes ever returned depends on the last readable content of each file alone.

use super::parse::{file_issue, parse};
use crate::api::apps::Plan;
use crate::model::{Issue, Name, ObjectRef};
use crate::world::{Change, Kind, Object};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// What was seen of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is as it was.
    Unchanged,
    /// It holds these bytes.
    Bytes(Vec<u8>),
    /// It is there, but its bytes are not to be had.
    Unreadable {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        cure: &'static str,
    },
}

/// The last readable content of a file, and what is wrong with it now.
#[derive(Debug, Default)]
struct File {
    objects: Vec<Arc<Object>>,
    refused: Vec<Issue>,
    plans: Vec<Plan>,
    fault: Option<Issue>,
    /// Of the bytes last seen, so that the same bytes are not read again.
    digest: Option<u64>,
}

/// What every file holds, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Does somebody want to know what controllers would make something of?
    wants_plans: bool,
    files: BTreeMap<PathBuf, File>,
    in_force: BTreeMap<(Kind, Name), Arc<Object>>,
    faults: BTreeMap<String, Vec<Issue>>,
}

impl Contents {
    /// Those with plans.
    pub(super) fn with_plans() -> Self {
        Self { wants_plans: true, ..Self::default() }
    }

    /// What controllers would make something of, by path.
    pub(super) fn into_plans(self) -> Vec<Plan> {
        self.files.into_values().flat_map(|file| file.plans).collect()
    }

    /// Learns what the directory holds now; files that are not named are gone. Returns what changed:
    /// deletions, then objects, then issues.
    pub(super) fn update(&mut self, seen: BTreeMap<PathBuf, Seen>) -> Vec<Change> {
        let known = self.files.len();
        self.files.retain(|path, _| seen.contains_key(path));
        let mut is_new = self.files.len() != known;
        for (path, seen) in seen {
            let file = self.files.entry(path.clone()).or_default();
            is_new |= file.learn(&path.to_string_lossy(), seen, self.wants_plans);
        }
        if !is_new {
            return Vec::new();
        }
        let (in_force, faults) = self.merge();
        let mut changes = Vec::new();
        for (kind, name) in self.in_force.keys().filter(|key| !in_force.contains_key(key)) {
            changes.push(Change::Delete(*kind, name.clone()));
        }
        for (key, object) in &in_force {
            if self.in_force.get(key) != Some(object) {
                changes.push(Change::Upsert(Box::new(Object::clone(object))));
            }
        }
        changes.extend(tell_faults(&self.faults, &faults));
        (self.in_force, self.faults) = (in_force, faults);
        changes
    }

    /// Every file.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Did `path` hold objects when it was last readable?
    pub(super) fn holds_objects(&self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|file| !file.objects.is_empty())
    }

    /// The objects in force and the issues by file.
    #[expect(clippy::type_complexity, reason = "two maps that are made in one pass")]
    fn merge(&self) -> (BTreeMap<(Kind, Name), Arc<Object>>, BTreeMap<String, Vec<Issue>>) {
        let mut owners: BTreeMap<(Kind, Name), (&Path, &Arc<Object>)> = BTreeMap::new();
        let mut faults = BTreeMap::new();
        for (path, file) in &self.files {
            let mut issues: Vec<Issue> = file.fault.iter().chain(&file.refused).cloned().collect();
            for object in &file.objects {
                let key = (object.kind(), object.metadata().full_name());
                let (owner, first) = *owners.entry(key.clone()).or_insert((path, object));
                if !Arc::ptr_eq(first, object) {
                    issues.push(Issue::new(
                        &ObjectRef::new(key.0.name(), key.1),
                        "",
                        format!("{} holds it too; the one in {} holds", path.display(), owner.display()),
                        "keep one of them",
                    ));
                }
            }
            issues.sort();
            if !issues.is_empty() {
                faults.insert(path.to_string_lossy().into_owned(), issues);
            }
        }
        (owners.into_iter().map(|(key, (_, object))| (key, Arc::clone(object))).collect(), faults)
    }
}

/// The changes that lead from the issues `before` to those `now`.
pub(super) fn tell_faults(before: &BTreeMap<String, Vec<Issue>>, now: &BTreeMap<String, Vec<Issue>>) -> Vec<Change> {
    let cleared = before.keys().filter(|origin| !now.contains_key(*origin)).map(|origin| (origin, Vec::new()));
    let changed = now.iter().filter(|(origin, issues)| before.get(*origin) != Some(issues));
    cleared
        .chain(changed.map(|(origin, issues)| (origin, issues.clone())))
        .map(|(origin, issues)| Change::Faults { origin: origin.clone(), issues })
        .collect()
}

impl File {
    /// Returns whether there is anything new.
    fn learn(&mut self, path: &str, seen: Seen, wants_plans: bool) -> bool {
        let bytes = match seen {
            Seen::Unchanged => return false,
            Seen::Unreadable { problem, cure } => {
                self.digest = None;
                return self.blame(file_issue(path, None, &problem, cure));
            }
            Seen::Bytes(bytes) => bytes,
        };
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let digest = Some(hasher.finish());
        if self.digest == digest {
            return false;
        }
        self.digest = digest;
        match parse(path, &bytes, wants_plans) {
            Ok(parsed) => {
                self.objects = parsed.objects.into_iter().map(Arc::new).collect();
                self.refused = parsed.issues;
                self.plans = parsed.plans.unwrap_or_default();
                self.fault = None;
                true
            }
            Err(fault) => self.blame(*fault),
        }
    }

    fn blame(&mut self, fault: Issue) -> bool {
        let is_new = self.fault.as_ref() != Some(&fault);
        self.fault = Some(fault);
        is_new
    }
}
