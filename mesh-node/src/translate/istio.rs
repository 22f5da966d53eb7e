//! Istio's PeerAuthentication becomes the mesh's own.
//!
//! In:  PeerAuthentications as written, and the workloads they may select.
//! Out: one `PeerAuthentication` per object that has a scope.
//! Invariant: what is not understood requires mutual TLS within its scope, and is reported.
//! Source: Istio `security.istio.io/v1.PeerAuthentication`: scopes, `UNSET`, ports only with a selector, the
//! oldest of equal scope, no selectors in the root namespace.

use crate::api;
use crate::model::{Issue, Labels, MtlsMode, Name, ObjectRef, PeerAuthentication, Scope, Workload};
use crate::world::{Kind, World};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const CLOSES: &str = "it is not understood, so mutual TLS is required";

/// Every PeerAuthentication that has a scope.
pub(super) fn peer_authentications(
    world: &World,
    root_namespace: &str,
    workloads: &BTreeMap<Name, Arc<Workload>>,
    issues: &mut Vec<Issue>,
) -> BTreeMap<Name, Arc<PeerAuthentication>> {
    let mut policies = BTreeMap::new();
    for (name, object) in world.peer_authentications() {
        let object_ref = ObjectRef::new(Kind::PeerAuthentication.name(), name.clone());
        let mut reader = Reader { object: object_ref, issues: &mut *issues, closed: false };
        if let Some(policy) = reader.policy(object, &*name.namespace == root_namespace) {
            policies.insert(name.clone(), Arc::new(policy));
        }
    }
    report_overruled(&policies, workloads, issues);
    policies
}

/// Reads one object; what it does not understand becomes an issue and closes.
struct Reader<'a> {
    object: ObjectRef,
    issues: &'a mut Vec<Issue>,
    /// Was something found whose meaning could be anything?
    closed: bool,
}

impl Reader<'_> {
    fn report(&mut self, field: &str, problem: impl Into<String>, cure: &str) {
        self.issues.push(Issue::new(&self.object, field, problem, cure));
    }

    fn close(&mut self, field: &str, problem: &str, cure: &str) {
        self.report(field, format!("{problem}; {CLOSES} of every workload in its scope"), cure);
        self.closed = true;
    }

    fn policy(&mut self, object: &api::istio::PeerAuthentication, in_root: bool) -> Option<PeerAuthentication> {
        let spec = &object.spec;
        let selected = self.selector(spec.get("selector").unwrap_or(&Value::Null));
        let selector_is_clear = !self.closed;
        let scope = match selected {
            Some(_) if in_root && selector_is_clear => {
                let problem = "policies of the root namespace select no workloads; the object has no effect";
                self.report(
                    "spec.selector",
                    problem,
                    "move it to the namespace of the workloads, or drop the selector",
                );
                return None;
            }
            Some(labels) if !in_root => Scope::Workloads(labels),
            Some(_) => Scope::Mesh,
            None if in_root => Scope::Mesh,
            None => Scope::Namespace,
        };
        let mode = self.mtls(spec.get("mtls").unwrap_or(&Value::Null), "spec.mtls");
        let mut ports = self.ports(spec.get("portLevelMtls").unwrap_or(&Value::Null));
        if !ports.is_empty() && !matches!(scope, Scope::Workloads(_)) {
            let problem = "ports have modes of their own only where a selector is; they are ignored";
            self.report("spec.portLevelMtls", problem, "add a selector, or remove the ports");
            ports.clear();
        }
        for field in spec.keys().filter(|field| !matches!(field.as_str(), "selector" | "mtls" | "portLevelMtls")) {
            self.close(&format!("spec.{field}"), "there is no such field", "remove it or correct its name");
        }
        let (mode, ports) = if self.closed { (Some(MtlsMode::Strict), BTreeMap::new()) } else { (mode, ports) };
        let created = object.metadata.creation_timestamp.clone();
        Some(PeerAuthentication { name: self.object.name.clone(), scope, mode, ports, created })
    }

    /// The labels that are selected; `None` if no selector is there, or an empty one, which is the same.
    fn selector(&mut self, value: &Value) -> Option<Labels> {
        const FIELD: &str = "spec.selector";
        let cure = "give `matchLabels`, a map of texts";
        let Some(fields) = self.fields(value, FIELD) else { return self.closed.then(Labels::new) };
        let mut labels = Labels::new();
        for (field, value) in fields {
            let path = format!("{FIELD}.{field}");
            if field != "matchLabels" {
                self.close(&path, "there is no such field", cure);
                continue;
            }
            for (key, value) in self.fields(value, &path).unwrap_or_default() {
                if let Value::String(value) = value {
                    labels.insert(key.clone(), value.clone());
                } else {
                    self.close(&format!("{path}.{key}"), "the value is no text", cure);
                }
            }
        }
        (self.closed || !labels.is_empty()).then_some(labels)
    }

    /// The mode that `{mode: ...}` gives; `None` inherits.
    fn mtls(&mut self, value: &Value, field: &str) -> Option<MtlsMode> {
        let mut mode = None;
        for (key, value) in self.fields(value, field)? {
            let path = format!("{field}.{key}");
            if key == "mode" {
                mode = self.mode(value, &path);
            } else {
                self.close(&path, "there is no such field", "remove it or correct its name");
            }
        }
        mode
    }

    fn mode(&mut self, value: &Value, field: &str) -> Option<MtlsMode> {
        match value.as_str() {
            Some("STRICT") => Some(MtlsMode::Strict),
            Some("PERMISSIVE") => Some(MtlsMode::Permissive),
            Some("DISABLE") => Some(MtlsMode::Disable),
            Some("UNSET") => None,
            None if value.is_null() => None,
            _ => {
                let cure = "use STRICT, PERMISSIVE, DISABLE or UNSET";
                self.report(field, format!("{value} is no mode; {CLOSES} where the field applies"), cure);
                Some(MtlsMode::Strict)
            }
        }
    }

    fn ports(&mut self, value: &Value) -> BTreeMap<u16, Option<MtlsMode>> {
        const FIELD: &str = "spec.portLevelMtls";
        let mut ports = BTreeMap::new();
        for (key, value) in self.fields(value, FIELD).unwrap_or_default() {
            let path = format!("{FIELD}.{key}");
            match key.parse::<u16>() {
                Ok(port) if port != 0 => {
                    let mode = self.mtls(value, &path);
                    ports.insert(port, mode);
                }
                Ok(_) | Err(_) => self.close(&path, "the key is no port", "use the workload's port, 1 to 65535"),
            }
        }
        ports
    }

    /// The fields of an object; `None` if it is absent, or something else, which closes.
    fn fields<'v>(&mut self, value: &'v Value, field: &str) -> Option<Vec<(&'v String, &'v Value)>> {
        match value {
            Value::Object(fields) => Some(fields.iter().collect()),
            Value::Null => None,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                self.close(field, "a map of fields is expected here", "correct it");
                None
            }
        }
    }
}

/// Reports each policy that an older one of equal scope overrules, naming that one.
fn report_overruled(
    policies: &BTreeMap<Name, Arc<PeerAuthentication>>,
    workloads: &BTreeMap<Name, Arc<Workload>>,
    issues: &mut Vec<Issue>,
) {
    let mut by_age: Vec<&PeerAuthentication> = policies.values().map(|policy| &**policy).collect();
    by_age.sort_by_key(|policy| policy.seniority());
    let mut first: BTreeMap<(bool, &str), &Name> = BTreeMap::new();
    let mut selecting: BTreeMap<&str, Vec<&PeerAuthentication>> = BTreeMap::new();
    for policy in by_age {
        let is_mesh = match policy.scope {
            Scope::Mesh => true,
            Scope::Namespace => false,
            Scope::Workloads(_) => {
                selecting.entry(&policy.name.namespace).or_default().push(policy);
                continue;
            }
        };
        let winner = *first.entry((is_mesh, &policy.name.namespace)).or_insert(&policy.name);
        if *winner != policy.name {
            issues.push(overruled(&policy.name, winner, "for the same scope; this one has no effect"));
        }
    }
    selecting.retain(|_, policies| policies.len() > 1);
    let mut reported: BTreeMap<&Name, Issue> = BTreeMap::new();
    for workload in workloads.values() {
        let policies = selecting.get(&*workload.name.namespace).map_or(&[][..], Vec::as_slice);
        let mut covering = policies.iter().filter(|policy| policy.covers(workload));
        let Some(winner) = covering.next() else { continue };
        for policy in covering {
            let effect = format!("for Pod {}, where this one has no effect", workload.name);
            reported.entry(&policy.name).or_insert_with(|| overruled(&policy.name, &winner.name, &effect));
        }
    }
    issues.extend(reported.into_values());
}

fn overruled(name: &Name, winner: &Name, effect: &str) -> Issue {
    Issue::new(
        &ObjectRef::new(Kind::PeerAuthentication.name(), name.clone()),
        "spec",
        format!("PeerAuthentication {winner} is older and decides {effect}"),
        "keep one of them",
    )
}
