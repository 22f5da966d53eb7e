//! Cross-origin requests.
//!
//! In:  a rule's [`Cors`], a request's headers.
//! Out: what a preflight is answered, and what is added to a response.
//! Invariant: an origin that does not match gets no permission.
//! Source: the Fetch standard, "CORS protocol"; Gateway API `HTTPCORSFilter`; Istio `CorsPolicy`.

use super::matching::{Asked, is_like};
use crate::model::http::Cors;
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What becomes of a request under a rule with CORS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a preflight: the answer has these headers and no body.
    Answer(HeaderMap),
    /// It goes on; these headers are set on its response.
    Permit(HeaderMap),
    /// It goes on; whatever the upstream says of CORS is its own affair.
    Ignore,
}

/// Judges a request.
#[must_use]
pub fn judge(asked: &Asked<'_>, cors: &Cors) -> Verdict {
    let Some(origin) = asked.headers.get(header::ORIGIN) else { return Verdict::Ignore };
    let permitted = origin.to_str().is_ok_and(|origin| cors.origins.iter().any(|allowed| is_like(origin, allowed)));
    let asks_method = asked.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_preflight = asked.method == Method::OPTIONS && asks_method.is_some();
    if !permitted {
        return if is_preflight && !cors.forward_unmatched {
            Verdict::Answer(HeaderMap::new())
        } else {
            Verdict::Ignore
        };
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if cors.credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if !is_preflight {
        list(&mut headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose);
        return Verdict::Permit(headers);
    }
    // With credentials `*` means a method of that name, so what was asked for is named.
    let named = |list: &[String], asked: Option<&HeaderValue>| match asked.and_then(|asked| asked.to_str().ok()) {
        Some(asked) if cors.credentials && list.iter().any(|one| one == "*") => vec![asked.to_owned()],
        _ => list.to_vec(),
    };
    let asks_headers = asked.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    list(&mut headers, header::ACCESS_CONTROL_ALLOW_METHODS, &named(&cors.methods, asks_method));
    list(&mut headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &named(&cors.headers, asks_headers));
    if let Some(age) = cors.max_age {
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.as_secs()));
    }
    Verdict::Answer(headers)
}

fn list(headers: &mut HeaderMap, name: HeaderName, values: &[String]) {
    if values.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&values.join(", ")) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::http::TextMatch;
    use std::time::Duration;

    fn cors() -> Cors {
        Cors {
            origins: vec![TextMatch::Exact("https://shop.example".into())],
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["x-one".into()],
            expose: vec!["x-two".into()],
            credentials: true,
            max_age: Some(Duration::from_secs(60)),
            forward_unmatched: false,
        }
    }

    fn judged(method: &Method, pairs: &[(&'static str, &'static str)], cors: &Cors) -> Verdict {
        let headers: HeaderMap = pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let asked = Asked { method, scheme: "http", host: "a", path: "/", query: "", headers: &headers };
        judge(&asked, cors)
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_preflight_of_a_known_origin_is_permitted() {
        let preflight = [("origin", "https://shop.example"), ("access-control-request-method", "PUT")];
        let Verdict::Answer(headers) = judged(&Method::OPTIONS, &preflight, &cors()) else { panic!("answered") };
        assert_eq!(
            text(&headers),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: x-one",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-origin: https://shop.example",
                "access-control-max-age: 60",
                "vary: Origin",
            ]
        );
        let any = Cors { methods: vec!["*".into()], ..cors() };
        let Verdict::Answer(headers) = judged(&Method::OPTIONS, &preflight, &any) else { panic!("answered") };
        assert_eq!(headers["access-control-allow-methods"], "PUT");
    }

    #[test]
    fn others_get_no_permission() {
        let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
        assert_eq!(judged(&Method::OPTIONS, &preflight, &cors()), Verdict::Answer(HeaderMap::new()));
        let forward = Cors { forward_unmatched: true, ..cors() };
        assert_eq!(judged(&Method::OPTIONS, &preflight, &forward), Verdict::Ignore);
        assert_eq!(judged(&Method::GET, &[("origin", "https://evil.example")], &cors()), Verdict::Ignore);
        assert_eq!(judged(&Method::GET, &[], &cors()), Verdict::Ignore);
    }

    #[test]
    fn a_plain_request_of_a_known_origin_may_read_its_answer() {
        let Verdict::Permit(headers) = judged(&Method::GET, &[("origin", "https://shop.example")], &cors()) else {
            panic!("permitted")
        };
        assert_eq!(headers["access-control-expose-headers"], "x-two");
        assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
    }
}
