//! What a service's port speaks, as the service says.
//!
//! In:  a port's `appProtocol` and name.
//! Out: an `AppProtocol`.
//! Invariant: pure; `appProtocol` comes before the name, as both APIs demand.
//! Source: Kubernetes `ServicePort.appProtocol` and KEP-3726 (its standard values); Istio, "Protocol selection":
//! a name is `<protocol>` or `<protocol>-<suffix>`.

use crate::model::http::AppProtocol;

/// What a port of this `appProtocol` (empty if absent) and name speaks.
pub(in crate::translate) fn of_port(app_protocol: &str, name: &str) -> AppProtocol {
    if !app_protocol.is_empty() {
        return by_word(app_protocol.strip_prefix("kubernetes.io/").unwrap_or(app_protocol));
    }
    // The one protocol whose own name has a hyphen.
    let word = if is_word(name, "grpc-web") { "grpc-web" } else { name.split('-').next().unwrap_or_default() };
    by_word(word)
}

fn is_word(name: &str, word: &str) -> bool {
    let name = name.as_bytes();
    name.len() >= word.len()
        && name[..word.len()].eq_ignore_ascii_case(word.as_bytes())
        && matches!(name.get(word.len()), None | Some(b'-'))
}

fn by_word(word: &str) -> AppProtocol {
    match word.to_ascii_lowercase().as_str() {
        "http" | "ws" | "grpc-web" => AppProtocol::Http,
        "http2" | "h2c" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" | "wss" | "mongo" | "mysql" | "redis" => AppProtocol::Opaque,
        "tls" | "https" => AppProtocol::Tls,
        _ => AppProtocol::Undeclared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_before_the_hyphen_counts_unless_the_port_says_it_itself() {
        use AppProtocol::{Grpc, Http, Http2, Opaque, Tls, Undeclared};
        for (app_protocol, name, expected) in [
            ("", "http", Http),
            ("", "HTTP-web", Http),
            ("", "http2-api", Http2),
            ("", "grpc", Grpc),
            ("", "grpc-web-ui", Http),
            ("", "grpc-website", Grpc),
            ("", "https", Tls),
            ("", "tls-mail", Tls),
            ("", "mongo", Opaque),
            ("", "tcp-9090", Opaque),
            ("", "httpx", Undeclared),
            ("", "metrics", Undeclared),
            ("", "", Undeclared),
            ("http", "tcp", Http),
            ("kubernetes.io/h2c", "http", Http2),
            ("kubernetes.io/ws", "", Http),
            ("kubernetes.io/wss", "", Opaque),
            ("grpc", "http", Grpc),
            ("example.com/own", "http", Undeclared),
        ] {
            assert_eq!(of_port(app_protocol, name), expected, "{app_protocol} {name}");
        }
    }
}
