//! Answers that come from the proxy itself.
//!
//! In:  a [`Refusal`], or what a rule says.
//! Out: a response.
//! Invariant: the reason is in the log and the metric; the client is told what it may know.

use super::body::Payload;
use crate::proxy::refusal::{self, Refusal};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

/// A response of ours with this text.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Payload> {
    let body = body.into();
    let typed = !body.is_empty();
    let mut response = Response::new(Payload::bytes(body));
    *response.status_mut() = status;
    if typed {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// How a request that was refused is answered: a client of gRPC by a status of gRPC, every other one by the status
/// of HTTP.
pub(crate) fn refused(refusal: &Refusal, is_grpc: bool) -> Response<Payload> {
    let status = refusal.status.unwrap_or_else(|| status(refusal.reason));
    let message = message(refusal);
    if is_grpc {
        let mut response = Response::new(Payload::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(grpc_status(status)));
        let plain: String = message.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
        if let Ok(message) = HeaderValue::from_str(&plain) {
            headers.insert("grpc-message", message);
        }
        return response;
    }
    text(status, message)
}

/// Does a client speak gRPC?
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let rest = value.strip_prefix("application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    })
}

/// The status of HTTP that a refusal is.
pub(crate) fn status(reason: &str) -> StatusCode {
    match reason {
        refusal::BAD_REQUEST => StatusCode::BAD_REQUEST,
        refusal::POLICY_DENIED => StatusCode::FORBIDDEN,
        refusal::NO_ROUTE => StatusCode::NOT_FOUND,
        refusal::NO_BACKEND => StatusCode::INTERNAL_SERVER_ERROR,
        refusal::REQUEST_TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// gRPC's status for one of HTTP.
///
/// **Source**: gRPC, "HTTP to gRPC Status Code Mapping".
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

fn message(refusal: &Refusal) -> String {
    match refusal.reason {
        refusal::BAD_REQUEST | refusal::FAULT => refusal.detail.clone(),
        // As Envoy words it, for whoever looks for that.
        refusal::POLICY_DENIED => "RBAC: access denied".to_owned(),
        // Addresses and names of the cluster are for its operators, in the log.
        reason => reason.replace('_', " "),
    }
}
