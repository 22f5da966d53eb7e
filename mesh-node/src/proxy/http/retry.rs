//! Is a failed attempt worth another?
//!
//! In:  a rule's retry policy, how an attempt went.
//! Out: yes or no, and how long to rest before.
//! Invariant: pure; an upstream that fails for everyone is not asked many times more often than before.
//! Source: Envoy's retry conditions, Istio's default policy; Gateway API GEP-3388 for the budget of 20 percent.

use super::attempt::Kind;
use super::body::grpc_status;
use super::upstream::Standing;
use crate::model::http::{ConnectionLimits, Retry, RetryOn};
use http::{HeaderMap, Method, StatusCode};
use std::time::{Duration, Instant};

/// Further attempts where no rule says how many.
const ATTEMPTS: u32 = 2;
/// What counts as failed where no rule says so: nothing of these is a wish of the application. A 503 counts, too, if
/// the request may be repeated by its method; of another nobody knows what it has done.
const ON: [RetryOn; 4] =
    [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Grpc(CANCELLED), RetryOn::Grpc(UNAVAILABLE)];
const CANCELLED: u16 = 1;
const UNAVAILABLE: u16 = 14;
/// Rest before the first repetition, at most.
const BACKOFF: Duration = Duration::from_millis(25);

/// When attempts at one request are repeated.
pub(crate) struct Plan<'a> {
    attempts: u32,
    on: &'a [RetryOn],
    /// Does no rule say what counts as failed?
    by_default: bool,
    backoff: Duration,
}

impl<'a> Plan<'a> {
    /// What a rule says, or the mesh's default.
    pub(crate) fn new(retry: Option<&'a Retry>) -> Self {
        match retry {
            None => Self { attempts: ATTEMPTS, on: &ON, by_default: true, backoff: BACKOFF },
            Some(retry) => {
                let by_default = retry.on.is_empty();
                let on = if by_default { &ON[..] } else { &retry.on };
                Self { attempts: retry.attempts, on, by_default, backoff: retry.backoff.unwrap_or(BACKOFF) }
            }
        }
    }

    /// Is there another attempt at all?
    pub(crate) fn repeats(&self) -> bool {
        self.attempts > 0
    }

    /// After `made` attempts, is a failure of this kind worth another?
    pub(crate) fn wants_after(&self, made: u32, kind: Kind, method: &Method) -> bool {
        // A connection that was being closed while it idled says nothing of the request: RFC 9112, section 9.3.1.
        if kind == (Kind::Reset { reused: true }) && method.is_idempotent() && made == 1 {
            return true;
        }
        made <= self.attempts
            && self.on.iter().any(|on| match (on, kind) {
                (_, Kind::Denied) | (RetryOn::ServerError | RetryOn::GatewayError, Kind::Overflow) => false,
                (RetryOn::ServerError | RetryOn::GatewayError, _) => true,
                (RetryOn::ConnectFailure | RetryOn::ResetBeforeRequest | RetryOn::Reset, Kind::Connect) => true,
                (RetryOn::Reset, Kind::Reset { .. } | Kind::RefusedStream | Kind::Timeout) => true,
                (RetryOn::RefusedStream, Kind::RefusedStream) => true,
                _ => false,
            })
    }

    /// After `made` attempts, is such a response worth another?
    pub(crate) fn wants_instead(&self, made: u32, status: StatusCode, headers: &HeaderMap, method: &Method) -> bool {
        let status = status.as_u16();
        let is_safe_503 = || self.by_default && status == 503 && method.is_idempotent();
        made <= self.attempts
            && (is_safe_503()
                || self.on.iter().any(|on| match *on {
                    RetryOn::ServerError => (500..600).contains(&status),
                    RetryOn::GatewayError => (502..=504).contains(&status),
                    RetryOn::Conflict => status == 409,
                    RetryOn::Status(of) => status == of,
                    RetryOn::Grpc(of) => grpc_status(headers).is_some_and(|status| u16::from(status.code()) == of),
                    RetryOn::ConnectFailure | RetryOn::Reset | RetryOn::ResetBeforeRequest | RetryOn::RefusedStream => {
                        false
                    }
                }))
    }

    /// The rest before the attempt after `made` others: a random part of what doubles each time.
    pub(crate) fn rest(&self, made: u32, random: f64) -> Duration {
        let longest = self.backoff.saturating_mul(1 << made.saturating_sub(1).min(8)).min(self.backoff * 10);
        longest.mul_f64(random.clamp(0.0, 1.0))
    }
}

/// May there be one more retry: as few as a traffic policy allows at a time, else as the budget has it?
pub(crate) fn takes_retry(standing: &Standing, limits: &ConnectionLimits) -> bool {
    match limits.retries {
        Some(most) => standing.retries.get() < most,
        None => standing.budget.takes_retry(Instant::now()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(on: &[RetryOn]) -> Plan<'_> {
        Plan { attempts: 2, on, by_default: false, backoff: BACKOFF }
    }

    #[test]
    fn the_default_repeats_what_never_reached_an_application() {
        let default = Plan::new(None);
        let post = Method::POST;
        assert!(default.wants_after(1, Kind::Connect, &post));
        assert!(default.wants_after(2, Kind::RefusedStream, &post));
        assert!(!default.wants_after(3, Kind::Connect, &post));
        assert!(!default.wants_after(1, Kind::Reset { reused: false }, &post));
        assert!(!default.wants_after(1, Kind::Reset { reused: true }, &post));
        assert!(default.wants_after(1, Kind::Reset { reused: true }, &Method::GET));
        assert!(!default.wants_after(2, Kind::Reset { reused: true }, &Method::GET));
        assert!(!default.wants_after(1, Kind::Timeout, &Method::GET));
        assert!(!default.wants_after(1, Kind::Denied, &Method::GET));
        let none = HeaderMap::new();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert!(default.wants_instead(1, unavailable, &none, &Method::GET));
        assert!(!default.wants_instead(1, unavailable, &none, &post));
        assert!(!default.wants_instead(1, StatusCode::INTERNAL_SERVER_ERROR, &none, &Method::GET));
        let mut grpc = HeaderMap::new();
        grpc.insert("grpc-status", 14.into());
        assert!(default.wants_instead(1, StatusCode::OK, &grpc, &post));
    }

    #[test]
    fn conditions_are_those_that_are_named() {
        let get = Method::GET;
        assert!(plan(&[RetryOn::ServerError]).wants_after(1, Kind::Timeout, &get));
        assert!(!plan(&[RetryOn::ServerError]).wants_after(1, Kind::Overflow, &get));
        assert!(plan(&[RetryOn::Reset]).wants_after(1, Kind::Reset { reused: false }, &get));
        assert!(!plan(&[RetryOn::ConnectFailure]).wants_after(1, Kind::Reset { reused: false }, &get));
        assert!(plan(&[RetryOn::GatewayError]).wants_instead(1, StatusCode::BAD_GATEWAY, &HeaderMap::new(), &get));
        assert!(!plan(&[RetryOn::GatewayError]).wants_instead(1, StatusCode::NOT_IMPLEMENTED, &HeaderMap::new(), &get));
    }

    #[test]
    fn rests_grow_and_are_bounded() {
        let plan = plan(&[]);
        assert_eq!([1, 2, 3, 9, 40].map(|made| plan.rest(made, 1.0).as_millis()), [25, 50, 100, 250, 250]);
        assert_eq!(plan.rest(3, 0.0), Duration::ZERO);
    }
}
