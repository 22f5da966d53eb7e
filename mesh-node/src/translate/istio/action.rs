//! What becomes of requests that a rule matches.
//!
//! In:  the fields of `http[]` other than `match`.
//! Out: an [`HttpAction`].
//! Source: Istio `HTTPRoute` and its parts; Envoy's words for what is worth another attempt.

use super::http_match::string_match;
use super::{host, virtual_service::Reader};
use crate::model::http::{
    Backend, Cors, Fault, HeaderChanges, HttpAction, HttpFilters, HttpTarget, Mirror, PathRewrite, Redirect,
    RedirectPort, Retry, RetryOn, Rewrite, Share,
};
use crate::translate::read::{Fields, Place};
use crate::translate::text;
use http::{HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;

/// What is worth another attempt where nothing is said.
const RETRIED: [RetryOn; 5] =
    [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Grpc(14), RetryOn::Grpc(1), RetryOn::Status(503)];

/// What is done to requests of a rule that is not understood.
pub(super) fn refusal() -> HttpAction {
    HttpAction {
        filters: Arc::default(),
        mirrors: Vec::new(),
        target: HttpTarget::Respond { status: StatusCode::INTERNAL_SERVER_ERROR, body: String::new() },
    }
}

/// The action of a rule.
pub(super) fn action(fields: &mut Fields<'_>, reader: &Reader<'_>) -> HttpAction {
    let backends = backends(&fields.take("route"), reader);
    let redirect = redirect(&fields.take("redirect"));
    let respond = direct_response(&fields.take("directResponse"));
    fields.take("delegate").unsupported("put the rules of the delegate into this object");
    let (request_headers, response_headers) = headers(&fields.take("headers"));
    let mut filters = HttpFilters {
        fault: fault(&fields.take("fault")),
        request_headers,
        response_headers,
        rewrite: rewrite(&fields.take("rewrite")),
        cors: cors(&fields.take("corsPolicy")),
        request_timeout: fields.take("timeout").duration().filter(|limit| !limit.is_zero()),
        attempt_timeout: None,
        retry: None,
    };
    retries(&fields.take("retries"), &mut filters);
    let mirrors = mirrors(fields, reader);
    let mut targets =
        [(!backends.is_empty()).then_some(HttpTarget::Backends(backends)), redirect.map(HttpTarget::Redirect), respond]
            .into_iter()
            .flatten();
    let target = targets.next().unwrap_or_else(|| {
        fields.refuse("nothing says where requests go", "give `route`, `redirect` or `directResponse`");
        refusal().target
    });
    if targets.next().is_some() {
        fields.refuse("`route`, `redirect` and `directResponse` exclude each other", "keep one");
    }
    HttpAction { filters: Arc::new(filters), mirrors, target }
}

fn backends(list: &Place<'_>, reader: &Reader<'_>) -> Vec<Backend> {
    let items = list.items();
    let backend = |place: &Place<'_>| {
        let mut fields = place.fields()?;
        let weight = host::weight(&fields.take("weight"), items.len());
        let target = host::destination(&fields.take("destination"), reader.namespace, reader.domain);
        let (request_headers, response_headers) = headers(&fields.take("headers"));
        Some(Backend { weight, target, request_headers, response_headers })
    };
    items.iter().filter_map(backend).collect()
}

fn mirrors(fields: &mut Fields<'_>, reader: &Reader<'_>) -> Vec<Mirror> {
    let mirror = fields.take("mirror");
    let old = [fields.take("mirrorPercent"), fields.take("mirror_percent")].map(|place| place.percent());
    let share = percentage(&fields.take("mirrorPercentage"));
    let share = share.or_else(|| old.into_iter().flatten().next().map(|parts| Share { parts })).unwrap_or(Share::ALL);
    let mut mirrors = Vec::new();
    if mirror.is_there() {
        mirrors.push(Mirror { target: host::destination(&mirror, reader.namespace, reader.domain), share });
    }
    for place in fields.take("mirrors").items() {
        let Some(mut fields) = place.fields() else { continue };
        let target = host::destination(&fields.take("destination"), reader.namespace, reader.domain);
        let share = percentage(&fields.take("percentage")).unwrap_or(Share::ALL);
        mirrors.push(Mirror { target, share });
    }
    mirrors.retain(|mirror| mirror.share != Share::NONE);
    mirrors
}

/// `{value: ...}`.
fn percentage(place: &Place<'_>) -> Option<Share> {
    let mut fields = place.fields()?;
    Some(Share { parts: fields.take("value").percent().unwrap_or_default() })
}

fn fault(place: &Place<'_>) -> Fault {
    let mut fault = Fault::default();
    let Some(mut fields) = place.fields() else { return fault };
    if let Some(mut fields) = fields.take("delay").fields() {
        let old = fields.take("percent").percent().map(|parts| Share { parts });
        let share = percentage(&fields.take("percentage")).or(old).unwrap_or(Share::NONE);
        fields.take("exponentialDelay").unsupported("use fixedDelay");
        fault.delay = fields.take("fixedDelay").duration().map(|delay| (delay, share));
    }
    if let Some(mut fields) = fields.take("abort").fields() {
        let share = percentage(&fields.take("percentage")).unwrap_or(Share::NONE);
        fields.take("grpcStatus").unsupported("use httpStatus");
        fields.take("http2Error").unsupported("use httpStatus");
        fault.abort = status(&fields.take("httpStatus")).map(|status| (status, share));
    }
    fault
}

fn status(place: &Place<'_>) -> Option<StatusCode> {
    let code = place.number(200, 599)?;
    u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok())
}

fn headers(place: &Place<'_>) -> (HeaderChanges, HeaderChanges) {
    let Some(mut fields) = place.fields() else { return Default::default() };
    (changes(&fields.take("request")), changes(&fields.take("response")))
}

fn changes(place: &Place<'_>) -> HeaderChanges {
    let Some(mut fields) = place.fields() else { return HeaderChanges::default() };
    let remove = fields.take("remove").items();
    HeaderChanges {
        set: values(&fields.take("set")),
        add: values(&fields.take("add")),
        remove: remove.iter().filter_map(|place| place.parse("correct the name", text::header_name)).collect(),
    }
}

fn values(map: &Place<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut found = Vec::new();
    for (name, place) in map.entries() {
        let value = place.parse("give a value that is meant as it stands", value);
        match text::header_name(name) {
            Ok(name) => found.extend(value.map(|value| (name, value))),
            Err(problem) => place.refuse(problem, "change the authority and the path by `rewrite`"),
        }
    }
    found
}

/// A header's value. Envoy replaces what stands between percent signs, which only a doubled one does not mean.
fn value(text: &str) -> Result<HeaderValue, String> {
    let plain = text.replace("%%", "");
    if plain.contains('%') {
        return Err(format!("`{text}` has a part that is to be replaced, which is not supported"));
    }
    text::header_value(&text.replace("%%", "%"))
}

fn rewrite(place: &Place<'_>) -> Rewrite {
    let Some(mut fields) = place.fields() else { return Rewrite::default() };
    let prefix = fields.take("uri").text().filter(|text| !text.is_empty());
    let authority = fields.take("authority").parse("give a host name", text::header_value);
    let mut path = prefix.map(|text| PathRewrite::RawPrefix(text.to_owned()));
    if let Some(mut fields) = fields.take("uriRegexRewrite").fields() {
        let pattern = fields.take("match").parse("correct the pattern", text::pattern);
        let substitution = fields.take("rewrite").text().unwrap_or_default().to_owned();
        if path.is_some() {
            fields.refuse("`uri` is there too", "keep one");
        }
        path = pattern.map(|pattern| PathRewrite::Regex { pattern, substitution });
    }
    Rewrite { path, authority: authority.filter(|authority| !authority.is_empty()) }
}

fn redirect(place: &Place<'_>) -> Option<Redirect> {
    let mut fields = place.fields()?;
    let uri = fields.take("uri").text().filter(|text| !text.is_empty());
    fields.take("prefixRewrite").unsupported("use `uri`");
    let authority = fields.take("authority").text().filter(|text| !text.is_empty());
    let given = fields.take("port").port();
    let words = [("FROM_PROTOCOL_DEFAULT", RedirectPort::Implied), ("FROM_REQUEST_PORT", RedirectPort::Request)];
    let derived = fields.take("derivePort").choice(&words);
    let scheme = fields.take("scheme").choice(&[("http", "http"), ("https", "https"), ("", "")]);
    let status = fields.take("redirectCode").number(0, 399).filter(|code| *code != 0).unwrap_or(301);
    let status = u16::try_from(status).ok().filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
    if status.is_none() {
        fields.refuse("the status is no redirect", "use 301, 302, 303, 307 or 308");
    }
    let (host, port) = match authority.and_then(|text| text.rsplit_once(':')) {
        Some((host, port)) if port.parse::<u16>().is_ok() => (Some(host), port.parse().ok()),
        Some(_) | None => (authority, None),
    };
    let unnamed = if host.is_some() { RedirectPort::Implied } else { RedirectPort::Request };
    Some(Redirect {
        scheme: scheme.filter(|scheme| !scheme.is_empty()).map(str::to_owned),
        host: host.map(str::to_owned),
        port: given.or(port).map(RedirectPort::Port).or(derived).unwrap_or(unnamed),
        path: uri.map(|text| PathRewrite::Full(text.to_owned())),
        status: status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::MOVED_PERMANENTLY),
    })
}

fn direct_response(place: &Place<'_>) -> Option<HttpTarget> {
    let mut fields = place.fields()?;
    let status = status(&fields.take("status"));
    let mut body = String::new();
    if let Some(mut fields) = fields.take("body").fields() {
        body = fields.take("string").text().unwrap_or_default().to_owned();
        fields.take("bytes").unsupported("use `string`");
    }
    Some(HttpTarget::Respond { status: status?, body })
}

fn cors(place: &Place<'_>) -> Option<Cors> {
    let mut fields = place.fields()?;
    let texts = |place: Place<'_>| place.texts().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let old = texts(fields.take("allowOrigin")).into_iter().map(|origin| {
        if origin == "*" {
            crate::model::http::TextMatch::Present
        } else {
            crate::model::http::TextMatch::Exact(origin)
        }
    });
    let mut origins: Vec<_> = old.collect();
    origins.extend(fields.take("allowOrigins").items().iter().filter_map(string_match));
    let words = [("FORWARD", true), ("IGNORE", false), ("UNSPECIFIED", true)];
    Some(Cors {
        origins,
        methods: texts(fields.take("allowMethods")),
        headers: texts(fields.take("allowHeaders")),
        expose: texts(fields.take("exposeHeaders")),
        credentials: fields.take("allowCredentials").bool().unwrap_or_default(),
        max_age: fields.take("maxAge").duration(),
        forward_unmatched: fields.take("unmatchedPreflights").choice(&words).unwrap_or(true),
    })
}

fn retries(place: &Place<'_>, filters: &mut HttpFilters) {
    let Some(mut fields) = place.fields() else { return };
    // Absent is zero, which means that nothing is repeated.
    let attempts = fields.take("attempts").number(0, 1_000).unwrap_or_default();
    filters.attempt_timeout = fields.take("perTryTimeout").duration().filter(|limit| !limit.is_zero());
    let on = fields.take("retryOn").parse("use the words of Envoy's x-envoy-retry-on, or statuses", retry_on);
    let backoff = fields.take("backoff").duration().filter(|backoff| !backoff.is_zero());
    fields.take("retryRemoteLocalities").ignored("every endpoint may take a repetition");
    fields.take("retryIgnorePreviousHosts").ignored("endpoints that failed are avoided while there are others");
    let on = on.filter(|on| !on.is_empty()).unwrap_or_else(|| RETRIED.to_vec());
    filters.retry = Some(Retry { attempts, on, backoff });
}

fn retry_on(text: &str) -> Result<Vec<RetryOn>, String> {
    let mut on = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        on.push(match word {
            "5xx" => RetryOn::ServerError,
            "gateway-error" => RetryOn::GatewayError,
            "connect-failure" => RetryOn::ConnectFailure,
            "reset" => RetryOn::Reset,
            "reset-before-request" => RetryOn::ResetBeforeRequest,
            "refused-stream" => RetryOn::RefusedStream,
            "retriable-4xx" => RetryOn::Conflict,
            "cancelled" => RetryOn::Grpc(1),
            "deadline-exceeded" => RetryOn::Grpc(4),
            "resource-exhausted" => RetryOn::Grpc(8),
            "internal" => RetryOn::Grpc(13),
            "unavailable" => RetryOn::Grpc(14),
            // The statuses stand beside it.
            "retriable-status-codes" => continue,
            _ => match word.parse::<u16>() {
                Ok(status @ 100..=599) => RetryOn::Status(status),
                Ok(_) | Err(_) => return Err(format!("`{word}` is nothing that is repeated on")),
            },
        });
    }
    Ok(on)
}
