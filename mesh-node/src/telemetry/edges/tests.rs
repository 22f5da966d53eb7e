use super::*;
use crate::telemetry::tcp::TcpMetrics;
use std::mem::size_of;

pub(in crate::telemetry) fn workload(name: &str) -> Arc<WorkloadLabels> {
    Arc::new(WorkloadLabels {
        workload: format!("{name}-v1").into(),
        namespace: "default".into(),
        app: name.into(),
        version: "v1".into(),
        canonical_service: name.into(),
        canonical_revision: "v1".into(),
        principal: format!("cluster.local/ns/default/sa/{name}").into(),
    })
}

pub(in crate::telemetry) fn between(source: &str, destination: &str) -> EdgeLabels {
    EdgeLabels {
        side: Side::Outbound,
        source: Some(workload(source)),
        destination: Some(workload(destination)),
        service: Some(Arc::new(ServiceName {
            host: format!("{destination}.default.svc.cluster.local").into(),
            name: destination.into(),
            namespace: "default".into(),
        })),
        security: Security::MutualTls,
        flags: "-",
    }
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
fn what_a_worker_remembers_does_not_keep_edges_from_being_retired() {
    let tcp = TcpMetrics::new(&Metrics::default(), Settings::default());
    let cache = EdgeCache::new(tcp.clone());
    let edge = cache.edge(&between("a", "b"));
    assert!(Arc::ptr_eq(&edge, &cache.edge(&between("a", "b"))));
    assert!(Arc::ptr_eq(&edge, &tcp.edge(&between("a", "b"))), "it is the edge of the store");
    drop(edge);
    let later = Instant::now() + Duration::from_secs(60);
    assert_eq!(tcp.retire(later), 0, "the worker may be counting on it");
    drop(cache.edge(&between("a", "c")));
    assert_eq!(tcp.retire(later), 1, "after a sweep the worker asks anew for what it uses");
    assert_eq!(tcp.shared.read().slots.len(), 1);
}

#[test]
fn a_slot_is_small() {
    let size = size_of::<(EdgeLabels, Slot<u64>)>();
    assert!(size <= 64, "{size}");
}
