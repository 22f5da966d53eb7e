//! STATUS: can ADD be served?
//!
//! In:  the configuration.
//! Out: nothing, or error 50 when the daemon is not ready, 51 when it is not there: then the connections of pods in the
//! mesh wait for it.
//! Source: CNI 1.1.0, section 2, "STATUS".

use crate::config::Config;
use crate::daemon;
use crate::failure::Failure;
use mesh_common::cni::{Request, Response};

pub(crate) fn status(config: Config) -> Result<(), Failure> {
    let settings = config.settings?;
    match daemon::ask(&settings.socket, settings.timeout, &Request::Status) {
        Ok(Response::Ok) => Ok(()),
        Ok(Response::Error { message, .. }) => Err(Failure::NotReady { message }),
        Err(source) => Err(Failure::Absent { source }),
    }
}
