//! The messages between the CNI plugin and the daemon.
//!
//! **Shape**: over a Unix stream socket, the plugin sends one [`Request`] as a line of JSON, the
//! daemon answers with one [`Response`] as a line of JSON and closes. A line is at most
//! [`MAX_MESSAGE`] bytes.

use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// The longest line either side accepts, in bytes, newline included.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Where the daemon listens unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/mesh/cni.sock";

/// The longest container id that is accepted; runtimes use 64 hexadecimal digits.
pub const MAX_CONTAINER_ID: usize = 200;

/// The longest interface name of Linux.
const MAX_IFNAME: usize = 15;

/// Is this a container id? Such an id is also safe in file names.
///
/// **Source**: CNI 1.1.0, `CNI_CONTAINERID`: an alphanumeric character, then alphanumeric characters, `_`, `.`
/// or `-`.
#[must_use]
pub fn is_container_id(id: &str) -> bool {
    id.len() <= MAX_CONTAINER_ID
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Is this the name of a network interface? Such a name is also safe in file names.
///
/// **Source**: `dev_valid_name` of Linux; `:` is refused by CNI's reference library as well, and the replacement
/// character stands for bytes that were no text.
#[must_use]
pub fn is_ifname(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_IFNAME
        && !name.contains(|c: char| {
            matches!(c, '/' | ':' | char::REPLACEMENT_CHARACTER) || c.is_whitespace() || c.is_control()
        })
}

/// Is this a path that can name a network namespace or a socket: absolute, and all of it text?
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() < 4096
        && !path.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// What the plugin asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "UPPERCASE", deny_unknown_fields)]
pub enum Request {
    /// Enrol a new pod; answered once its identity, policy and steering are in force.
    Add(Attachment),
    /// Is the pod still as ADD left it?
    Check(Attachment),
    /// Forget an attachment. Unknown attachments succeed.
    Del {
        /// The runtime's id of the sandbox.
        container_id: String,
        /// The interface name inside the pod.
        ifname: String,
    },
    /// Can ADD be served?
    Status,
    /// Forget every attachment that is not listed.
    Gc {
        /// The attachments which still exist, as container id and interface name.
        valid: Vec<(String, String)>,
    },
}

/// A pod's sandbox as the container runtime and the plugins before ours made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The runtime's id of the sandbox.
    pub container_id: String,
    /// The interface name inside the pod, usually `eth0`.
    pub ifname: String,
    /// Path of the network namespace.
    pub netns: String,
    /// The pod's namespace, `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// The pod's name, `K8S_POD_NAME`.
    pub pod_name: String,
    /// The pod's UID, `K8S_POD_UID`, when the runtime passes it.
    pub pod_uid: Option<String>,
    /// The pod's addresses, from `prevResult`.
    pub addresses: Vec<IpAddr>,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase", deny_unknown_fields)]
pub enum Response {
    /// Done.
    Ok,
    /// Not done.
    Error {
        /// Would the same request succeed later, with nothing changed but time?
        retriable: bool,
        /// What failed, and the cure where it is known.
        message: String,
    },
}
