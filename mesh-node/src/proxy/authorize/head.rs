//! The head of a request, kept for as long as what it began lasts.
//!
//! In:  a request's head.
//! Out: [`Head`], by which it can be judged again.

use crate::policy::Request;
use http::{HeaderMap, Method, request};

/// What policies may ask of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    method: Method,
    authority: String,
    path: String,
    headers: HeaderMap,
}

impl Head {
    /// That of a request for `authority`.
    pub(crate) fn of(head: &request::Parts, authority: &str) -> Self {
        Self {
            method: head.method.clone(),
            authority: authority.to_owned(),
            path: head.uri.path().to_owned(),
            headers: head.headers.clone(),
        }
    }

    /// The request.
    pub(crate) fn request(&self) -> Request<'_> {
        Request::new(self.method.as_str(), &self.authority, &self.path, &self.headers)
    }
}
