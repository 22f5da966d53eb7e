//! Spans as a real collector gets them: over HTTP, on loopback.

use super::*;
use crate::model::{Name, ObjectRef};
use crate::snapshot::ServiceName;
use crate::snapshot::http::RouteOrigin;
use crate::telemetry;
use crate::telemetry::access::{Outcome, Security};
use crate::telemetry::edges::tests::workload;
use crate::telemetry::http::GrpcStatus;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(30);

/// A collector that answers as it is told, and at last always 200.
struct Collector {
    endpoint: Endpoint,
    posted: mpsc::UnboundedReceiver<(http::request::Parts, Value)>,
}

impl Collector {
    async fn start(answers: &[(StatusCode, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("an endpoint");
        let (post, posted) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>()));
        telemetry::spawn("collector", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (post, answers) = (post.clone(), Arc::clone(&answers));
                let serve = service_fn(move |request: Request<Incoming>| {
                    let (post, answers) = (post.clone(), Arc::clone(&answers));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        let document = serde_json::from_slice(&body).expect("the document is JSON");
                        post.send((head, document)).expect("the test waits");
                        let answer = answers.lock().expect("unpoisoned").pop_front();
                        let (status, body) = answer.unwrap_or((StatusCode::OK, "{}"));
                        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                        *response.status_mut() = status;
                        response.headers_mut().insert("retry-after", HeaderValue::from_static("0"));
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
                telemetry::spawn("collector's connection", connection);
            }
        });
        Self { endpoint, posted }
    }

    fn tracer(&self, metrics: &Metrics) -> Tracer {
        let endpoint = Some(self.endpoint.clone());
        Tracer::start(Settings { endpoint, ..settings("100") }, metrics).expect("a tracer")
    }

    async fn next(&mut self) -> (http::request::Parts, Value) {
        tokio::time::timeout(DEADLINE, self.posted.recv()).await.expect("in time").expect("the collector lives")
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_000 + millis)
}

fn record() -> HttpRecord<'static> {
    HttpRecord {
        time: at(12),
        side: Side::Outbound,
        outcome: Outcome::Closed,
        source: address("[::ffff:10.0.0.1]:40000"),
        destination: address("10.96.0.10:9080"),
        upstream: Some(address("10.0.0.3:9080")),
        upstream_key: Some("reviews.default.svc.cluster.local:9080/v1"),
        source_labels: None,
        destination_labels: None,
        service: None,
        security: Security::Plain,
        route: None,
        method: &Method::GET,
        authority: "reviews:9080",
        path: "/reviews/0?user=x",
        version: Version::HTTP_11,
        status: 200,
        grpc: None,
        flags: "-",
        bytes_sent: 5678,
        bytes_received: 0,
        duration: Duration::from_millis(12),
        first_byte: None,
        attempts: 1,
        request_id: None,
        trace: None,
        user_agent: None,
        forwarded_for: None,
    }
}

fn value(metrics: &Metrics, sample: &str) -> u64 {
    let text = metrics.encode().expect("metrics are written");
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
}

/// Attributes as lines, and the name of each kind of value.
fn attributes(of: &Value) -> String {
    let mut lines = String::new();
    for attribute in of["attributes"].as_array().expect("attributes") {
        let value = attribute["value"].as_object().expect("a value");
        let (kind, value) = value.iter().next().expect("one of the kinds");
        assert!(value.is_string(), "{attribute}");
        lines += &format!("{} {kind} {value}\n", attribute["key"].as_str().expect("a key"));
    }
    lines
}

#[tokio::test]
async fn a_client_and_a_server_span_are_posted_under_their_workloads() {
    let mut collector = Collector::start(&[]).await;
    let metrics = Metrics::default();
    let tracer = collector.tracer(&metrics);
    let (source, destination) = (workload("productpage"), workload("reviews"));
    let service = ServiceName {
        host: "reviews.default.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "default".into(),
    };
    let object = ObjectRef::new("VirtualService", Name::new("default", "reviews"));
    let route = RouteOrigin { object, rule: "http[0]".into() };
    let agent = HeaderValue::from_static("curl/8.1");
    let record = HttpRecord {
        source_labels: Some(&source),
        destination_labels: Some(&destination),
        service: Some(&service),
        security: Security::MutualTls,
        route: Some(&route),
        user_agent: Some(&agent),
        attempts: 2,
        ..record()
    };
    let mut request = headers(&[("traceparent", W3C), ("x-request-id", "r1")]);
    let client = tracer.begin(&request, Side::Outbound, at(0));
    client.inject(&mut request);
    let server = tracer.begin(&request, Side::Inbound, at(1));
    let refused = Outcome::Refused { reason: "policy_denied", detail: "default/reviews says so".into() };
    let inbound = HttpRecord { outcome: refused, status: 403, side: Side::Inbound, time: at(0), ..record.clone() };
    tracer.finish(&server, &inbound);
    tracer.finish(&client, &record);
    assert!(tracer.flush(DEADLINE).await);

    let (head, document) = collector.next().await;
    assert_eq!((head.method, head.uri.path()), (Method::POST, "/v1/traces"));
    assert_eq!(head.headers["content-type"], "application/json");
    let resources = document["resourceSpans"].as_array().expect("resources");
    let [outbound, inbound] = resources.as_slice() else { panic!("{document:#}") };
    expect![[r#"
        service.name stringValue "productpage.default"
        service.version stringValue "v1"
        k8s.namespace.name stringValue "default"
        k8s.node.name stringValue "node-a"
        k8s.cluster.name stringValue "Kubernetes"
    "#]]
    .assert_eq(&attributes(&outbound["resource"]));
    assert!(attributes(&inbound["resource"]).starts_with("service.name stringValue \"reviews.default\"\n"));
    let span = |resource: &Value| {
        let scope = &resource["scopeSpans"][0];
        assert_eq!(scope["scope"]["name"], "mesh-node");
        assert_eq!(scope["spans"].as_array().map(Vec::len), Some(1));
        scope["spans"][0].clone()
    };
    let (client_span, server_span) = (span(outbound), span(inbound));
    for span in [&client_span, &server_span] {
        assert_eq!(span["traceId"], TRACE);
        assert_eq!(span["name"], "reviews.default.svc.cluster.local:9080/*");
    }
    assert_eq!(client_span["parentSpanId"], "00f067aa0bb902b7");
    assert_eq!(client_span["spanId"], client.span_id().expect("a span").to_string());
    assert_eq!(server_span["parentSpanId"], client_span["spanId"], "the server's span is under the client's");
    assert_eq!((&client_span["kind"], &server_span["kind"]), (&Value::from(3), &Value::from(2)));
    assert_eq!(client_span["startTimeUnixNano"], "1600000000000000000");
    assert_eq!(client_span["endTimeUnixNano"], "1600000000012000000");
    assert_eq!(server_span["endTimeUnixNano"], "1600000000001000000", "no span ends before it begins");
    assert_eq!(client_span.get("status"), None);
    assert_eq!(server_span["status"]["code"], 2);
    assert_eq!(server_span["status"]["message"], "policy_denied: default/reviews says so");
    expect![[r#"
        http.request.method stringValue "GET"
        url.full stringValue "http://reviews:9080/reviews/0?user=x"
        server.address stringValue "reviews.default.svc.cluster.local"
        server.port intValue "9080"
        network.peer.address stringValue "10.0.0.3"
        network.peer.port intValue "9080"
        network.protocol.version stringValue "1.1"
        user_agent.original stringValue "curl/8.1"
        http.request.body.size intValue "0"
        http.response.status_code intValue "200"
        http.response.body.size intValue "5678"
        response_flags stringValue "-"
        upstream_cluster stringValue "reviews.default.svc.cluster.local:9080/v1"
        http.request.resend_count intValue "1"
        mesh.route stringValue "VirtualService default/reviews http[0]"
        guid:x-request-id stringValue "r1"
        istio.canonical_service stringValue "productpage"
        istio.canonical_revision stringValue "v1"
        istio.namespace stringValue "default"
        istio.cluster_id stringValue "Kubernetes"
        component stringValue "proxy"
        connection_security_policy stringValue "mutual_tls"
        source.principal stringValue "spiffe://cluster.local/ns/default/sa/productpage"
        destination.principal stringValue "spiffe://cluster.local/ns/default/sa/reviews"
    "#]]
    .assert_eq(&attributes(&client_span));
    expect![[r#"
        http.request.method stringValue "GET"
        url.scheme stringValue "http"
        url.path stringValue "/reviews/0"
        url.query stringValue "user=x"
        client.address stringValue "10.0.0.1"
        server.address stringValue "reviews.default.svc.cluster.local"
        server.port intValue "9080"
        network.peer.address stringValue "10.0.0.1"
        network.peer.port intValue "40000"
        network.protocol.version stringValue "1.1"
        user_agent.original stringValue "curl/8.1"
        http.request.body.size intValue "0"
        http.response.status_code intValue "403"
        http.response.body.size intValue "5678"
        response_flags stringValue "-"
        upstream_cluster stringValue "reviews.default.svc.cluster.local:9080/v1"
        http.request.resend_count intValue "1"
        mesh.route stringValue "VirtualService default/reviews http[0]"
        error.type stringValue "policy_denied"
        guid:x-request-id stringValue "r1"
        istio.canonical_service stringValue "reviews"
        istio.canonical_revision stringValue "v1"
        istio.namespace stringValue "default"
        istio.cluster_id stringValue "Kubernetes"
        component stringValue "proxy"
        connection_security_policy stringValue "mutual_tls"
        source.principal stringValue "spiffe://cluster.local/ns/default/sa/productpage"
        destination.principal stringValue "spiffe://cluster.local/ns/default/sa/reviews"
    "#]]
    .assert_eq(&attributes(&server_span));
    assert_eq!(value(&metrics, "mesh_telemetry_spans_exported_total"), 2);
}

#[tokio::test]
async fn what_is_not_sampled_is_not_posted() {
    let mut collector = Collector::start(&[]).await;
    let tracer = collector.tracer(&Metrics::default());
    let not = headers(&[("traceparent", &W3C.replace("-01", "-00"))]);
    tracer.finish(&tracer.begin(&not, Side::Outbound, at(0)), &record());
    tracer.finish(&tracer.begin(&HeaderMap::new(), Side::Outbound, at(0)), &record());
    assert!(tracer.flush(DEADLINE).await);
    let (_, document) = collector.next().await;
    assert_eq!(document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn statuses_that_are_errors() {
    let mut collector = Collector::start(&[]).await;
    let tracer = collector.tracer(&Metrics::default());
    let grpc = |text| Some(GrpcStatus::parse(&HeaderValue::from_static(text)));
    // Side, status, status of gRPC, is it an error?
    let cases = [
        (Side::Outbound, 399, None, false),
        (Side::Outbound, 404, None, true),
        (Side::Inbound, 404, None, false),
        (Side::Inbound, 503, None, true),
        (Side::Outbound, 200, grpc("5"), true),
        (Side::Inbound, 200, grpc("5"), false),
        (Side::Inbound, 200, grpc("14"), true),
        (Side::Inbound, 200, grpc("0"), false),
    ];
    for (side, status, grpc, _) in cases {
        tracer.finish(&tracer.begin(&HeaderMap::new(), side, at(0)), &HttpRecord { status, grpc, ..record() });
    }
    assert!(tracer.flush(DEADLINE).await);
    let (_, document) = collector.next().await;
    let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans");
    for (span, (side, status, grpc, error)) in spans.iter().zip(cases) {
        assert_eq!(span["status"]["code"] == 2, error, "{side:?} {status} {grpc:?}");
    }
    assert_eq!(spans.len(), cases.len());
}

#[tokio::test]
async fn hostile_requests_make_small_spans() {
    let mut collector = Collector::start(&[]).await;
    let tracer = collector.tracer(&Metrics::default());
    let agent = HeaderValue::from_bytes(&[0xff; 60_000]).expect("a header may hold that");
    let path = format!("/\"\u{7}?{}", "\\".repeat(60_000));
    let method = Method::from_bytes(&[b'A'; 9000]).expect("a method may be long");
    let request = headers(&[("x-request-id", &"x".repeat(60_000))]);
    for side in [Side::Outbound, Side::Inbound] {
        let record = HttpRecord {
            path: &path,
            authority: &"é\n".repeat(20_000),
            method: &method,
            user_agent: Some(&agent),
            outcome: Outcome::Refused { reason: "forbidden", detail: "\n".repeat(60_000) },
            ..record()
        };
        tracer.finish(&tracer.begin(&request, side, at(0)), &record);
    }
    assert!(tracer.flush(DEADLINE).await);
    let (_, document) = collector.next().await;
    assert!(document.to_string().len() < 16 * 1024, "{}", document.to_string().len());
    assert!(document.to_string().contains(r#""stringValue":"_OTHER""#), "{document}");
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_and_a_refusal_is_final() {
    let partial = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"full"}}"#;
    let answers = [(StatusCode::SERVICE_UNAVAILABLE, ""), (StatusCode::BAD_REQUEST, ""), (StatusCode::OK, partial)];
    let mut collector = Collector::start(&answers).await;
    let metrics = Metrics::default();
    let tracer = collector.tracer(&metrics);
    let finish = || tracer.finish(&tracer.begin(&HeaderMap::new(), Side::Outbound, at(0)), &record());
    finish();
    assert!(tracer.flush(DEADLINE).await);
    let (first, second) = (collector.next().await.1, collector.next().await.1);
    assert_eq!(first, second, "the same is posted again");
    assert_eq!(value(&metrics, r#"mesh_telemetry_spans_dropped_total{reason="refused"}"#), 1);
    finish();
    finish();
    assert!(tracer.flush(DEADLINE).await);
    assert_eq!(value(&metrics, r#"mesh_telemetry_spans_dropped_total{reason="rejected"}"#), 1);
    assert_eq!(value(&metrics, "mesh_telemetry_spans_exported_total"), 1);
}

#[tokio::test]
async fn a_silent_collector_costs_spans_and_never_time() {
    // Accepts connections, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
    let address = listener.local_addr().expect("an address");
    let metrics = Metrics::default();
    let endpoint = Some(format!("http://{address}").parse().expect("an endpoint"));
    let tracer = Tracer::start(Settings { endpoint, ..settings("100") }, &metrics).expect("a tracer");
    let handed_over = u64::try_from(export::QUEUE * 2).expect("few");
    // The task that posts cannot run in between: the queue alone takes what it can.
    for _ in 0..handed_over {
        tracer.finish(&tracer.begin(&HeaderMap::new(), Side::Outbound, at(0)), &record());
    }
    assert_eq!(value(&metrics, r#"mesh_telemetry_spans_dropped_total{reason="queue_full"}"#), handed_over / 2);
    assert!(!tracer.flush(Duration::from_millis(10)).await, "patience ends");
}
