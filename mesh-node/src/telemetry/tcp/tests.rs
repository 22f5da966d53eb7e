use super::*;
use expect_test::expect;
use std::mem::size_of;
use std::time::Duration;

fn workload(name: &str) -> Arc<WorkloadLabels> {
    Arc::new(WorkloadLabels {
        workload: format!("{name}-v1"),
        namespace: "default".into(),
        app: name.into(),
        version: "v1".into(),
        canonical_service: name.into(),
        canonical_revision: "v1".into(),
        principal: format!("cluster.local/ns/default/sa/{name}"),
    })
}

fn between(source: &str, destination: &str) -> EdgeLabels {
    EdgeLabels {
        side: Side::Outbound,
        source: Some(workload(source)),
        destination: Some(workload(destination)),
        service: Some(Arc::new(ServiceName {
            host: format!("{destination}.default.svc.cluster.local"),
            name: destination.into(),
            namespace: "default".into(),
        })),
        security: Security::MutualTls,
        flags: "-",
    }
}

fn istio_lines(metrics: &Metrics) -> String {
    let text = metrics.encode().expect("metrics are written");
    let mut lines: Vec<&str> = text.lines().filter(|line| line.starts_with("istio_")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn names_and_labels_are_istios() {
    let metrics = Metrics::default();
    let tcp = TcpMetrics::new(&metrics, Settings::default());
    let edge = tcp.edge(&between("productpage", "reviews"));
    edge.opened.inc();
    edge.sent.inc_by(5);
    edge.received.inc_by(7);
    let stranger = EdgeLabels {
        side: Side::Inbound,
        source: None,
        service: None,
        security: Security::Plain,
        flags: "DENY",
        ..between("", "reviews")
    };
    tcp.edge(&stranger).failed.inc();
    expect![[r#"
        istio_tcp_connections_closed_total{reporter="source",source_workload="productpage-v1",source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/productpage",source_app="productpage",source_version="v1",source_cluster="Kubernetes",source_canonical_service="productpage",source_canonical_revision="v1",destination_workload="reviews-v1",destination_workload_namespace="default",destination_principal="spiffe://cluster.local/ns/default/sa/reviews",destination_app="reviews",destination_version="v1",destination_cluster="Kubernetes",destination_canonical_service="reviews",destination_canonical_revision="v1",destination_service="reviews.default.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="default",request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls"} 0
        istio_tcp_connections_failed_total{reporter="destination",source_workload="unknown",source_workload_namespace="unknown",source_principal="unknown",source_app="unknown",source_version="unknown",source_cluster="unknown",source_canonical_service="unknown",source_canonical_revision="unknown",destination_workload="reviews-v1",destination_workload_namespace="default",destination_principal="unknown",destination_app="reviews",destination_version="v1",destination_cluster="Kubernetes",destination_canonical_service="reviews",destination_canonical_revision="v1",destination_service="unknown",destination_service_name="unknown",destination_service_namespace="unknown",request_protocol="tcp",response_flags="DENY",connection_security_policy="none"} 1
        istio_tcp_connections_opened_total{reporter="source",source_workload="productpage-v1",source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/productpage",source_app="productpage",source_version="v1",source_cluster="Kubernetes",source_canonical_service="productpage",source_canonical_revision="v1",destination_workload="reviews-v1",destination_workload_namespace="default",destination_principal="spiffe://cluster.local/ns/default/sa/reviews",destination_app="reviews",destination_version="v1",destination_cluster="Kubernetes",destination_canonical_service="reviews",destination_canonical_revision="v1",destination_service="reviews.default.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="default",request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls"} 1
        istio_tcp_received_bytes_total{reporter="source",source_workload="productpage-v1",source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/productpage",source_app="productpage",source_version="v1",source_cluster="Kubernetes",source_canonical_service="productpage",source_canonical_revision="v1",destination_workload="reviews-v1",destination_workload_namespace="default",destination_principal="spiffe://cluster.local/ns/default/sa/reviews",destination_app="reviews",destination_version="v1",destination_cluster="Kubernetes",destination_canonical_service="reviews",destination_canonical_revision="v1",destination_service="reviews.default.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="default",request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls"} 7
        istio_tcp_sent_bytes_total{reporter="source",source_workload="productpage-v1",source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/productpage",source_app="productpage",source_version="v1",source_cluster="Kubernetes",source_canonical_service="productpage",source_canonical_revision="v1",destination_workload="reviews-v1",destination_workload_namespace="default",destination_principal="spiffe://cluster.local/ns/default/sa/reviews",destination_app="reviews",destination_version="v1",destination_cluster="Kubernetes",destination_canonical_service="reviews",destination_canonical_revision="v1",destination_service="reviews.default.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="default",request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls"} 5"#]]
    .assert_eq(&istio_lines(&metrics));
}

#[test]
fn equal_labels_are_one_edge_and_stored_once() {
    let tcp = TcpMetrics::new(&Metrics::default(), Settings::default());
    let edge = tcp.edge(&between("a", "b"));
    assert!(Arc::ptr_eq(&edge, &tcp.edge(&between("a", "b"))), "labels are compared by content");
    assert!(!Arc::ptr_eq(&edge, &tcp.edge(&between("a", "c"))));
    assert!(!Arc::ptr_eq(&edge, &tcp.edge(&between("b", "a"))));
    let edges = tcp.shared.read();
    assert_eq!(edges.slots.len(), 3);
    assert_eq!(edges.workloads.len(), 3, "a, b and c");
    assert_eq!(edges.services.len(), 3);
}

#[test]
fn beyond_the_ceiling_edges_are_counted_together() {
    let metrics = Metrics::default();
    let tcp = TcpMetrics::new(&metrics, Settings { max_edges: 2, ..Settings::default() });
    let first = tcp.edge(&between("a", "b"));
    for destination in ["c", "d", "e"] {
        tcp.edge(&between("a", destination)).opened.inc();
    }
    assert!(Arc::ptr_eq(&first, &tcp.edge(&between("a", "b"))), "known edges keep their counters");
    let text = metrics.encode().expect("metrics are written");
    assert!(text.contains("mesh_telemetry_edges_overflow_total 2\n"), "{text}");
    assert!(text.contains("mesh_telemetry_edges 3\n"), "{text}");
    let overflow = text.lines().find(|line| {
        line.starts_with("istio_tcp_connections_opened_total{reporter=\"source\",source_workload=\"overflow\"")
    });
    assert!(overflow.expect("the overflow edge").ends_with("} 2"), "{text}");
}

#[test]
fn only_edges_without_connections_are_retired() {
    let tcp = TcpMetrics::new(&Metrics::default(), Settings::default());
    let held = tcp.edge(&between("a", "b"));
    drop(tcp.edge(&between("a", "c")));
    assert_eq!(tcp.retire(Instant::now() - Duration::from_secs(60)), 0, "both were asked for just now");
    let later = Instant::now() + Duration::from_secs(60);
    let deadline = Instant::now() + Duration::from_secs(10);
    while tcp.shared.read().slots.len() > 1 {
        assert!(Instant::now() < deadline, "the idle edge stays");
        tcp.retire(tcp.shared.began + Duration::from_millis(tcp.shared.millis(Instant::now())));
    }
    held.opened.inc();
    let known = tcp.edge(&between("a", "b"));
    assert_eq!(known.opened.value(), 1, "the held edge stayed");
    assert_eq!(tcp.shared.read().workloads.len(), 2, "labels go with the last edge that has them");
    drop((held, known));
    assert_eq!(tcp.retire(later), 1);
    assert!(tcp.shared.read().workloads.is_empty());
}

#[test]
fn an_edge_is_small() {
    assert!(size_of::<(EdgeLabels, Slot)>() <= 64, "{}", size_of::<(EdgeLabels, Slot)>());
    assert!(size_of::<Edge>() <= 40);
}
