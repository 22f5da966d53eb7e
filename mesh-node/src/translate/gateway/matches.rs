//! What requests a rule matches.
//!
//! In:  `matches` of HTTPRoutes and GRPCRoutes.
//! Out: [`HttpMatch`]es. A condition that is not understood is left out, and its rule is closed by whoever asks.
//! Source: Gateway API `HTTPRouteMatch`, `GRPCRouteMatch`; of several conditions on one header or parameter the first
//! counts.

use crate::model::http::{HeaderMatch, HttpMatch, PathKind, QueryMatch, RequestMatch, TextMatch};
use crate::translate::read::{Fields, Place};
use crate::translate::text;

#[derive(Clone, Copy)]
enum Comparison {
    Exact,
    Prefix,
    Regex,
}
use Comparison::{Exact, Prefix, Regex};

const TEXT: [(&str, Comparison); 2] = [("Exact", Exact), ("RegularExpression", Regex)];
const METHODS: [(&str, &str); 9] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

/// Every request.
pub(super) fn everything() -> HttpMatch {
    let path = text::path(PathKind::Elements("/".to_owned()));
    HttpMatch { request: RequestMatch { path, ..RequestMatch::default() }, ..HttpMatch::default() }
}

/// The matches of a rule of an HTTPRoute.
pub(super) fn http(list: &Place<'_>) -> Vec<HttpMatch> {
    matches(list, |fields, request| {
        if let Some(mut fields) = fields.take("path").fields() {
            request.path = text::path(path(&mut fields).unwrap_or_default());
        }
        request.method = fields.take("method").choice(&METHODS).map(|method| TextMatch::Exact(method.to_owned()));
        request.headers = headers(&fields.take("headers"));
        request.query = named(&fields.take("queryParams"), |name| Ok(name.to_owned()))
            .into_iter()
            .map(|(name, value)| QueryMatch { name, value })
            .collect();
    })
}

/// The matches of a rule of a GRPCRoute.
pub(super) fn grpc(list: &Place<'_>) -> Vec<HttpMatch> {
    matches(list, |fields, request| {
        if let Some(mut fields) = fields.take("method").fields() {
            request.path = text::path(method(&mut fields).unwrap_or_default());
        }
        request.headers = headers(&fields.take("headers"));
        // Every call is a POST.
        request.method = Some(TextMatch::Exact("POST".to_owned()));
    })
}

fn matches(list: &Place<'_>, mut read: impl FnMut(&mut Fields<'_>, &mut RequestMatch)) -> Vec<HttpMatch> {
    let items = list.items();
    if items.is_empty() {
        return vec![everything()];
    }
    let read_match = |place: &Place<'_>| {
        let mut found = everything();
        if let Some(mut fields) = place.fields() {
            read(&mut fields, &mut found.request);
        }
        found
    };
    items.iter().map(read_match).collect()
}

fn path(fields: &mut Fields<'_>) -> Option<PathKind> {
    let choices = [("Exact", Exact), ("PathPrefix", Prefix), ("RegularExpression", Regex)];
    let kind = fields.take("type");
    let kind = if kind.is_there() { kind.choice(&choices)? } else { Prefix };
    let value = fields.take("value");
    if !value.is_there() {
        return Some(PathKind::Elements("/".to_owned()));
    }
    match kind {
        Exact => value.parse("begin it with a slash", text::absolute).map(PathKind::Exact),
        Prefix => value.parse("begin it with a slash", text::elements).map(PathKind::Elements),
        Regex => value.parse("correct the pattern", text::pattern).map(PathKind::Regex),
    }
}

/// A call's path is `/service/method`.
///
/// **Source**: gRPC over HTTP/2, "Requests".
fn method(fields: &mut Fields<'_>) -> Option<PathKind> {
    let kind = fields.take("type");
    let kind = if kind.is_there() { kind.choice(&TEXT)? } else { Exact };
    let (service, method) = (fields.take("service"), fields.take("method"));
    let (of_service, of_method) = (service.text().filter(|text| !text.is_empty()), method.text());
    let of_method = of_method.filter(|text| !text.is_empty());
    Some(match (kind, of_service, of_method) {
        (_, None, None) => {
            fields.refuse("neither a service nor a method is named", "name one, or remove the match");
            return None;
        }
        (Exact | Prefix, Some(service), Some(method)) => PathKind::Exact(format!("/{service}/{method}")),
        (Exact | Prefix, Some(service), None) => PathKind::Elements(format!("/{service}")),
        (Exact | Prefix, None, Some(method)) => {
            let method: String = method.chars().flat_map(|c| if c == '.' { vec!['\\', c] } else { vec![c] }).collect();
            regex(fields, &format!("/[^/]+/{method}"))?
        }
        (Regex, service, method) => {
            let any = "[^/]+";
            regex(fields, &format!("/(?:{})/(?:{})", service.unwrap_or(any), method.unwrap_or(any)))?
        }
    })
}

fn regex(fields: &Fields<'_>, text: &str) -> Option<PathKind> {
    text::pattern(text).map(PathKind::Regex).map_err(|problem| fields.refuse(problem, "correct the pattern")).ok()
}

fn headers(list: &Place<'_>) -> Vec<HeaderMatch> {
    named(list, text::header_name).into_iter().map(|(name, value)| HeaderMatch { name, value }).collect()
}

/// Comparisons by name, of which the first with a name counts.
fn named<N: PartialEq>(list: &Place<'_>, read: impl Fn(&str) -> Result<N, String>) -> Vec<(N, TextMatch)> {
    let mut found: Vec<(N, TextMatch)> = Vec::new();
    for place in list.items() {
        let Some(mut fields) = place.fields() else { continue };
        let kind = fields.take("type");
        let kind = if kind.is_there() { kind.choice(&TEXT) } else { Some(Exact) };
        let name = fields.take("name").parse("correct the name", &read);
        let value = fields.take("value");
        let value = match kind {
            Some(Regex) => value.parse("correct the pattern", text::regex),
            Some(Exact | Prefix) | None => value.text().map(|text| TextMatch::Exact(text.to_owned())),
        };
        let (Some(name), Some(value)) = (name, value) else { continue };
        if found.iter().all(|(other, _)| *other != name) {
            found.push((name, value));
        }
    }
    found
}
