//! The plugin's configuration, from standard input.
//!
//! In:  the network configuration as the runtime made it.
//! Out: [`Config`]: version, settings, the previous plugin's result.
//! Invariant: a key that neither CNI nor this plugin knows is refused, never ignored: a misspelt setting would
//! otherwise leave pods outside the mesh.
//! Source: CNI 1.1.0, section 1, "Plugin configuration objects"; error codes 1, 2, 6 and 7.

use crate::env::Verb;
use crate::members::Members;
use mesh_common::cni::{DEFAULT_SOCKET, is_container_id, is_ifname, is_path};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::time::Duration;

/// How long the daemon may take unless configured otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest `timeout`: container runtimes give up on a sandbox after a few minutes.
const MAX_TIMEOUT_SECONDS: f64 = 600.0;

/// The longest path of a Unix socket, `sun_path` less its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// Pods of these namespaces are not enrolled unless configured otherwise, so that a node can boot.
const DEFAULT_EXCLUDED: &str = "kube-system";

/// Keys of the specification, its conventions and its reference library that are none of ours to read.
const KEYS_OF_CNI: [&str; 12] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "ipMasq",
    "ipam",
    "dns",
    "disableCheck",
];

/// A version of the specification that this plugin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0, which brought CHECK.
    V0_4_0,
    /// 1.0.0, whose results have no `version` for an address.
    V1_0_0,
    /// 1.1.0, which brought STATUS and GC.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest of them.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As it is written in `cniVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that is written as `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Does this version have the verb?
    ///
    /// **Errors**: it does not.
    pub fn require(self, verb: Verb) -> Result<(), ConfigError> {
        let since = match verb {
            Verb::Add | Verb::Del | Verb::Version => Self::V0_3_1,
            Verb::Check => Self::V0_4_0,
            Verb::Status | Verb::Gc => Self::V1_1_0,
        };
        if self >= since {
            Ok(())
        } else {
            Err(ConfigError::Verb { verb, version: self.as_str(), since: since.as_str() })
        }
    }
}

/// What the runtime and the operator configured.
#[derive(Debug)]
pub struct Config {
    /// The version of the specification that the call follows.
    pub version: Version,
    /// This plugin's own settings. Apart, because DEL goes on with the defaults when they are broken.
    pub settings: Result<Settings, ConfigError>,
    /// The result of the plugin before this one.
    pub prev_result: Option<Box<RawValue>>,
    /// `cni.dev/valid-attachments`; `null` counts, since an empty list of Go is written so.
    valid_attachments: Option<Box<RawValue>>,
}

/// This plugin's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the daemon listens.
    pub socket: PathBuf,
    /// How long the daemon may take.
    pub timeout: Duration,
    /// Namespaces whose pods pass untouched.
    pub exclude_namespaces: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            timeout: DEFAULT_TIMEOUT,
            exclude_namespaces: vec![DEFAULT_EXCLUDED.to_owned()],
        }
    }
}

/// The configuration is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is too long.
    #[error("the network configuration on standard input is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
    /// It is no JSON, or not of the form that every configuration has.
    #[error("the network configuration on standard input cannot be decoded; the container runtime provides it")]
    Decode {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The version is one that this plugin does not speak.
    #[error("cniVersion {version:?} is none of 0.3.1, 0.4.0, 1.0.0 and 1.1.0")]
    Version {
        /// The version.
        version: String,
    },
    /// The version does not have the verb.
    #[error("cniVersion {version} has no {verb:?}, which came with {since}")]
    Verb {
        /// The verb.
        verb: Verb,
        /// The configured version.
        version: &'static str,
        /// The first version that has the verb.
        since: &'static str,
    },
    /// The network has no name, or one that CNI does not allow.
    #[error("name {name:?} is no network name: a letter or digit, then letters, digits, _.-")]
    Name {
        /// The name.
        name: String,
    },
    /// A key that neither CNI nor this plugin knows.
    #[error("key {key:?} with value {value} is not supported; mesh-cni has socket, timeout and excludeNamespaces")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A setting has a value it cannot have.
    #[error("{key} is not {expected}: {value}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// GC came without the list of attachments to keep.
    #[error("GC needs cni.dev/valid-attachments; nothing was forgotten")]
    NoAttachments,
}

impl ConfigError {
    /// The error code of the specification.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Version { .. } | Self::Verb { .. } => 1,
            Self::UnknownKey { .. } => 2,
            Self::TooLong { .. } | Self::Decode { .. } => 6,
            Self::Name { .. } | Self::Setting { .. } | Self::NoAttachments => 7,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl Config {
    /// The configuration that `stdin` holds.
    ///
    /// **Errors**: it cannot be decoded, has no usable `cniVersion` or no `name`. What is wrong with this plugin's own
    /// settings is in [`Config::settings`].
    pub fn parse(stdin: &[u8]) -> Result<Self, ConfigError> {
        let members: Members = serde_json::from_slice(stdin).map_err(|source| ConfigError::Decode { source })?;
        // A configuration without a version follows 0.1.0.
        let version = string(&members, "cniVersion")?.unwrap_or_else(|| "0.1.0".to_owned());
        let version = Version::parse(&version).ok_or(ConfigError::Version { version })?;
        let name = string(&members, "name")?.unwrap_or_default();
        if !is_container_id(&name) {
            return Err(ConfigError::Name { name });
        }
        let raw = |name: &str| members.value(name).map(ToOwned::to_owned);
        let valid_attachments = members.iter().find(|(key, _)| *key == "cni.dev/valid-attachments");
        Ok(Self {
            version,
            settings: Settings::read(&members),
            prev_result: raw("prevResult"),
            valid_attachments: valid_attachments.map(|(_, value)| value.to_owned()),
        })
    }

    /// The attachments that GC must keep, as container id and interface name.
    ///
    /// **Errors**: the list is missing or malformed.
    pub fn valid_attachments(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let raw = self.valid_attachments.as_deref().ok_or(ConfigError::NoAttachments)?;
        let wrong = || setting("cni.dev/valid-attachments", raw, "a list of objects with containerID and ifname");
        let list: Option<Vec<ValidAttachment>> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
        let list = list.unwrap_or_default();
        if list.iter().any(|entry| !is_container_id(&entry.container_id) || !is_ifname(&entry.ifname)) {
            return Err(wrong());
        }
        Ok(list.into_iter().map(|entry| (entry.container_id, entry.ifname)).collect())
    }
}

impl Settings {
    fn read(members: &Members) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for (key, raw) in members.iter() {
            match key {
                _ if raw.get() == "null" => {}
                "socket" => settings.socket = socket(raw)?,
                "timeout" => settings.timeout = timeout(raw)?,
                "excludeNamespaces" => {
                    settings.exclude_namespaces = serde_json::from_str(raw.get())
                        .map_err(|_| setting("excludeNamespaces", raw, "a list of namespaces' names"))?;
                }
                // Keys with a domain belong to whoever owns the domain; `cni.dev/` is the specification's.
                _ if KEYS_OF_CNI.contains(&key) || key.contains('/') => {}
                _ => return Err(ConfigError::UnknownKey { key: key.to_owned(), value: clip(raw) }),
            }
        }
        Ok(settings)
    }
}

fn string(members: &Members, key: &str) -> Result<Option<String>, ConfigError> {
    members
        .value(key)
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|source| ConfigError::Decode { source })
}

fn socket(raw: &RawValue) -> Result<PathBuf, ConfigError> {
    serde_json::from_str::<String>(raw.get())
        .ok()
        .filter(|path| is_path(path) && path.len() <= MAX_SOCKET_PATH)
        .map(PathBuf::from)
        .ok_or_else(|| setting("socket", raw, "an absolute path of at most 107 bytes"))
}

fn timeout(raw: &RawValue) -> Result<Duration, ConfigError> {
    serde_json::from_str::<f64>(raw.get())
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= MAX_TIMEOUT_SECONDS)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| setting("timeout", raw, "a number of seconds above 0 and up to 600"))
}

fn setting(key: &'static str, raw: &RawValue, expected: &'static str) -> ConfigError {
    ConfigError::Setting { key, value: clip(raw), expected }
}

/// A value as it was written, short enough for an event.
fn clip(raw: &RawValue) -> String {
    const LONGEST: usize = 200;
    let text = raw.get();
    if text.chars().count() <= LONGEST { text.to_owned() } else { text.chars().take(LONGEST).chain(['…']).collect() }
}
