//! What is done to requests on their way.
//!
//! In:  `filters` of rules and backends.
//! Out: [`Filters`].
//! Invariant: a filter that is not understood closes what it belongs to: it may be what protects a backend.
//! Source: Gateway API `HTTPRouteFilter`, `GRPCRouteFilter`; GEP-1767 for CORS.

use super::{Reader, backend};
use crate::model::Reason;
use crate::model::http::{
    Cors, HeaderChanges, HttpFilters, Mirror, PathRewrite, Redirect, RedirectPort, Share, TextMatch,
};
use crate::translate::read::{Fields, Place};
use crate::translate::text;
use crate::world::CustomKind;
use http::{HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// The filters of a rule or backend.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) filters: HttpFilters,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) redirect: Option<Redirect>,
}

/// What filters belong to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Owner {
    Rule,
    Backend,
}

/// The filters that a list holds.
pub(super) fn filters(list: &Place<'_>, owner: Owner, reader: &Reader<'_>) -> Filters {
    let mut found = Filters::default();
    let mut seen: Vec<&str> = Vec::new();
    for place in list.items() {
        let Some(mut fields) = place.fields() else { continue };
        let kind = fields.take("type");
        let Some(word) = kind.text() else {
            kind.refuse("the filter has no type", "give its type");
            fields.abandon();
            continue;
        };
        let mut read = |name: &'static str, type_word: &str, read: &mut dyn FnMut(&Place<'_>)| {
            let place = fields.take(name);
            if place.is_there() {
                read(&place);
            }
            if place.is_there() != (word == type_word) {
                place.refuse(
                    format!("a filter of type {word} has the field of its type, and no other"),
                    "let type and field agree",
                );
            }
        };
        read("requestHeaderModifier", "RequestHeaderModifier", &mut |place| {
            found.filters.request_headers = headers(place);
        });
        read("responseHeaderModifier", "ResponseHeaderModifier", &mut |place| {
            found.filters.response_headers = headers(place);
        });
        // Those that a backend does not have.
        let mut read_of_rule = |name: &'static str, type_word: &str, of_rule: &mut dyn FnMut(&Place<'_>)| {
            read(name, type_word, &mut |place| match owner {
                Owner::Rule => of_rule(place),
                Owner::Backend => place.unsupported("let the rule have the filter"),
            });
        };
        read_of_rule("requestMirror", "RequestMirror", &mut |place| found.mirrors.extend(mirror(place, reader)));
        if reader.kind == CustomKind::HttpRoute {
            read_of_rule("requestRedirect", "RequestRedirect", &mut |place| found.redirect = redirect(place));
            read_of_rule("urlRewrite", "URLRewrite", &mut |place| rewrite(place, &mut found.filters));
            read_of_rule("cors", "CORS", &mut |place| found.filters.cors = cors(place));
            read("externalAuth", "ExternalAuth", &mut |place| place.unsupported("authorize by policy"));
        }
        read("extensionRef", "ExtensionRef", &mut |place| place.unsupported("no extension is known; remove it"));
        let known = [
            "RequestHeaderModifier",
            "ResponseHeaderModifier",
            "RequestMirror",
            "RequestRedirect",
            "URLRewrite",
            "CORS",
            "ExternalAuth",
            "ExtensionRef",
        ];
        if !known.contains(&word) {
            kind.refuse(format!("`{word}` is no filter that is known"), "remove it");
        }
        if word != "RequestMirror" && word != "ExtensionRef" && seen.contains(&word) {
            kind.refuse(format!("{word} is there twice"), "put both into one");
        }
        seen.push(word);
    }
    if found.redirect.is_some() && found.filters.rewrite != crate::model::http::Rewrite::default() {
        let problem = "a request cannot both be redirected and be rewritten";
        list.log().refuse_because(Reason::IncompatibleFilters, list.path(), problem, "remove one of them");
    }
    found
}

fn headers(place: &Place<'_>) -> HeaderChanges {
    let Some(mut fields) = place.fields() else { return HeaderChanges::default() };
    let set = named(&fields.take("set"));
    let add = named(&fields.take("add"));
    let remove = fields.take("remove").items();
    let remove = remove.iter().filter_map(|place| place.parse("correct the name", text::header_name)).collect();
    HeaderChanges { set, add, remove }
}

/// Headers, of which the first with a name counts.
fn named(list: &Place<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut found: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for place in list.items() {
        let Some(mut fields) = place.fields() else { continue };
        let name = fields.take("name").parse("correct the name", text::header_name);
        let value = fields.take("value").parse("correct the value", text::header_value);
        if let (Some(name), Some(value)) = (name, value)
            && found.iter().all(|(other, _)| *other != name)
        {
            found.push((name, value));
        }
    }
    found
}

fn mirror(place: &Place<'_>, reader: &Reader<'_>) -> Option<Mirror> {
    let mut fields = place.fields()?;
    let target = backend::target(&mut fields.take("backendRef").fields()?, reader);
    let percent = fields.take("percent");
    let mut share = percent.percent().map_or(Share::ALL, |parts| Share { parts });
    let fraction = fields.take("fraction");
    if let Some(mut of) = fraction.fields() {
        let numerator = of.take("numerator").number(0, u32::MAX).unwrap_or_default();
        let denominator = of.take("denominator").number(1, u32::MAX).unwrap_or(100);
        if numerator > denominator {
            fraction.refuse("it is more than one", "let the numerator be at most the denominator");
        }
        let parts = u64::from(numerator) * u64::from(Share::ALL.parts) / u64::from(denominator);
        share = Share { parts: u32::try_from(parts).unwrap_or(Share::ALL.parts).min(Share::ALL.parts) };
        if percent.is_there() {
            fraction.refuse("a percentage is given too", "remove one of them");
        }
    }
    Some(Mirror { target, share })
}

fn redirect(place: &Place<'_>) -> Option<Redirect> {
    let mut fields = place.fields()?;
    let scheme = fields.take("scheme").choice(&[("http", "http"), ("https", "https")]).map(str::to_owned);
    let host = fields.take("hostname").text().map(str::to_owned);
    let path = fields.take("path").fields().and_then(|mut fields| path(&mut fields));
    let port = fields.take("port").port().map_or(RedirectPort::Derived, RedirectPort::Port);
    let status = fields.take("statusCode");
    let code = status.number(300, 399).and_then(|code| u16::try_from(code).ok()).unwrap_or(302);
    if !matches!(code, 301 | 302 | 303 | 307 | 308) {
        status.refuse(format!("{code} is no redirect that is supported"), "use 301, 302, 303, 307 or 308");
    }
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::FOUND);
    Some(Redirect { scheme, host, port, path, status })
}

fn rewrite(place: &Place<'_>, filters: &mut HttpFilters) {
    let Some(mut fields) = place.fields() else { return };
    filters.rewrite.authority = fields.take("hostname").parse("give a host name", |name| {
        if text::is_host(name) { text::header_value(name) } else { Err(format!("`{name}` is no host name")) }
    });
    filters.rewrite.path = fields.take("path").fields().and_then(|mut fields| path(&mut fields));
}

fn path(fields: &mut Fields<'_>) -> Option<PathRewrite> {
    let kind = fields.take("type").choice(&[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)]);
    let (full, prefix) = (fields.take("replaceFullPath"), fields.take("replacePrefixMatch"));
    let (full_text, prefix_text) = (full.text(), prefix.text());
    match (kind?, full_text, prefix_text) {
        (true, Some(text), _) => Some(PathRewrite::Full(text.to_owned())),
        (false, _, Some(text)) => Some(PathRewrite::Prefix(text.to_owned())),
        (true, None, _) | (false, _, None) => {
            fields.refuse("what replaces is missing", "give the field of the type");
            None
        }
    }
}

fn cors(place: &Place<'_>) -> Option<Cors> {
    let mut fields = place.fields()?;
    let list = |place: Place<'_>| place.texts().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let origins = fields.take("allowOrigins").items();
    Some(Cors {
        origins: origins.iter().filter_map(|place| place.parse("correct the origin", origin)).collect(),
        credentials: fields.take("allowCredentials").bool().unwrap_or_default(),
        methods: list(fields.take("allowMethods")),
        headers: list(fields.take("allowHeaders")),
        expose: list(fields.take("exposeHeaders")),
        max_age: Some(Duration::from_secs(fields.take("maxAge").number(1, u32::MAX).unwrap_or(5).into())),
        forward_unmatched: false,
    })
}

/// An origin; a star stands for any host, or for the first labels of one.
fn origin(origin: &str) -> Result<TextMatch, String> {
    if origin == "*" {
        return Ok(TextMatch::Present);
    }
    let Some((before, after)) = origin.split_once('*') else { return Ok(TextMatch::Exact(origin.to_owned())) };
    let literal = |text: &str| {
        text.chars().map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") }).collect::<String>()
    };
    text::regex(&format!("{}[^/:]*{}", literal(before), literal(after)))
}
