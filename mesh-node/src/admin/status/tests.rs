use super::*;
use crate::admin::view::{Issue, Learnt, Pod};
use expect_test::expect;
use sample::SampleLabels;

const ADDRESS: &str = "127.0.0.1:15020";

fn pod(name: &str) -> Pod {
    Pod {
        name: format!("default/{name}"),
        addresses: vec!["10.0.0.3".parse().expect("an address")],
        identity: format!("spiffe://cluster.local/ns/default/sa/{name}"),
        enrolled: true,
        certificate_expires: Some("2026-01-01T12:00:00.000Z".into()),
        connections: 2,
        bytes_sent: 3 << 20,
        bytes_received: 999,
        ..Pod::default()
    }
}

fn status(readiness: Readiness, snapshot: Snapshot, metrics: &str) -> Status {
    Status::new(ADDRESS.parse().expect("an address"), readiness, snapshot, metrics)
}

#[test]
fn a_node_at_work() {
    let joining = Pod {
        addresses: vec!["10.0.0.14".parse().expect("v4"), "fd00::e".parse().expect("v6")],
        enrolled: false,
        certificate_expires: None,
        connections: 0,
        bytes_sent: 0,
        bytes_received: 1536,
        ..pod("ratings-v1-6484d64bbc")
    };
    let issue = Issue {
        object: "PeerAuthentication default/odd".into(),
        field: "spec.mtls.mode".into(),
        problem: "unknown mode `\x1b[2J`; STRICT is enforced".into(),
        cure: "use STRICT, PERMISSIVE or DISABLE".into(),
    };
    let whole = Issue { field: String::new(), object: "Pod default/twin".into(), ..issue.clone() };
    let seen = |address: &str, service: &str, http: Option<&str>, other: Option<&str>| Learnt {
        address: address.parse().expect("an address"),
        service: service.to_owned(),
        http: http.map(str::to_owned),
        other: other.map(str::to_owned),
    };
    let learnt = vec![
        seen("10.96.0.7:9080", "reviews.default.svc.cluster.local", Some("2026-01-01T11:00:00.000Z"), None),
        seen("192.0.2.1:25", "", None, Some("2026-01-01T11:30:00.000Z")),
    ];
    let pods = vec![pod("reviews"), joining];
    let snapshot = Snapshot { pods, issues: vec![issue, whole], learnt, ..Snapshot::default() };
    let metrics = r#"# TYPE mesh_proxy_connections counter
mesh_proxy_connections_total{side="outbound",security="mutual_tls"} 120
mesh_proxy_connections_total{side="inbound",security="mutual_tls"} 7
mesh_proxy_connections_total{side="inbound",security="none"} 3
mesh_proxy_refused_total{side="inbound",reason="untrusted_root"} 4
mesh_proxy_refused_total{side="outbound",reason="no_endpoint"} 1
mesh_proxy_refused_total{side="inbound",reason="expired_certificate"} 0
mesh_build_info{version="0.1.0"} 1
# EOF
"#;
    let readiness = Readiness { ready: true, missing: Vec::new() };
    expect![[r#"
        mesh-node 0.1.0 at 127.0.0.1:15020: ready

        Pods (2)
          POD                            ADDRESSES          STEERED  CERTIFICATE UNTIL         OPEN  TO POD   FROM POD  IDENTITY
          default/reviews                10.0.0.3           yes      2026-01-01T12:00:00.000Z  2     3.0 MiB  999 B     spiffe://cluster.local/ns/default/sa/reviews
          default/ratings-v1-6484d64bbc  10.0.0.14,fd00::e  NO       NONE YET                  0     0 B      1.5 KiB   spiffe://cluster.local/ns/default/sa/ratings-v1-6484d64bbc

        Connections so far
          SIDE      MUTUAL TLS  PLAIN TEXT
          outbound  120         0
          inbound   7           3

        Refused so far (5)
          REASON          OUTBOUND  INBOUND
          no_endpoint     1         0
          untrusted_root  0         4

        Seen on ports that do not say what they speak (2)
          ADDRESS         SERVICE                            HTTP SINCE                OTHER BYTES SINCE
          10.96.0.7:9080  reviews.default.svc.cluster.local  2026-01-01T11:00:00.000Z  -
          192.0.2.1:25    -                                  -                         2026-01-01T11:30:00.000Z

        Issues (2)
          PeerAuthentication default/odd, spec.mtls.mode
            unknown mode `�[2J`; STRICT is enforced
            cure: use STRICT, PERMISSIVE or DISABLE
          Pod default/twin
            unknown mode `�[2J`; STRICT is enforced
            cure: use STRICT, PERMISSIVE or DISABLE
    "#]]
    .assert_eq(&render(&status(readiness, snapshot, metrics)));
}

#[test]
fn a_node_that_just_began() {
    let missing = vec!["the users' objects are not read yet".to_owned(), "no certificate for default/reviews".into()];
    let readiness = Readiness { ready: false, missing };
    expect![[r#"
        mesh-node at 127.0.0.1:15020: NOT READY
          missing: the users' objects are not read yet
          missing: no certificate for default/reviews

        Pods (0)
          none of this node is in the mesh

        Connections so far
          SIDE      MUTUAL TLS  PLAIN TEXT
          outbound  0           0
          inbound   0           0

        Refused so far (0)
          none

        Issues (0)
          none
    "#]]
    .assert_eq(&render(&status(readiness, Snapshot::default(), "")));
}

#[test]
fn a_node_without_its_api_server() {
    let metrics = r#"mesh_source_connected{kind="Pod"} 0
mesh_source_connected{kind="Namespace"} 1
mesh_source_objects{kind="Pod"} 12
mesh_source_objects{kind="ServiceAccount"} 3
mesh_source_stale 1
"#;
    let readiness = Readiness { ready: true, missing: Vec::new() };
    let page = render(&status(readiness, Snapshot::default(), metrics));
    let (_, watched) = page.split_once("\n\n").expect("a head and more");
    let (watched, _) = watched.split_once("\n\n").expect("more follows");
    expect![[r#"
        Kubernetes API: NOT HEARD YET, objects of an earlier run are in force
          KIND       OBJECTS  CONNECTED
          Namespace  0        yes
          Pod        12       NO"#]]
    .assert_eq(watched);
}

#[test]
fn samples_are_read_with_their_escapes() {
    let text = "m_total{a=\"x\\\"y\\n\\\\}\",b=\"\"} 3 1600000000\nm_total 4\nm_total_other 5\nm_total{a=\"open} 6\nm_total{} x\n";
    let read: Vec<_> = samples(text, "m_total").collect();
    let labels = SampleLabels::from([("a".to_owned(), "x\"y\n\\}".to_owned()), ("b".to_owned(), String::new())]);
    assert_eq!(read, [(labels, 3), (SampleLabels::new(), 4)]);
}
