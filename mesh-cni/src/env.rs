//! The verb and its parameters, from the environment.
//!
//! In:  `CNI_COMMAND`, `CNI_CONTAINERID`, `CNI_NETNS`, `CNI_IFNAME`, `CNI_ARGS`.
//! Out: [`Verb`], [`Sandbox`], [`Pod`]: parsed, or an error that names the variable.
//! Invariant: the environment is read here and nowhere else.
//! Source: CNI 1.1.0, section 2, "Parameters"; error code 4.

use mesh_common::cni::{is_container_id, is_ifname, is_path};

/// The variables of a call, as they are.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: Option<String>,
    /// `CNI_NETNS`.
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    pub ifname: Option<String>,
    /// `CNI_ARGS`.
    pub args: Option<String>,
}

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it still as ADD left it?
    Check,
    /// Can ADD be served?
    Status,
    /// Forget what is not listed.
    Gc,
    /// Which versions of the specification are spoken?
    Version,
}

/// Which container's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id of the sandbox.
    pub container_id: String,
    /// The interface name inside the pod.
    pub ifname: String,
}

/// Which pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, when the runtime passes it.
    pub uid: Option<String>,
}

/// The environment is not as the specification has it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// Required variables are not set.
    #[error("required environment variables are not set: {names}; a CNI plugin is run by the container runtime")]
    Missing {
        /// Their names.
        names: String,
    },
    /// The verb is none of CNI's.
    #[error("CNI_COMMAND {command:?} is none of ADD, DEL, CHECK, STATUS, GC and VERSION")]
    Command {
        /// The verb.
        command: String,
    },
    /// A variable is set to something it cannot be.
    #[error("{name} {value:?} is not {expected}")]
    Invalid {
        /// The variable, with the key inside `CNI_ARGS`.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Environment {
    /// The variables of this process. Bytes that are not UTF-8 become replacement
    /// characters, which no parser accepts.
    #[must_use]
    pub fn read() -> Self {
        Self {
            command: variable("CNI_COMMAND"),
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
            args: variable("CNI_ARGS"),
        }
    }

    /// What the runtime asks for.
    ///
    /// **Errors**: `CNI_COMMAND` is missing or unknown.
    pub fn verb(&self) -> Result<Verb, EnvError> {
        match set(self.command.as_deref()) {
            Some("ADD") => Ok(Verb::Add),
            Some("DEL") => Ok(Verb::Del),
            Some("CHECK") => Ok(Verb::Check),
            Some("STATUS") => Ok(Verb::Status),
            Some("GC") => Ok(Verb::Gc),
            Some("VERSION") => Ok(Verb::Version),
            Some(command) => Err(EnvError::Command { command: command.to_owned() }),
            None => Err(EnvError::Missing { names: "CNI_COMMAND".to_owned() }),
        }
    }

    /// Which container's interface.
    ///
    /// **Errors**: a variable is missing or invalid.
    pub fn sandbox(&self) -> Result<Sandbox, EnvError> {
        required(&[("CNI_CONTAINERID", self.container_id.as_deref()), ("CNI_IFNAME", self.ifname.as_deref())])?;
        let container_id = self.container_id.clone().unwrap_or_default();
        let ifname = self.ifname.clone().unwrap_or_default();
        valid(
            is_container_id(&container_id),
            "CNI_CONTAINERID",
            &container_id,
            "a container id: letters, digits, _.-",
        )?;
        valid(
            is_ifname(&ifname),
            "CNI_IFNAME",
            &ifname,
            "the name of an interface: at most 15 bytes, no / : or space",
        )?;
        Ok(Sandbox { container_id, ifname })
    }

    /// Which container's interface, and the path of its network namespace.
    ///
    /// **Errors**: a variable is missing or invalid.
    pub fn sandbox_and_netns(&self) -> Result<(Sandbox, String), EnvError> {
        required(&[
            ("CNI_CONTAINERID", self.container_id.as_deref()),
            ("CNI_NETNS", self.netns.as_deref()),
            ("CNI_IFNAME", self.ifname.as_deref()),
        ])?;
        let netns = self.netns.clone().unwrap_or_default();
        valid(is_path(&netns), "CNI_NETNS", &netns, "an absolute path")?;
        Ok((self.sandbox()?, netns))
    }

    /// Which pod, by `K8S_POD_NAMESPACE`, `K8S_POD_NAME` and `K8S_POD_UID`; `None` if the container is not a pod of
    /// Kubernetes. Other keys belong to other plugins and are ignored, as `IgnoreUnknown` asks.
    ///
    /// **Errors**: `CNI_ARGS` is no list of pairs, or names half a pod.
    pub fn pod(&self) -> Result<Option<Pod>, EnvError> {
        let (mut namespace, mut name, mut uid) = (None, None, None);
        for pair in set(self.args.as_deref()).unwrap_or_default().split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(invalid("CNI_ARGS", pair, "a pair of key and value, KEY=VALUE"));
            };
            match key {
                "K8S_POD_NAMESPACE" => namespace = set(Some(value)),
                "K8S_POD_NAME" => name = set(Some(value)),
                "K8S_POD_UID" => uid = set(Some(value)),
                _ => {}
            }
        }
        let (namespace, name) = match (namespace, name) {
            (Some(namespace), Some(name)) => (namespace, name),
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(EnvError::Missing { names: "K8S_POD_NAME in CNI_ARGS".to_owned() }),
            (None, Some(_)) => return Err(EnvError::Missing { names: "K8S_POD_NAMESPACE in CNI_ARGS".to_owned() }),
        };
        valid(is_label(namespace), "K8S_POD_NAMESPACE in CNI_ARGS", namespace, "a namespace's name")?;
        valid(is_subdomain(name), "K8S_POD_NAME in CNI_ARGS", name, "a pod's name")?;
        if let Some(uid) = uid {
            valid(is_label(uid), "K8S_POD_UID in CNI_ARGS", uid, "a UID")?;
        }
        Ok(Some(Pod { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.map(str::to_owned) }))
    }
}

#[expect(clippy::disallowed_methods, reason = "the environment is CNI's protocol; this is where the plugin reads it")]
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// An empty variable counts as one that is not set, as in CNI's reference library.
fn set(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

fn required(variables: &[(&str, Option<&str>)]) -> Result<(), EnvError> {
    let missing: Vec<_> = variables.iter().filter(|(_, value)| set(*value).is_none()).map(|(name, _)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(EnvError::Missing { names: missing.join(", ") }) }
}

fn valid(holds: bool, name: &'static str, value: &str, expected: &'static str) -> Result<(), EnvError> {
    if holds { Ok(()) } else { Err(invalid(name, value, expected)) }
}

fn invalid(name: &'static str, value: &str, expected: &'static str) -> EnvError {
    EnvError::Invalid { name, value: value.to_owned(), expected }
}

/// **Source**: Kubernetes, "Object Names and IDs", RFC 1123 label names; UIDs have the same form.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// **Source**: Kubernetes, "Object Names and IDs", DNS subdomain names.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
