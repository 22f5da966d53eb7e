use super::*;
use crate::telemetry::edges::tests::between;
use crate::telemetry::{Metrics, Security, Side};
use ::http::HeaderValue;
use expect_test::expect;
use std::collections::BTreeSet;
use std::mem::size_of;

fn answered(status: u16) -> HttpEdgeLabels {
    HttpEdgeLabels { edge: between("productpage", "reviews"), protocol: Protocol::Http, status, grpc: None }
}

fn encoded(metrics: &Metrics) -> String {
    metrics.encode().expect("metrics are written")
}

/// The samples of `family`, without the labels that are the same for all edges.
fn samples(text: &str, family: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| line.starts_with(family)) {
        let (name, rest) = line.split_once('{').expect("labels");
        let (labels, value) = rest.rsplit_once("} ").expect("a value");
        let of_answer = |label: &&str| {
            ["le=", "request_protocol=", "response_code=", "grpc_response_status=", "response_flags="]
                .iter()
                .any(|key| label.starts_with(key))
        };
        let labels: Vec<&str> = labels.split(',').filter(of_answer).collect();
        lines.push(format!("{name} {} {value}\n", labels.join(" ")));
    }
    lines.concat()
}

/// What Istio's dashboards and Kiali filter and group by.
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

#[test]
fn names_and_labels_are_those_that_stock_dashboards_query() {
    let metrics = Metrics::default();
    let http = HttpMetrics::new(&metrics, Settings::default());
    let labels = HttpEdgeLabels { protocol: Protocol::Grpc, grpc: Some(GrpcStatus::UNKNOWN), ..answered(200) };
    http.edge(&labels).record(&Exchange { request_messages: 1, response_messages: 1, ..Exchange::default() });
    let text = encoded(&metrics);
    for name in [
        "istio_requests_total",
        "istio_request_duration_milliseconds_bucket",
        "istio_request_duration_milliseconds_sum",
        "istio_request_duration_milliseconds_count",
        "istio_request_bytes_bucket",
        "istio_request_bytes_sum",
        "istio_request_bytes_count",
        "istio_response_bytes_bucket",
        "istio_request_messages_total",
        "istio_response_messages_total",
    ] {
        let line = text.lines().find(|line| line.split('{').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing from\n{text}"));
        let (_, rest) = line.split_once('{').expect("labels");
        let (labels, _) = rest.rsplit_once('}').expect("labels");
        let keys: BTreeSet<&str> =
            labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).filter(|key| *key != "le").collect();
        assert_eq!(keys, BTreeSet::from(LABELS), "{name}");
    }
}

#[test]
fn answers_are_told_apart_and_messages_are_those_of_grpc() {
    let metrics = Metrics::default();
    let http = HttpMetrics::new(&metrics, Settings { max_edges: 3, ..Settings::default() });
    let messages = Exchange { request_messages: 2, response_messages: 0, ..Exchange::default() };
    let ok = http.edge(&answered(200));
    ok.record(&messages);
    ok.record(&Exchange::default());
    let mut unavailable = answered(503);
    unavailable.edge.flags = "UH";
    http.edge(&unavailable).record(&Exchange::default());
    let grpc = GrpcStatus::parse(&HeaderValue::from_static("14"));
    let labels = HttpEdgeLabels { protocol: Protocol::Grpc, grpc: Some(grpc), ..answered(200) };
    http.edge(&labels).record(&messages);
    let unused = http.edge(&answered(404));
    assert_eq!(unused.requests(), 0);
    let text = encoded(&metrics);
    let mut lines: Vec<String> = ["istio_requests_total", "istio_request_messages", "istio_response_messages"]
        .iter()
        .flat_map(|family| samples(&text, family).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.sort_unstable();
    expect![[r#"
        istio_request_messages_total request_protocol="grpc" response_code="200" grpc_response_status="14" response_flags="-" 2
        istio_requests_total request_protocol="grpc" response_code="200" grpc_response_status="14" response_flags="-" 1
        istio_requests_total request_protocol="http" response_code="200" grpc_response_status="" response_flags="-" 2
        istio_requests_total request_protocol="http" response_code="503" grpc_response_status="" response_flags="UH" 1
        istio_response_messages_total request_protocol="grpc" response_code="200" grpc_response_status="14" response_flags="-" 0"#]]
    .assert_eq(&lines.join("\n"));
    assert!(text.contains("mesh_telemetry_http_edges 4\n"), "{text}");
    assert!(text.contains("mesh_telemetry_http_edges_overflow_total 1\n"), "{text}");
}

#[test]
fn durations_and_sizes_are_in_envoys_buckets() {
    let metrics = Metrics::default();
    let http = HttpMetrics::new(&metrics, Settings::default());
    let edge = http.edge(&answered(200));
    for (micros, bytes) in [(500, 0), (501, 1), (1_000, 2), (3_600_000_001, u64::from(u32::MAX))] {
        edge.record(&Exchange {
            duration: Duration::from_micros(micros),
            request_bytes: bytes,
            response_bytes: 0,
            ..Exchange::default()
        });
    }
    let text = encoded(&metrics);
    let short = |family| {
        samples(&text, family)
            .replace(r#" request_protocol="http" response_code="200" grpc_response_status="" response_flags="-""#, "")
    };
    expect![[r#"
        istio_request_duration_milliseconds_sum 3600002.002
        istio_request_duration_milliseconds_count 4
        istio_request_duration_milliseconds_bucket le="0.5" 1
        istio_request_duration_milliseconds_bucket le="1.0" 3
        istio_request_duration_milliseconds_bucket le="5.0" 3
        istio_request_duration_milliseconds_bucket le="10.0" 3
        istio_request_duration_milliseconds_bucket le="25.0" 3
        istio_request_duration_milliseconds_bucket le="50.0" 3
        istio_request_duration_milliseconds_bucket le="100.0" 3
        istio_request_duration_milliseconds_bucket le="250.0" 3
        istio_request_duration_milliseconds_bucket le="500.0" 3
        istio_request_duration_milliseconds_bucket le="1000.0" 3
        istio_request_duration_milliseconds_bucket le="2500.0" 3
        istio_request_duration_milliseconds_bucket le="5000.0" 3
        istio_request_duration_milliseconds_bucket le="10000.0" 3
        istio_request_duration_milliseconds_bucket le="30000.0" 3
        istio_request_duration_milliseconds_bucket le="60000.0" 3
        istio_request_duration_milliseconds_bucket le="300000.0" 3
        istio_request_duration_milliseconds_bucket le="600000.0" 3
        istio_request_duration_milliseconds_bucket le="1800000.0" 3
        istio_request_duration_milliseconds_bucket le="3600000.0" 3
        istio_request_duration_milliseconds_bucket le="+Inf" 4
    "#]]
    .assert_eq(&short("istio_request_duration"));
    let bytes = short("istio_request_bytes");
    for line in [
        r#"istio_request_bytes_bucket le="0.5" 1"#,
        r#"istio_request_bytes_bucket le="1.0" 2"#,
        r#"istio_request_bytes_bucket le="5.0" 3"#,
        r#"istio_request_bytes_bucket le="+Inf" 4"#,
        "istio_request_bytes_sum 4294967298.0",
    ] {
        assert!(bytes.lines().any(|found| found == line), "{line} is missing from\n{bytes}");
    }
}

#[test]
fn beyond_the_ceiling_rates_of_errors_stay_true() {
    let metrics = Metrics::default();
    let http = HttpMetrics::new(&metrics, Settings { max_edges: 1, ..Settings::default() });
    http.edge(&answered(200)).record(&Exchange::default());
    for status in (0..1000).chain([u16::MAX]) {
        http.edge(&answered(status)).record(&Exchange::default());
    }
    let text = encoded(&metrics);
    assert!(text.contains("mesh_telemetry_http_edges 11\n"), "one of its own and ten classes\n{text}");
    let requests = samples(&text, "istio_requests_total");
    for line in [r#"response_code="500""#, r#"response_code="400""#] {
        let line = requests.lines().find(|found| found.contains(line)).expect("the class");
        assert!(line.ends_with(" 100"), "{line}");
    }
    assert!(text.contains(r#"source_workload="overflow""#), "{text}");
}

#[test]
fn what_is_spoken_is_told_by_the_content_type() {
    let protocol = |text: &'static str| Protocol::of(Some(&HeaderValue::from_static(text)));
    for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
        assert_eq!(protocol(grpc), Protocol::Grpc, "{grpc}");
    }
    for http in ["application/grpc-web", "application/json", ""] {
        assert_eq!(protocol(http), Protocol::Http, "{http}");
    }
    assert_eq!(Protocol::of(None), Protocol::Http);
}

#[test]
fn a_hostile_grpc_status_makes_no_new_series() {
    let status = |text: &'static str| GrpcStatus::parse(&HeaderValue::from_static(text)).code();
    assert_eq!((status("0"), status("16")), (0, 16));
    for hostile in ["17", "00", "-1", "", " 0", "999999999999"] {
        assert_eq!(status(hostile), 2, "{hostile:?}");
    }
}

#[test]
fn an_edge_costs_what_is_said_of_it() {
    assert!(size_of::<HttpEdge>() <= 528, "{}", size_of::<HttpEdge>());
    assert!(size_of::<HttpEdgeLabels>() <= 56, "{}", size_of::<HttpEdgeLabels>());
    let edge = HttpEdgeLabels { edge: EdgeLabels { side: Side::Inbound, ..between("a", "b") }, ..answered(200) };
    assert_eq!(edge.edge.security, Security::MutualTls);
}
