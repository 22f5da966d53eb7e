//! A new daemon takes over from an old one, and loses nothing.

use crate::support::{Lab, Proxy, Service, application_everywhere, ask, assert_answer, eventually, ip};
use mesh_common::route;
use mesh_node::steer::{Mode, SteerError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

fn a_new_daemon_takes_over_without_a_failure(name: &str, mode: Mode) {
    const CONNECTIONS: u32 = 250;
    let lab = Arc::new(Lab::new(name));
    application_everywhere(&lab.b, 8080);
    let (mut old, _) = lab.daemon(mode);
    let net = old.open(&lab.a.local).expect("the namespace is the pod's");
    old.enrol(&lab.a.local, &net).expect("enrolled");
    let proxy = Proxy::start("old", Service::Report, &net);

    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU32::new(0), AtomicU32::new(0)]));
    let client = {
        let (lab, stop, answers) = (Arc::clone(&lab), Arc::clone(&stop), Arc::clone(&answers));
        std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                match ask(&lab.a.ns, (lab.b.v4, 8080)) {
                    Ok(answer) if answer.who == "old-outbound" => answers[0].fetch_add(1, Ordering::SeqCst),
                    Ok(answer) if answer.who == "new-outbound" => answers[1].fetch_add(1, Ordering::SeqCst),
                    other => {
                        failures.push(other);
                        0
                    }
                };
            }
            failures
        })
    };
    let count = |at: usize| answers[at].load(Ordering::SeqCst);
    eventually("the old daemon serves", || count(0) >= CONNECTIONS);

    let (mut new, _) = lab.daemon(mode);
    let new_net = new.open(&lab.a.local).expect("two daemons may listen");
    let new_proxy = Proxy::start("new", Service::Report, &new_net);
    new.enrol(&lab.a.local, &new_net).expect("enrolled anew");
    eventually("the new daemon serves", || count(1) >= 20);
    proxy.stop();
    drop((net, old));
    let at_end_of_old = count(0);
    eventually("the new daemon serves alone", || count(1) >= CONNECTIONS);
    stop.store(true, Ordering::SeqCst);
    let failures = client.join().expect("the client ends");
    assert!(failures.is_empty(), "{} of {}: {:?}", failures.len(), count(0) + count(1), failures.first());
    assert!(count(0) + count(1) >= 2 * CONNECTIONS);
    assert_eq!(count(0), at_end_of_old);
    new_proxy.stop();
}

#[test]
fn a_new_daemon_takes_over_by_cgroup() {
    a_new_daemon_takes_over_without_a_failure("over-c", Mode::Cgroup);
}

#[test]
fn a_new_daemon_takes_over_packet_by_packet() {
    a_new_daemon_takes_over_without_a_failure("over-t", Mode::Tcx);
}

#[test]
fn the_old_daemon_touches_nothing_any_more() {
    let lab = Lab::new("owner");
    let (mut old, _) = lab.daemon(Mode::Cgroup);
    let net = old.open(&lab.a.local).expect("the namespace is the pod's");
    old.enrol(&lab.a.local, &net).expect("enrolled");
    assert!(old.is_owner());
    let (new, _) = lab.daemon(Mode::Cgroup);
    assert!(new.is_owner() && !old.is_owner());
    ip(&format!("-n {} rule del pref {} lookup {}", lab.a.netns, route::RULE_PRIORITY, route::TABLE));
    for _ in 0..5 {
        let repairs = old.reconcile();
        assert!(repairs.made.is_empty() && repairs.failed.is_empty(), "{repairs:?}");
    }
    assert!(matches!(old.enrol(&lab.a.local, &net), Err(SteerError::NotOwner)));
    assert!(matches!(old.restore(&lab.a.local.key), Err(SteerError::NotOwner)));
}

#[test]
fn two_installations_share_a_machine() {
    let (one, two) = (Lab::new("one"), Lab::new("two"));
    for lab in [&one, &two] {
        application_everywhere(&lab.b, 8080);
    }
    let (mut first, _) = one.daemon(Mode::Cgroup);
    let (mut second, _) = two.daemon(Mode::Cgroup);
    let net = first.open(&one.a.local).expect("the namespace is the pod's");
    first.enrol(&one.a.local, &net).expect("enrolled");
    let _first = Proxy::start("first", Service::Report, &net);
    // The same addresses, in another installation's pod.
    let net = second.open(&two.a.local).expect("the namespace is the pod's");
    second.enrol(&two.a.local, &net).expect("enrolled");
    let _second = Proxy::start("second", Service::Report, &net);
    assert_answer("first-outbound", &one.a.ns, (one.b.v4, 8080));
    assert_answer("second-outbound", &two.a.ns, (two.b.v4, 8080));
    first.restore(&one.a.local.key).expect("given back");
    assert_answer("application", &one.a.ns, (one.b.v4, 8080));
    assert_answer("second-outbound", &two.a.ns, (two.b.v4, 8080));
}
