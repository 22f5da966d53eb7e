use super::*;
use crate::model::{Name, ObjectRef};
use crate::telemetry::Metrics;
use crate::telemetry::access::{AccessLog, Format};
use crate::telemetry::edges::tests::workload;
use crate::telemetry::trace::tests::tracer;
use ::http::{HeaderMap, HeaderName};
use expect_test::{Expect, expect};
use std::sync::mpsc::{self, Sender};

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn bare() -> HttpRecord<'static> {
    HttpRecord {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_007),
        side: Side::Outbound,
        outcome: Outcome::Closed,
        source: address("[::ffff:10.0.0.1]:40000"),
        destination: address("10.96.0.10:9080"),
        upstream: None,
        upstream_key: None,
        source_labels: None,
        destination_labels: None,
        service: None,
        security: Security::Unknown,
        route: None,
        method: &Method::GET,
        authority: "",
        path: "/",
        version: Version::HTTP_11,
        status: 0,
        grpc: None,
        flags: "DC",
        bytes_sent: 0,
        bytes_received: 0,
        duration: Duration::ZERO,
        first_byte: None,
        attempts: 0,
        request_id: None,
        trace: None,
        user_agent: None,
        forwarded_for: None,
    }
}

fn check(record: &HttpRecord<'_>, as_text: &Expect, as_json: &Expect) {
    let (line, json) = (text(record), json(record));
    as_text.assert_eq(std::str::from_utf8(&line).expect("text"));
    as_json.assert_eq(std::str::from_utf8(&json).expect("text"));
    serde_json::from_slice::<serde_json::Value>(&json).expect("valid JSON");
}

#[test]
fn a_served_request_says_what_was_asked_of_whom_and_how_it_went() {
    let (source, destination) = (workload("productpage"), workload("reviews"));
    let service = ServiceName {
        host: "reviews.default.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "default".into(),
    };
    let route = RouteOrigin {
        object: ObjectRef::new("VirtualService", Name::new("default", "reviews")),
        rule: "http[0]".into(),
    };
    let (request_id, agent) = (HeaderValue::from_static("6f1a"), HeaderValue::from_static("curl/8.1 (x)"));
    let w3c = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01";
    let headers = HeaderMap::from_iter([(HeaderName::from_static("traceparent"), HeaderValue::from_static(w3c))]);
    let context = tracer().begin(&headers, Side::Outbound, SystemTime::UNIX_EPOCH);
    let forwarded = HeaderValue::from_static("192.0.2.7, 10.0.0.9");
    let record = HttpRecord {
        upstream: Some(address("10.0.0.3:9080")),
        upstream_key: Some("reviews.default.svc.cluster.local:9080/v1"),
        source_labels: Some(&source),
        destination_labels: Some(&destination),
        service: Some(&service),
        security: Security::MutualTls,
        route: Some(&route),
        authority: "reviews:9080",
        path: "/reviews/0?u=\"x\"",
        version: Version::HTTP_2,
        status: 200,
        grpc: Some(GrpcStatus::UNKNOWN),
        flags: "-",
        bytes_sent: 5678,
        bytes_received: 1234,
        duration: Duration::from_micros(12_345),
        first_byte: Some(Duration::from_micros(9_876)),
        attempts: 2,
        request_id: Some(&request_id),
        trace: context.trace_id(),
        user_agent: Some(&agent),
        forwarded_for: Some(&forwarded),
        ..bare()
    };
    check(
        &record,
        &expect![[r#"
            2020-09-13T12:26:40.007Z outbound served request="GET /reviews/0?u=\"x\" HTTP/2" authority=reviews:9080 code=200 grpc=2 flags=- source=10.0.0.1:40000(default/productpage-v1) destination=10.96.0.10:9080(reviews.default.svc.cluster.local) upstream=10.0.0.3:9080(default/reviews-v1) source_principal=spiffe://cluster.local/ns/default/sa/productpage destination_principal=spiffe://cluster.local/ns/default/sa/reviews security=mutual_tls upstream_key=reviews.default.svc.cluster.local:9080/v1 route="VirtualService default/reviews http[0]" attempts=2 sent=5678 received=1234 duration=12.345ms first_byte=9.876ms request_id=6f1a user_agent="curl/8.1 (x)" x_forwarded_for="192.0.2.7, 10.0.0.9" trace_id=0af7651916cd43dd8448eb211c80319c
        "#]],
        &expect![[r#"
            {"time":"2020-09-13T12:26:40.007Z","side":"outbound","outcome":"served","reason":null,"detail":null,"protocol":"HTTP/2","method":"GET","authority":"reviews:9080","path":"/reviews/0?u=\"x\"","path_length":16,"response_code":200,"grpc_status":2,"response_flags":"-","source_address":"10.0.0.1:40000","source_workload":"productpage-v1","source_namespace":"default","source_principal":"spiffe://cluster.local/ns/default/sa/productpage","destination_address":"10.96.0.10:9080","destination_service":"reviews.default.svc.cluster.local","upstream_address":"10.0.0.3:9080","destination_workload":"reviews-v1","destination_namespace":"default","destination_principal":"spiffe://cluster.local/ns/default/sa/reviews","connection_security_policy":"mutual_tls","upstream_key":"reviews.default.svc.cluster.local:9080/v1","route":"VirtualService default/reviews http[0]","attempts":2,"bytes_sent":5678,"bytes_received":1234,"duration_ms":12.345,"upstream_first_byte_ms":9.876,"request_id":"6f1a","trace_id":"0af7651916cd43dd8448eb211c80319c","user_agent":"curl/8.1 (x)","x_forwarded_for":"192.0.2.7, 10.0.0.9"}
        "#]],
    );
}

#[test]
fn a_refused_request_says_why() {
    let outcome = Outcome::Refused { reason: "no_endpoints", detail: "subset v9 has no endpoint".into() };
    let record = HttpRecord { outcome, status: 503, flags: "UH", authority: "reviews", ..bare() };
    check(
        &record,
        &expect![[r#"
            2020-09-13T12:26:40.007Z outbound refused reason=no_endpoints request="GET / HTTP/1.1" authority=reviews code=503 flags=UH source=10.0.0.1:40000 destination=10.96.0.10:9080 upstream=- security=unknown attempts=0 sent=0 received=0 duration=0.000ms detail="subset v9 has no endpoint"
        "#]],
        &expect![[r#"
            {"time":"2020-09-13T12:26:40.007Z","side":"outbound","outcome":"refused","reason":"no_endpoints","detail":"subset v9 has no endpoint","protocol":"HTTP/1.1","method":"GET","authority":"reviews","path":"/","path_length":1,"response_code":503,"grpc_status":null,"response_flags":"UH","source_address":"10.0.0.1:40000","source_workload":null,"source_namespace":null,"source_principal":null,"destination_address":"10.96.0.10:9080","destination_service":null,"upstream_address":null,"destination_workload":null,"destination_namespace":null,"destination_principal":null,"connection_security_policy":"unknown","upstream_key":null,"route":null,"attempts":0,"bytes_sent":0,"bytes_received":0,"duration_ms":0.0,"upstream_first_byte_ms":null,"request_id":null,"trace_id":null,"user_agent":null,"x_forwarded_for":null}
        "#]],
    );
}

#[test]
fn hostile_text_is_cut_and_stays_inside_its_field() {
    let path = format!("/{}", "\" flags=- ".repeat(6 * 1024));
    let hostile = HeaderValue::from_bytes(&[0xff; 60_000]).expect("a header may hold that");
    let forged = HeaderValue::from_static("x flags=DENY trace_id=1");
    let outcome = Outcome::Refused { reason: "forbidden", detail: "\u{7}\n".repeat(4000) };
    let method = Method::from_bytes(&[b'A'; 9_000]).expect("a method may be long");
    let record = HttpRecord {
        outcome,
        method: &method,
        authority: &"é\n".repeat(20_000),
        path: &path,
        request_id: Some(&hostile),
        user_agent: Some(&forged),
        forwarded_for: Some(&hostile),
        ..bare()
    };
    let line = String::from_utf8(text(&record)).expect("text");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.len() < 12 * 1024, "{}", line.len());
    assert!(line.contains(&format!(" path_length={} ", path.len())), "{line}");
    assert!(line.contains(r#" user_agent="x flags=DENY trace_id=1""#), "{line}");
    let json = String::from_utf8(json(&record)).expect("text");
    assert_eq!(json.lines().count(), 1, "{json}");
    assert!(json.len() < 12 * 1024, "{}", json.len());
    let json: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
    assert_eq!(json["path"].as_str().map(str::len), Some(MAX_PATH));
    assert_eq!(json["path_length"], path.len());
}

/// An output that never takes a byte, until its other end is gone.
struct Stuck(mpsc::Receiver<()>);

impl std::io::Write for Stuck {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        let _gone = self.0.recv();
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn long_records_before_a_stuck_output_take_bounded_memory() {
    let metrics = Metrics::default();
    let (open, stuck): (Sender<()>, _) = mpsc::channel();
    let log = AccessLog::start_on(Format::Json, &metrics, Stuck(stuck)).expect("a log");
    let path = format!("/{}", "\"".repeat(2 * MAX_PATH));
    let record = HttpRecord { path: &path, ..bare() };
    let length = json(&record).len();
    let fit = super::super::QUEUE_BYTES / length;
    assert!(fit < super::super::QUEUE, "bytes are the narrower bound: {fit}");
    for _ in 0..super::super::QUEUE {
        log.write_http(&record);
    }
    let text = metrics.encode().expect("metrics are written");
    let dropped = text.lines().find_map(|line| line.strip_prefix("mesh_telemetry_access_dropped_total "));
    assert_eq!(dropped.and_then(|count| count.parse().ok()), Some(super::super::QUEUE - fit));
    drop(open);
}
