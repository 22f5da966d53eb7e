//! What went wrong, as the container runtime is told.
//!
//! In:  the errors of the other modules, and the daemon's refusals.
//! Out: the error document of CNI, with the code that tells the runtime what to do.
//! Source: CNI 1.1.0, section 5, "Error"; section 2, "STATUS".

use crate::config::{ConfigError, Version};
use crate::daemon::DaemonError;
use crate::env::EnvError;
use crate::prev_result::PrevResultError;
use serde::Serialize;
use std::error::Error;
use std::io;

/// "Try again later": a transient condition.
pub const TRY_AGAIN_LATER: u32 = 11;
/// STATUS: ADD cannot be served.
pub const NOT_AVAILABLE: u32 = 50;
/// STATUS: ADD cannot be served, and pods that run may have limited connectivity.
pub const LIMITED_CONNECTIVITY: u32 = 51;
/// This plugin's own: the daemon refuses, and waiting does not help.
pub const REFUSED: u32 = 100;
/// This plugin's own: what answers at the socket does not speak the daemon's language.
pub const NOT_UNDERSTOOD: u32 = 101;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The environment is wrong.
    #[error("invalid environment")]
    Environment(#[from] EnvError),
    /// Standard input cannot be read.
    #[error("the network configuration cannot be read from standard input")]
    ReadConfig {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error("invalid network configuration")]
    Config(#[from] ConfigError),
    /// The previous plugin's result is missing or wrong.
    #[error("invalid prevResult")]
    PrevResult(#[from] PrevResultError),
    /// The daemon gave no usable answer.
    #[error("the pod is not in the mesh")]
    Daemon(#[from] DaemonError),
    /// The daemon refused.
    #[error("the mesh daemon refused: {message}")]
    Refused {
        /// Would the same request succeed later?
        retriable: bool,
        /// The daemon's reason.
        message: String,
    },
    /// STATUS: the daemon gave no usable answer.
    #[error("the mesh daemon is not available: new pods cannot start, and those in the mesh may lose connections")]
    Absent {
        /// Why.
        #[source]
        source: DaemonError,
    },
    /// STATUS: the daemon is there and not ready.
    #[error("the mesh daemon is not ready for new pods: {message}")]
    NotReady {
        /// The daemon's reason.
        message: String,
    },
}

impl Failure {
    /// The error code, of the specification up to 99.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Environment(_) => 4,
            Self::ReadConfig { .. } => 5,
            Self::Config(error) => error.code(),
            Self::PrevResult(_) | Self::Daemon(DaemonError::RequestTooLong) => 7,
            Self::Daemon(error) if error.is_retriable() => TRY_AGAIN_LATER,
            Self::Daemon(_) => NOT_UNDERSTOOD,
            Self::Refused { retriable: true, .. } => TRY_AGAIN_LATER,
            Self::Refused { retriable: false, .. } => REFUSED,
            Self::Absent { .. } => LIMITED_CONNECTIVITY,
            Self::NotReady { .. } => NOT_AVAILABLE,
        }
    }
}

/// A failure, and the version in which the runtime is told.
#[derive(Debug)]
pub struct Refusal {
    /// The version of the specification.
    pub version: Version,
    /// What went wrong.
    pub failure: Failure,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    cni_version: &'a str,
    code: u32,
    msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    details: String,
}

impl Refusal {
    /// The error document: what failed in `msg`, the causes in `details`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let document = Document {
            cni_version: self.version.as_str(),
            code: self.failure.code(),
            msg: self.failure.to_string(),
            details: causes(&self.failure),
        };
        serde_json::to_string(&document).unwrap_or_default()
    }
}

/// The causes of an error, outermost first.
pub(crate) fn causes(error: &dyn Error) -> String {
    let chain = std::iter::successors(error.source(), |&cause| cause.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
