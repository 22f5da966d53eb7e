//! A request, ready to be sent, perhaps more than once.
//!
//! In:  a request whose head is understood, and what follows it.
//! Out: [`Resend::next`] for each attempt, [`Resend::copy`] for each mirror.
//! Invariant: every attempt sends the whole request or none is made.

use super::attempt::Wanted;
use super::body::{Keeper, Passed, Payload};
use super::headers;
use super::request::Asking;
use crate::proxy::refusal::{self, Refusal};
use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Version, request};
use hyper::body::{Body, Incoming};
use std::cell::Cell;
use std::rc::Rc;

/// A request, ready to be sent.
pub(crate) struct Resend {
    head: Option<request::Parts>,
    method: Method,
    version: Version,
    authority: Authority,
    changes: bool,
    protocol: Option<HeaderValue>,
    body: Kept,
    passed: Rc<Passed>,
}

enum Kept {
    Nothing,
    /// Sent once; `None` while an attempt has it.
    Once(Option<Payload>),
    Often(Rc<Keeper>),
}

impl Resend {
    /// A request that is sent once or, if what of it is kept may be counted, more often.
    pub(crate) fn new(asking: Asking, body: Incoming, kept: Option<Rc<Cell<usize>>>, passed: Rc<Passed>) -> Self {
        let body = if body.is_end_stream() {
            passed.whole.set(true);
            Kept::Nothing
        } else if let Some(kept) = kept {
            Kept::Often(Keeper::new(body, kept))
        } else {
            Kept::Once(Some(Payload::incoming(body, Rc::clone(&passed))))
        };
        Self::of(asking, body, passed)
    }

    /// A request that is sent once, whatever becomes of it: its head is not copied.
    pub(crate) fn once(asking: Asking, body: Incoming, passed: Rc<Passed>) -> Self {
        passed.whole.set(body.is_end_stream());
        let body = Kept::Once(Some(Payload::incoming(body, Rc::clone(&passed))));
        Self::of(asking, body, passed)
    }

    fn of(asking: Asking, body: Kept, passed: Rc<Passed>) -> Self {
        Self {
            method: asking.head.method.clone(),
            version: asking.version,
            head: Some(asking.head),
            authority: asking.authority,
            changes: asking.changes,
            protocol: asking.protocol,
            body,
            passed,
        }
    }

    /// What it wants of a connection.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { version: self.version, may_upgrade: self.changes, host: self.authority.host() }
    }

    /// The method.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Can another attempt send it whole?
    pub(crate) fn can_be_sent(&self) -> bool {
        self.head.is_some()
            && match &self.body {
                Kept::Nothing => true,
                Kept::Once(payload) => payload.is_some(),
                Kept::Often(keeper) => keeper.is_whole(),
            }
    }

    /// The request for the next attempt, in `version`, as one of `scheme`.
    ///
    /// **Errors**: what was sent once cannot be sent again.
    pub(crate) fn next(&mut self, version: Version, scheme: &Scheme) -> Result<Request<Payload>, Refusal> {
        let gone = || Refusal::new(refusal::UPSTREAM_RESET, "the request cannot be sent again");
        let (head, body) = match &mut self.body {
            Kept::Nothing => (self.head.clone(), Payload::empty()),
            Kept::Often(keeper) => {
                self.passed.bytes.set(0);
                (self.head.clone(), Payload::kept(keeper).counted(Rc::clone(&self.passed)))
            }
            Kept::Once(payload) => (self.head.take(), payload.take().ok_or_else(gone)?),
        };
        let mut head = head.ok_or_else(gone)?;
        self.finish(&mut head, version, scheme);
        Ok(Request::from_parts(head, body))
    }

    /// The request once more, for a mirror; `None` if it goes over to another protocol.
    pub(crate) fn copy(&self) -> Option<(request::Parts, Authority, Payload)> {
        let body = match &self.body {
            Kept::Nothing => Payload::empty(),
            Kept::Often(keeper) => Payload::kept(keeper),
            Kept::Once(_) => return None,
        };
        if self.changes {
            return None;
        }
        Some((self.head.clone()?, self.authority.clone(), body))
    }

    /// Takes back a request of which nothing was sent.
    pub(crate) fn give_back(&mut self, unsent: Option<Box<Request<Payload>>>) {
        if let (Some(unsent), Kept::Once(payload @ None)) = (unsent, &mut self.body) {
            let (head, body) = unsent.into_parts();
            self.head = Some(head);
            *payload = Some(body);
        }
    }

    fn finish(&self, head: &mut request::Parts, version: Version, scheme: &Scheme) {
        headers::address(head, version, &self.authority, scheme);
        if let Some(protocol) = self.protocol.as_ref().filter(|_| version == Version::HTTP_11) {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol.clone());
        }
        // Whether the rest is wanted is answered here, by asking for it.
        head.headers.remove(header::EXPECT);
    }
}
