//! The CNI plugin, chained after the cluster's own: asks the node's daemon to enrol each new pod.
//!
//! In:  the verb and its parameters in the environment, the configuration on standard input.
//! Out: for ADD the previous plugin's result, unchanged; else nothing, or a CNI error.
//! Invariant: ADD succeeds only when the daemon has said that the pod is in force, when the pod is of an excluded
//! namespace, or when it is not a pod of Kubernetes.
//! Invariant: no kubeconfig, no kernel interface; the daemon's socket is the one thing it talks to.
//! Source: CNI 0.3.1, 0.4.0, 1.0.0 and 1.1.0.

pub mod config;
pub mod daemon;
pub mod env;
pub mod failure;
mod members;
pub mod prev_result;

mod add;
mod check;
mod del;
mod gc;
mod status;
mod version;

#[cfg(test)]
mod tests;

use config::{Config, Version};
use env::{Environment, Verb};
use failure::{Failure, Refusal};
use std::io::Read;

/// The longest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;

/// Serves one call of the container runtime; gives what belongs on standard output.
///
/// **Errors**: a [`Refusal`], to be printed on standard output, with an exit code other than 0.
pub fn run(environment: &Environment, stdin: impl Read) -> Result<Option<String>, Refusal> {
    let newest = |failure: Failure| Refusal { version: Version::NEWEST, failure };
    let verb = environment.verb().map_err(|error| newest(error.into()))?;
    if verb == Verb::Version {
        return Ok(Some(version::supported(read(stdin).unwrap_or_default().as_slice())));
    }
    let stdin = read(stdin).map_err(newest)?;
    let config = Config::parse(&stdin).map_err(|error| newest(error.into()))?;
    let version = config.version;
    serve(verb, environment, config).map_err(|failure| Refusal { version, failure })
}

fn serve(verb: Verb, environment: &Environment, config: Config) -> Result<Option<String>, Failure> {
    config.version.require(verb)?;
    match verb {
        Verb::Add => add::add(environment, config).map(Some),
        Verb::Del => del::del(environment, config).map(|()| None),
        Verb::Check => check::check(environment, config).map(|()| None),
        Verb::Status => status::status(config).map(|()| None),
        Verb::Gc => gc::gc(config).map(|()| None),
        Verb::Version => Ok(Some(version::supported(b""))),
    }
}

fn read(stdin: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    stdin.take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(|source| Failure::ReadConfig { source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_CONFIG) {
        Ok(bytes)
    } else {
        Err(config::ConfigError::TooLong { limit: MAX_CONFIG }.into())
    }
}
