//! Why a kind cannot be watched just now, and what follows.
//!
//! In:  errors of the client, statuses of the API server.
//! Out: a [`Trouble`].
//! Source: Kubernetes, "API concepts": 410 and expired versions, 404 of what is not served; `meta/v1.Status`.

use crate::telemetry;
use kube::core::response::Status;

/// Why a kind cannot be watched just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The API server has forgotten the revision from which to go on: everything is to be listed again.
    Expired,
    /// The API server does not know the kind.
    NotServed,
    /// The API server cannot stream a list.
    NoStreaming,
    /// The API server refuses for want of a permission.
    Forbidden(String),
    /// The API server says something else than was asked for.
    Refused(String),
    /// The API server does not answer, or stopped in the middle.
    Silent(String),
    /// Nobody wants to know any more.
    Unwanted,
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        if let kube::Error::Api(status) = &error {
            return Self::from(&**status);
        }
        Self::Silent(telemetry::explain(&error))
    }
}

impl From<&Status> for Trouble {
    fn from(status: &Status) -> Self {
        let text = || {
            let reason = if status.reason.is_empty() { String::new() } else { format!("{}, ", status.reason) };
            format!("{} ({reason}status {})", status.message.trim(), status.code)
        };
        match status.code {
            410 => Self::Expired,
            404 => Self::NotServed,
            403 => Self::Forbidden(text()),
            400 | 422 if status.message.contains("sendInitialEvents") => Self::NoStreaming,
            // It is overloaded, starting or stopping: a matter of time.
            429 | 500..=599 => Self::Silent(text()),
            _ => Self::Refused(text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> Trouble {
        let error = kube::Error::Api(Box::new(Status::failure(message, "Reason").with_code(code)));
        Trouble::from(error)
    }

    #[test]
    fn statuses_say_what_follows() {
        assert_eq!(status(410, "too old resource version"), Trouble::Expired);
        assert_eq!(status(404, "404 page not found"), Trouble::NotServed);
        assert_eq!(status(403, "no"), Trouble::Forbidden("no (Reason, status 403)".into()));
        assert_eq!(status(422, "sendInitialEvents: Forbidden: the feature gate is off"), Trouble::NoStreaming);
        assert_eq!(
            status(422, "limit: Invalid value"),
            Trouble::Refused("limit: Invalid value (Reason, status 422)".into())
        );
        assert_eq!(status(401, "Unauthorized"), Trouble::Refused("Unauthorized (Reason, status 401)".into()));
        assert_eq!(status(503, "starting"), Trouble::Silent("starting (Reason, status 503)".into()));
    }
}
