//! One rule of a route.
//!
//! In:  an item of `rules`.
//! Out: an [`HttpRule`]; one that is not understood answers 500.
//! Source: Gateway API `HTTPRouteRule`, `GRPCRouteRule`; GEP-1731, "retry": what never came to a response is retried
//! beside the codes that are listed.

use super::{Reader, backend, filter, matches};
use crate::model::http::{HttpAction, HttpFilters, HttpRule, HttpTarget, PathKind, PathRewrite, Retry, RetryOn};
use crate::translate::read::Place;
use crate::world::CustomKind;
use http::StatusCode;
use std::sync::Arc;

/// What is done to requests that a rule matches which is not understood.
pub(super) fn refusal() -> HttpAction {
    HttpAction {
        filters: Arc::default(),
        mirrors: Vec::new(),
        target: HttpTarget::Respond { status: StatusCode::INTERNAL_SERVER_ERROR, body: String::new() },
    }
}

/// The rule of a route that lists none: it matches everything, and has no backend.
pub(super) fn default() -> HttpRule {
    let action = HttpAction { filters: Arc::default(), mirrors: Vec::new(), target: HttpTarget::Backends(Vec::new()) };
    HttpRule { name: String::new(), matches: vec![matches::everything()], action }
}

/// The rule that an item of `rules` is.
pub(super) fn rule(place: &Place<'_>, reader: &Reader<'_>) -> HttpRule {
    let (mut rule, is_clear) = place.log().part(|| read(place, reader));
    if !is_clear {
        rule.action = refusal();
    }
    rule
}

fn read(place: &Place<'_>, reader: &Reader<'_>) -> HttpRule {
    let Some(mut fields) = place.fields() else { return default() };
    let name = fields.take("name").text().unwrap_or_default().to_owned();
    let is_grpc = reader.kind == CustomKind::GrpcRoute;
    let matched = fields.take("matches");
    let matches = if is_grpc { matches::grpc(&matched) } else { matches::http(&matched) };
    let found = filter::filters(&fields.take("filters"), filter::Owner::Rule, reader);
    let to = fields.take("backendRefs");
    let backends = backend::backends(&to, reader);
    let mut filters = found.filters;
    if !is_grpc {
        timeouts(&fields.take("timeouts"), &mut filters);
        filters.retry = retry(&fields.take("retry"));
    }
    fields.take("sessionPersistence").unsupported("use a DestinationRule with consistentHash");
    let rewritten = [&filters.rewrite.path, &found.redirect.as_ref().and_then(|redirect| redirect.path.clone())]
        .into_iter()
        .any(|path| matches!(path, Some(PathRewrite::Prefix(_))));
    let is_prefix = |path: &PathKind| matches!(path, PathKind::Elements(_));
    if rewritten && !matches.iter().all(|found| is_prefix(&found.request.path.kind)) {
        place.refuse("a prefix is replaced where no prefix is matched", "match the path by PathPrefix");
    }
    let target = match found.redirect {
        Some(redirect) => {
            if !backends.is_empty() {
                place.refuse("a rule cannot both redirect and have backends", "remove one of them");
            }
            HttpTarget::Redirect(redirect)
        }
        None => {
            if backends.is_empty() {
                to.note("there are none; requests are answered 500", "name a backend, or redirect");
            }
            HttpTarget::Backends(backends)
        }
    };
    HttpRule { name, matches, action: HttpAction { filters: Arc::new(filters), mirrors: found.mirrors, target } }
}

fn timeouts(place: &Place<'_>, filters: &mut HttpFilters) {
    let Some(mut fields) = place.fields() else { return };
    // Zero is no limit.
    let limit = |place: &Place<'_>| place.duration().filter(|limit| !limit.is_zero());
    filters.request_timeout = limit(&fields.take("request"));
    filters.attempt_timeout = limit(&fields.take("backendRequest"));
    if let (Some(request), Some(attempt)) = (filters.request_timeout, filters.attempt_timeout)
        && attempt > request
    {
        fields.refuse("an attempt may take longer than the request", "give `request` at least as much time");
    }
}

fn retry(place: &Place<'_>) -> Option<Retry> {
    let mut fields = place.fields()?;
    let codes = fields.take("codes").items();
    let codes = codes.iter().filter_map(|code| code.number(400, 599)).filter_map(|code| u16::try_from(code).ok());
    let mut on = vec![RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Reset];
    on.extend(codes.map(RetryOn::Status));
    let attempts = fields.take("attempts").number(0, 1_000).unwrap_or(1);
    let backoff = fields.take("backoff").duration().filter(|backoff| !backoff.is_zero());
    Some(Retry { attempts, on, backoff })
}
