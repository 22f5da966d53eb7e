//! Istio's PeerAuthentication becomes the mesh's own.
//!
//! In:  a PeerAuthentication as written; the policies of a namespace and a workload that they may select.
//! Out: a `PeerAuthentication`, if the object has a scope; which policies are overruled by which.
//! Invariant: what is not understood requires mutual TLS within its scope, and is reported.
//! Source: Istio `security.istio.io/v1.PeerAuthentication`: scopes, `UNSET`, ports only with a selector, the
//! oldest of equal scope, no selectors in the root namespace.

use crate::api;
use crate::model::{Issue, Labels, MtlsMode, Name, ObjectRef, PeerAuthentication, Scope, Workload};
use crate::world::Kind;
use serde_json::Value;
use std::collections::BTreeMap;

const CLOSES: &str = "it is not understood, so mutual TLS is required";

/// The policy that the object means; `None` if it has no scope.
pub(in crate::translate) fn peer_authentication(
    name: &Name,
    object: &api::istio::PeerAuthentication,
    root_namespace: &str,
    issues: &mut Vec<Issue>,
) -> Option<PeerAuthentication> {
    let object_ref = ObjectRef::new(Kind::PeerAuthentication.name(), name.clone());
    let mut reader = Reader { object: object_ref, issues, closed: false };
    reader.policy(object, &*name.namespace == root_namespace)
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

/// The policies of one namespace that an older one overrules for the whole of their scope.
pub(in crate::translate) fn overruled_in_scope<'a>(
    policies: impl IntoIterator<Item = &'a PeerAuthentication>,
) -> Vec<Issue> {
    let mut by_age: Vec<_> = policies.into_iter().filter(|policy| !selects(policy)).collect();
    by_age.sort_by_key(|policy| policy.seniority());
    let Some((winner, losers)) = by_age.split_first() else { return Vec::new() };
    let effect = "for the same scope; this one has no effect";
    losers.iter().map(|policy| overruled(&policy.name, &winner.name, effect)).collect()
}

/// Among the policies of its namespace that select workloads: the one that decides for `workload`, then those that it
/// overrules.
pub(in crate::translate) fn selecting<'a>(
    policies: impl IntoIterator<Item = &'a PeerAuthentication>,
    workload: &Workload,
) -> Vec<&'a PeerAuthentication> {
    let mut covering: Vec<_> =
        policies.into_iter().filter(|policy| selects(policy) && policy.covers(workload)).collect();
    covering.sort_by_key(|policy| policy.seniority());
    covering
}

/// That `winner` overrules `policy` for a workload, and maybe for others.
pub(in crate::translate) fn overruled_for(policy: &Name, winner: &Name, workload: &Name) -> Issue {
    overruled(policy, winner, &format!("for Pod {workload}, where this one has no effect"))
}

fn selects(policy: &PeerAuthentication) -> bool {
    matches!(policy.scope, Scope::Workloads(_))
}

fn overruled(name: &Name, winner: &Name, effect: &str) -> Issue {
    Issue::new(
        &ObjectRef::new(Kind::PeerAuthentication.name(), name.clone()),
        "spec",
        format!("PeerAuthentication {winner} is older and decides {effect}"),
        "keep one of them",
    )
}
