//! What requests a rule matches.
//!
//! In:  `http[].match`.
//! Out: [`HttpMatch`]es. A condition that is not understood is left out, and its rule is closed by whoever asks.
//! Source: Istio `HTTPMatchRequest`, `StringMatch`.

use super::virtual_service::{Reader, gateways};
use crate::model::Text;
use crate::model::http::{
    ClientMatch, HeaderMatch, HttpMatch, HttpRule, MatchScope, PathKind, PathMatch, PathRewrite, QueryMatch,
    RequestMatch, TextMatch,
};
use crate::translate::read::{Fields, Place};
use crate::translate::text;

/// The matches of a rule; none matches everything.
pub(super) fn matches(list: &Place<'_>, reader: &Reader<'_>) -> Vec<HttpMatch> {
    list.items().iter().map(|place| http_match(place, reader).unwrap_or_default()).collect()
}

fn http_match(place: &Place<'_>, reader: &Reader<'_>) -> Option<HttpMatch> {
    let mut fields = place.fields()?;
    fields.take("name").immaterial();
    fields.take("statPrefix").ignored("metrics have Istio's standard labels");
    let ignore_case = fields.take("ignoreUriCase").bool().unwrap_or_default();
    let path = match string_match(&fields.take("uri")) {
        Some(TextMatch::Exact(text)) => PathKind::Exact(text),
        Some(TextMatch::Prefix(text)) => PathKind::Prefix(text),
        Some(TextMatch::Regex(pattern)) => PathKind::Regex(pattern),
        Some(TextMatch::Present | TextMatch::Never) | None => PathKind::Any,
    };
    let request = RequestMatch {
        path: PathMatch { kind: path, ignore_case },
        method: string_match(&fields.take("method")),
        headers: headers(&fields.take("headers")),
        without_headers: headers(&fields.take("withoutHeaders")),
        query: query(&fields.take("queryParams")),
        authority: string_match(&fields.take("authority")),
        scheme: string_match(&fields.take("scheme")),
    };
    Some(HttpMatch { request, scope: scope(&mut fields, reader) })
}

/// Where and for whom a match holds.
pub(super) fn scope(fields: &mut Fields<'_>, reader: &Reader<'_>) -> MatchScope {
    let namespace = fields.take("sourceNamespace").text().filter(|text| !text.is_empty()).map(Text::from);
    let clients = ClientMatch { namespace, labels: fields.take("sourceLabels").labels() };
    let port = fields.take("port").port();
    MatchScope { port, clients, gateways: gateways(&fields.take("gateways"), reader.namespace) }
}

/// The comparison that a `StringMatch` is; `None` if it is absent. One without a comparison asks for presence.
pub(super) fn string_match(place: &Place<'_>) -> Option<TextMatch> {
    let mut fields = place.fields()?;
    let exact = fields.take("exact").text().map(|text| TextMatch::Exact(text.to_owned()));
    let prefix = fields.take("prefix").text().map(|text| TextMatch::Prefix(text.to_owned()));
    let regex = fields.take("regex").parse("correct the pattern", text::regex);
    let mut found = [exact, prefix, regex].into_iter().flatten();
    let first = found.next();
    if found.next().is_some() {
        place.refuse("there is more than one comparison", "keep one");
    }
    Some(first.unwrap_or(TextMatch::Present))
}

fn headers(map: &Place<'_>) -> Vec<HeaderMatch> {
    let mut headers = Vec::new();
    for (name, place) in map.entries() {
        let value = string_match(&place).unwrap_or(TextMatch::Present);
        match text::header_name(name) {
            Ok(name) => headers.push(HeaderMatch { name, value }),
            Err(problem) => place.refuse(problem, "match the method, the path, the authority and the scheme by fields"),
        }
    }
    headers
}

fn query(map: &Place<'_>) -> Vec<QueryMatch> {
    let entry = |(name, place): (&str, Place<'_>)| {
        let value = string_match(&place).unwrap_or(TextMatch::Present);
        QueryMatch { name: name.to_owned(), value }
    };
    map.entries().into_iter().map(entry).collect()
}

/// Gives matches of every path something that a rewritten prefix replaces: the slash that each begins with.
pub(super) fn cover(rule: &mut HttpRule) {
    if !matches!(rule.action.filters.rewrite.path, Some(PathRewrite::RawPrefix(_))) {
        return;
    }
    if rule.matches.is_empty() {
        rule.matches.push(HttpMatch::default());
    }
    for found in &mut rule.matches {
        if found.request.path.kind == PathKind::Any {
            found.request.path.kind = PathKind::Prefix("/".to_owned());
        }
    }
}
