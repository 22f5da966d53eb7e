//! DEL: forgets an attachment.
//!
//! In:  container id and interface name from the environment.
//! Out: nothing. What the daemon could not be told is said on standard error.
//! Invariant: a well-formed DEL succeeds, also when it is repeated, when the daemon is away and when the plugin's own
//! settings are broken: a pod must not fail to end because of the mesh, and the daemon notices by itself that the
//! network namespace is gone.
//! Source: CNI 1.1.0, section 2, "DEL".

use crate::add::accepted;
use crate::config::{Config, Settings};
use crate::daemon;
use crate::env::Environment;
use crate::failure::{Failure, causes};
use mesh_common::cni::Request;
use std::time::Duration;

/// The daemon's share of the time that ending a pod takes.
const LONGEST: Duration = Duration::from_secs(5);

pub(crate) fn del(environment: &Environment, config: Config) -> Result<(), Failure> {
    let sandbox = environment.sandbox()?;
    let settings = config.settings.unwrap_or_else(|error| {
        eprintln!("mesh-cni: DEL goes on with default settings: {error}");
        Settings::default()
    });
    let request = Request::Del { container_id: sandbox.container_id, ifname: sandbox.ifname };
    let told = daemon::ask(&settings.socket, settings.timeout.min(LONGEST), &request).map_err(Failure::from);
    if let Err(failure) = told.and_then(accepted) {
        eprintln!("mesh-cni: DEL is left to the daemon's own clean-up: {failure}: {}", causes(&failure));
    }
    Ok(())
}
