//! Who spoke with whom, from the daemons' own metrics.
//!
//! In:  the text of `/metrics` of both daemons.
//! Out: one [`Edge`] for each pair of workloads and way of protection, and a table of them.
//! Invariant: an edge is what the destination's daemon reports, for only that one saw the client's certificate;
//! bytes are the application's, not those on the wire.
//! Source: Istio "Standard Metrics"; the Prometheus text format.

use std::collections::BTreeMap;

/// Tells one edge from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) source_identity: String,
    pub(crate) destination_identity: String,
    pub(crate) security: String,
}

/// What went over an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    /// Requests of HTTP, and connections of anything else.
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Key {
    pub(crate) fn encrypted(&self) -> bool {
        self.security == "mutual_tls"
    }
}

/// The edges in these texts, as the destinations report them.
pub(crate) fn edges(texts: &[String]) -> BTreeMap<Key, Edge> {
    let mut edges: BTreeMap<Key, Edge> = BTreeMap::new();
    for (name, labels, value) in texts.iter().flat_map(|text| text.lines()).filter_map(series) {
        if labels.get("reporter").map(String::as_str) != Some("destination") {
            continue;
        }
        let label = |key: &str| labels.get(key).cloned().unwrap_or_else(|| "unknown".to_owned());
        let key = Key {
            source: label("source_workload"),
            destination: label("destination_workload"),
            source_identity: label("source_principal"),
            destination_identity: label("destination_principal"),
            security: label("connection_security_policy"),
        };
        let edge = edges.entry(key);
        match name {
            "istio_requests_total" | "istio_tcp_connections_opened_total" => edge.or_default().requests += value,
            "istio_tcp_connections_failed_total" => edge.or_default().refused += value,
            "istio_request_bytes_sum" | "istio_tcp_received_bytes_total" => edge.or_default().bytes_in += value,
            "istio_response_bytes_sum" | "istio_tcp_sent_bytes_total" => edge.or_default().bytes_out += value,
            _ => {}
        }
    }
    edges
}

/// The edges for people.
pub(crate) fn table(edges: &BTreeMap<Key, Edge>) -> Vec<[String; 8]> {
    let head = ["from", "to", "protection", "client is", "server is", "requests", "bytes in", "bytes out"];
    let mut rows = vec![head.map(str::to_owned)];
    for (key, edge) in edges {
        let protection = match key.security.as_str() {
            "mutual_tls" => "mutual TLS",
            "none" => "plain text",
            other => other,
        };
        let refused = if edge.refused > 0 { format!(" ({} refused)", edge.refused) } else { String::new() };
        rows.push([
            key.source.clone(),
            key.destination.clone(),
            protection.to_owned(),
            short(&key.source_identity),
            short(&key.destination_identity),
            format!("{}{refused}", edge.requests),
            bytes(edge.bytes_in),
            bytes(edge.bytes_out),
        ]);
    }
    rows
}

/// An identity without the trust domain; it is printed in full elsewhere.
fn short(identity: &str) -> String {
    match identity.split_once("/ns/") {
        Some((_, rest)) => rest.replacen("/sa/", "/", 1),
        None => "-".to_owned(),
    }
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let number = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", number / 1e3),
        _ => format!("{:.1} MB", number / 1e6),
    }
}

type Series<'a> = (&'a str, BTreeMap<String, String>, u64);

/// One line of the text format, if it is a sample with labels.
fn series(line: &str) -> Option<Series<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, rest) = line.split_once('{')?;
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(value) = rest.strip_prefix('}') {
            let value = value.split_whitespace().next()?;
            return Some((name, labels, value.split('.').next()?.parse().ok()?));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.insert(key.to_owned(), value);
        rest = after;
    }
}

/// A label's value up to its closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, reporter: &str, value: &str) -> String {
        format!(
            "{name}{{reporter=\"{reporter}\",source_workload=\"a\",destination_workload=\"b\",\
             source_principal=\"spiffe://cluster.local/ns/n/sa/a\",destination_principal=\"x\\\"}},\\\\\",\
             connection_security_policy=\"mutual_tls\"}} {value}\n"
        )
    }

    #[test]
    fn edges_are_what_destinations_report() {
        let a = line("istio_tcp_connections_opened_total", "destination", "3")
            + &line("istio_tcp_connections_opened_total", "source", "9")
            + &line("istio_tcp_sent_bytes_total", "destination", "100.0 1700000000.1")
            + "# TYPE other counter\nother 4\n";
        let edges = edges(&[a.clone(), a]);
        let (key, edge) = edges.iter().next().unwrap();
        assert_eq!(edge, &Edge { requests: 6, refused: 0, bytes_in: 0, bytes_out: 200 });
        assert_eq!(key.destination_identity, "x\"},\\");
        assert!(key.encrypted() && edges.len() == 1);
        assert_eq!(table(&edges)[1][3], "n/a");
    }

    #[test]
    fn broken_lines_are_left_out() {
        for text in ["a{b=\"c", "a{b=\"c\"} x", "a{b}", "a{"] {
            assert!(series(text).is_none(), "{text}");
        }
    }
}
