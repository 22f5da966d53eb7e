//! CHECK: is a pod still as ADD left it?
//!
//! In:  the same as ADD's; `prevResult` is the chain's final result.
//! Out: nothing, or how the pod differs, which the daemon finds out: it compares with what it holds in force.
//! Source: CNI 1.1.0, section 2, "CHECK".

use crate::add::{accepted, attachment};
use crate::config::Config;
use crate::daemon;
use crate::env::Environment;
use crate::failure::Failure;
use crate::prev_result::PrevResult;
use mesh_common::cni::Request;

pub(crate) fn check(environment: &Environment, config: Config) -> Result<(), Failure> {
    let settings = config.settings?;
    let prev_result = PrevResult::new(config.prev_result)?;
    match attachment(environment, &settings, &prev_result)? {
        Some(attachment) => accepted(daemon::ask(&settings.socket, settings.timeout, &Request::Check(attachment))?),
        None => Ok(()),
    }
}
