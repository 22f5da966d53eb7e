//! What the runtime is told of our plugin.
//!
//! In:  the daemon's socket and the namespaces that pass without the daemon.
//! Out: the plugin's configuration: an entry of a list, or a file of its own.
//! Source: `mesh-cni/src/config.rs` for the keys; `buildOneConfig` of libcni 1.3.0, which gives every plugin the name and
//! the version of its list.

use serde_json::{Value, json};
use std::path::PathBuf;

/// The plugin's file name, and its `type`.
pub const PLUGIN: &str = "mesh-cni";

/// The name of the file in the network's directory.
pub const DROP_IN: &str = "50-mesh.conf";

/// What our plugin has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the daemon answers, as the host sees it.
    pub socket: PathBuf,
    /// Namespaces whose pods pass untouched, also when no daemon runs.
    pub exempt: Vec<String>,
}

impl Entry {
    /// As one plugin among those of a list.
    pub(super) fn inline(&self) -> Value {
        json!({"type": PLUGIN, "socket": self.socket, "excludeNamespaces": self.exempt})
    }

    /// As the content of a file of its own.
    pub(super) fn drop_in(&self, network: &str, version: &str) -> String {
        let mut members = self.inline();
        members["name"] = network.into();
        members["cniVersion"] = version.into();
        format!("{members:#}\n")
    }
}

/// Is this, under our file name, a file of ours? Damaged, it is still ours; a whole configuration of another plugin is not.
pub(super) fn is_drop_in(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).map_or(true, |value| value["type"] == PLUGIN)
}
