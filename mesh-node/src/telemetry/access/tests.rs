use super::*;
use crate::model::{Name, ObjectRef};
use crate::telemetry::timestamp;
use expect_test::{Expect, expect};
use std::sync::mpsc::{self, Sender};

fn labels(workload: &str) -> WorkloadLabels {
    WorkloadLabels {
        workload: format!("{workload}-v1").into(),
        namespace: "default".into(),
        app: workload.into(),
        version: "v1".into(),
        canonical_service: workload.into(),
        canonical_revision: "v1".into(),
        principal: format!("cluster.local/ns/default/sa/{workload}").into(),
    }
}

fn service() -> ServiceName {
    ServiceName {
        host: "reviews.default.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "default".into(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn unknown() -> Record<'static> {
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_600_000_000_007),
        side: Side::Inbound,
        outcome: Outcome::Closed,
        source: address("[::ffff:10.0.0.1]:40000"),
        destination: address("10.96.0.10:9080"),
        upstream: None,
        source_labels: None,
        destination_labels: None,
        service: None,
        route: None,
        security: Security::Plain,
        bytes_sent: 0,
        bytes_received: 0,
        duration: Duration::ZERO,
        flags: "-",
    }
}

fn check(record: &Record<'_>, text: &Expect, json: &Expect) {
    let (as_text, as_json) = (format::text(record), format::json(record));
    text.assert_eq(std::str::from_utf8(&as_text).expect("text"));
    json.assert_eq(std::str::from_utf8(&as_json).expect("text"));
    for line in [&as_text, &as_json] {
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1, "one line");
    }
    serde_json::from_slice::<serde_json::Value>(&as_json).expect("valid JSON");
}

#[test]
fn a_served_connection_says_who_spoke_with_whom() {
    let (source, destination, service) = (labels("productpage"), labels("reviews"), service());
    let object = ObjectRef::new("VirtualService", Name::new("default", "reviews"));
    let route = RouteOrigin { object, rule: "tcp[0]".to_owned() };
    let record = Record {
        route: Some(&route),
        side: Side::Outbound,
        upstream: Some(address("10.0.0.3:9080")),
        source_labels: Some(&source),
        destination_labels: Some(&destination),
        service: Some(&service),
        security: Security::MutualTls,
        bytes_sent: 5678,
        bytes_received: 1234,
        duration: Duration::from_micros(12_345),
        ..unknown()
    };
    check(
        &record,
        &expect![[r#"
            2020-09-13T12:26:40.007Z outbound closed source=10.0.0.1:40000(default/productpage-v1) destination=10.96.0.10:9080(reviews.default.svc.cluster.local) upstream=10.0.0.3:9080(default/reviews-v1) source_principal=spiffe://cluster.local/ns/default/sa/productpage destination_principal=spiffe://cluster.local/ns/default/sa/reviews security=mutual_tls route="VirtualService default/reviews tcp[0]" sent=5678 received=1234 duration=12.345ms flags=-
        "#]],
        &expect![[r#"
            {"time":"2020-09-13T12:26:40.007Z","side":"outbound","outcome":"closed","reason":null,"detail":null,"source_address":"10.0.0.1:40000","source_workload":"productpage-v1","source_namespace":"default","source_principal":"spiffe://cluster.local/ns/default/sa/productpage","destination_address":"10.96.0.10:9080","destination_service":"reviews.default.svc.cluster.local","upstream_address":"10.0.0.3:9080","destination_workload":"reviews-v1","destination_namespace":"default","destination_principal":"spiffe://cluster.local/ns/default/sa/reviews","connection_security_policy":"mutual_tls","route":"VirtualService default/reviews tcp[0]","bytes_sent":5678,"bytes_received":1234,"duration_ms":12.345,"response_flags":"-"}
        "#]],
    );
}

#[test]
fn a_refused_connection_says_why_and_claims_no_principal() {
    let source = labels("productpage");
    let outcome = Outcome::Refused { reason: "plain_text_to_strict", detail: "port 9080 is STRICT".into() };
    check(
        &Record { outcome, source_labels: Some(&source), flags: "DENY", ..unknown() },
        &expect![[r#"
            2020-09-13T12:26:40.007Z inbound refused reason=plain_text_to_strict source=10.0.0.1:40000(default/productpage-v1) destination=10.96.0.10:9080 upstream=- security=none sent=0 received=0 duration=0.000ms flags=DENY detail="port 9080 is STRICT"
        "#]],
        &expect![[r#"
            {"time":"2020-09-13T12:26:40.007Z","side":"inbound","outcome":"refused","reason":"plain_text_to_strict","detail":"port 9080 is STRICT","source_address":"10.0.0.1:40000","source_workload":"productpage-v1","source_namespace":"default","source_principal":null,"destination_address":"10.96.0.10:9080","destination_service":null,"upstream_address":null,"destination_workload":null,"destination_namespace":null,"destination_principal":null,"connection_security_policy":"none","route":null,"bytes_sent":0,"bytes_received":0,"duration_ms":0.0,"response_flags":"DENY"}
        "#]],
    );
}

#[test]
fn hostile_text_stays_inside_its_field() {
    let mut source = labels("x");
    source.workload = "x) security=mutual_tls\nforged".into();
    let outcome = Outcome::Refused { reason: "no_spiffe_id", detail: "é\"\n".repeat(400) };
    let record = Record { outcome, source_labels: Some(&source), ..unknown() };
    let text = String::from_utf8(format::text(&record)).expect("text");
    assert!(text.contains(r#"("default/x) security=mutual_tls\nforged")"#), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.len() < 1500, "{}", text.len());
    let json = String::from_utf8(format::json(&record)).expect("text");
    assert_eq!(json.lines().count(), 1, "{json}");
    assert!(json.len() < 2000, "{}", json.len());
}

/// An output that waits for permission before each write.
struct Gate {
    permits: Receiver<()>,
    written: Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.permits.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.written.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dropped(metrics: &Metrics) -> u64 {
    let text = metrics.encode().expect("metrics are written");
    let line = text.lines().find(|line| line.starts_with("mesh_telemetry_access_dropped_total "));
    line.expect("the counter").rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[test]
fn a_stuck_output_costs_records_and_never_time() {
    let metrics = Metrics::default();
    let (permit, permits) = mpsc::channel();
    let (written, output) = mpsc::channel();
    let log = AccessLog::start_on(Format::Text, &metrics, Gate { permits, written }).expect("a log");
    let handed_over = QUEUE * 2;
    for _ in 0..handed_over {
        log.write(&unknown());
    }
    assert!(!log.flush(Duration::from_millis(1)), "nothing can be written yet");
    let lost = usize::try_from(dropped(&metrics)).expect("few");
    assert!(lost > QUEUE / 2 && lost <= QUEUE, "{lost}");
    for _ in 0..handed_over {
        permit.send(()).expect("the writer lives");
    }
    assert!(log.flush(Duration::from_secs(30)), "everything is written once the output moves");
    drop(log);
    let lines: usize = output.iter().map(|bytes| bytes.iter().filter(|&&b| b == b'\n').count()).sum();
    assert_eq!(lines + lost, handed_over, "each record is written or counted as lost");
}

#[test]
fn a_failing_output_is_counted() {
    let metrics = Metrics::default();
    let (permit, permits) = mpsc::channel();
    let (written, output) = mpsc::channel();
    drop((permit, output));
    let log = AccessLog::start_on(Format::Json, &metrics, Gate { permits, written }).expect("a log");
    log.write(&unknown());
    assert!(log.flush(Duration::from_secs(30)));
    assert_eq!(dropped(&metrics), 1);
}

#[test]
fn nothing_is_written_when_off() {
    let (permit, permits) = mpsc::channel();
    let (written, output) = mpsc::channel();
    permit.send(()).expect("the gate lives");
    let log = AccessLog::start_on(Format::Off, &Metrics::default(), Gate { permits, written }).expect("a log");
    log.write(&unknown());
    assert!(log.flush(Duration::ZERO));
    assert!(output.iter().next().is_none());
}

#[test]
fn time_is_that_of_the_record() {
    assert_eq!(timestamp(unknown().time), "2020-09-13T12:26:40.007Z");
}
