//! What daemons may do at an API server.
//!
//! In:  rules, or `manifests/mesh.yaml`.
//! Out: roles that are bound to [`DAEMON`].
//! Source: Kubernetes `rbac.authorization.k8s.io/v1`.

use super::{ApiServer, DAEMON};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const GROUP: &str = "rbac.authorization.k8s.io";

impl ApiServer {
    /// Lets daemons do this, in one Kubernetes namespace or in all; in place of what a role of this name let them do before.
    ///
    /// **Errors**: as [`ApiServer::apply`].
    pub fn allow(&self, namespace: Option<&str>, name: &str, rules: &Value) -> Result<()> {
        let (role, binding) = match namespace {
            Some(_) => ("Role", "RoleBinding"),
            None => ("ClusterRole", "ClusterRoleBinding"),
        };
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let version = format!("{GROUP}/v1");
        self.apply(&json!({"apiVersion": version, "kind": role, "metadata": metadata, "rules": rules}))?;
        self.apply(&json!({
            "apiVersion": version,
            "kind": binding,
            "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": role, "name": name},
            "subjects": [{"kind": "User", "name": DAEMON}],
        }))
    }

    /// Lets daemons do what the manifest lets those that users install, but for identities, which an embedded authority gives.
    ///
    /// **Errors**: as [`ApiServer::allow`], or the manifest has no such role.
    pub fn allow_as_installed(&self) -> Result<()> {
        self.allow(None, DAEMON, &installed()?)
    }
}

/// The rules of the daemons' role.
fn installed() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/mesh.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let is_it =
        |document: &&str| document.contains("\nkind: ClusterRole\n") && document.contains("\n  name: mesh-node\n");
    let role = text.split("\n---\n").find(is_it).context("the manifest has no role of the daemons")?;
    let role: Value = serde_saphyr::from_str(role).context("the role of the daemons")?;
    Ok(role["rules"].clone())
}
