use super::*;
use crate::telemetry::edges::tests::between;
use crate::telemetry::{Metrics, Security, Side};
use expect_test::expect;
use std::mem::size_of;

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
fn an_edge_is_small() {
    assert!(size_of::<Edge>() <= 40);
}
