//! Istio's security API.
//!
//! Out: [`PeerAuthentication`].
//! Invariant: the whole spec is kept as it came, so that a field nobody knows is seen and refused.
//! Source: Istio `security.istio.io/v1`.

use super::meta::{ObjectMeta, nullable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether connections to workloads are mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAuthentication {
    /// Namespace, name and age.
    pub metadata: ObjectMeta,
    /// The fields as written.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: BTreeMap<String, Value>,
}
