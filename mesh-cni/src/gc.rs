//! GC: forgets every attachment that the runtime does not list.
//!
//! In:  `cni.dev/valid-attachments` of the configuration.
//! Out: nothing, or an error.
//! Invariant: a missing list forgets nothing; an empty one forgets everything, as the specification has it.
//! Source: CNI 1.1.0, section 2, "GC".

use crate::add::accepted;
use crate::config::Config;
use crate::daemon;
use crate::failure::Failure;
use mesh_common::cni::Request;

pub(crate) fn gc(config: Config) -> Result<(), Failure> {
    let valid = config.valid_attachments()?;
    let settings = config.settings?;
    accepted(daemon::ask(&settings.socket, settings.timeout, &Request::Gc { valid })?)
}
