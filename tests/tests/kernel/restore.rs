//! What is made is undone, and what is undone by others is made again.

use crate::support::{Lab, Pod, Proxy, SOON, Service, application_everywhere, assert_answer, ip, local_pod, set};
use mesh_common::{pin, route};
use mesh_node::steer::{Mode, PodNet, Repair, SteerError, Steering};
use mesh_node::sys::bpf::PinnedLink;
use mesh_node::sys::sysctl;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const SETTINGS: [&str; 5] = [
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    "net/ipv6/fwmark_reflect",
    "net/ipv4/conf/lo/accept_local",
    "net/ipv4/conf/lo/rp_filter",
];

/// Rules, routes and settings of a pod, as text.
fn namespace(pod: &Pod) -> String {
    let mut text = String::new();
    for family in ["-4", "-6"] {
        for what in ["rule", "route show table all", "addr"] {
            text += &ip(&format!("-n {} {family} {what}", pod.netns));
        }
    }
    for name in SETTINGS {
        text += &format!("{name} = {}\n", sysctl::read(&pod.ns, name).expect("the setting exists"));
    }
    text
}

fn enrol(steering: &mut Steering, pod: &Pod) -> (Arc<PodNet>, Proxy) {
    let net = steering.open(&pod.local).expect("the namespace is the pod's");
    steering.enrol(&pod.local, &net).expect("the pod is enrolled");
    let proxy = Proxy::start("daemon", Service::Report, &net);
    (net, proxy)
}

fn leaving_restores_the_namespace(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    // Something that the pod had set for itself.
    set(&lab.a.ns, "net/ipv4/fwmark_reflect", "1");
    ip(&format!("-n {} rule add pref 50 fwmark 0x7 lookup 7", lab.a.netns));
    ip(&format!("-n {} route add unreachable default table 7", lab.a.netns));
    let before = namespace(&lab.a);
    let (mut steering, _) = lab.daemon(mode);
    let served = enrol(&mut steering, &lab.a);
    assert_ne!(namespace(&lab.a), before, "enrolment changes the namespace");
    steering.leave(&lab.a.local.key).expect("the pod leaves");
    steering.restore(&lab.a.local.key).expect("the namespace is given back");
    assert_eq!(namespace(&lab.a), before);
    drop(served);
    // Again, with a daemon that dies in between, and another enrolment before the end.
    let served = enrol(&mut steering, &lab.a);
    drop((steering, served));
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a);
    drop(steering);
    let (mut steering, _) = lab.daemon(mode);
    steering.restore(&lab.a.local.key).expect("the namespace is given back by a daemon that did not enrol");
    assert_eq!(namespace(&lab.a), before);
    assert!(kernel_objects(&lab, mode).is_empty(), "{:?}", kernel_objects(&lab, mode));
}

#[test]
fn leaving_restores_the_namespace_by_cgroup() {
    leaving_restores_the_namespace("restore-c", Mode::Cgroup);
}

#[test]
fn leaving_restores_the_namespace_packet_by_packet() {
    leaving_restores_the_namespace("restore-t", Mode::Tcx);
}

/// Pins of pods.
fn kernel_objects(lab: &Lab, mode: Mode) -> BTreeSet<PathBuf> {
    let pods = lab.config(mode).bpf_dir.join(pin::LAYOUT).join(pin::LINKS);
    std::fs::read_dir(pods).expect("the directory of pods").map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn what_nobody_keeps_is_swept() {
    let lab = Lab::new("sweep");
    application_everywhere(&lab.b, 8080);
    let before = namespace(&lab.a);
    let (mut steering, _) = lab.daemon(Mode::Cgroup);
    let served = (enrol(&mut steering, &lab.a), enrol(&mut steering, &lab.b));
    drop((steering, served));
    let (mut steering, _) = lab.daemon(Mode::Cgroup);
    steering.sweep(&BTreeSet::from([Arc::clone(&lab.b.local.key)])).expect("swept");
    assert_eq!(namespace(&lab.a), before);
    assert_eq!(kernel_objects(&lab, Mode::Cgroup).len(), 1, "the other pod is kept");
    steering.sweep(&BTreeSet::new()).expect("swept");
    assert!(kernel_objects(&lab, Mode::Cgroup).is_empty());
    assert_answer("application", &lab.a.ns, (lab.b.v4, 8080));
}

#[test]
fn a_pod_whose_namespace_is_gone_is_forgotten() {
    let lab = Lab::new("forget");
    let (mut steering, _) = lab.daemon(Mode::Cgroup);
    let _served = enrol(&mut steering, &lab.a);
    steering.forget(&lab.a.local.key).expect("forgotten");
    assert!(kernel_objects(&lab, Mode::Cgroup).is_empty());
    steering.forget(&lab.a.local.key).expect("once more is no error");
    assert!(steering.reconcile().made.is_empty());
}

#[test]
fn a_record_of_an_earlier_boot_takes_nothing_from_the_pod_that_has_its_cookie_now() {
    let lab = Lab::new("boot");
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(Mode::Cgroup);
    let _served = enrol(&mut steering, &lab.a);
    let records = lab.config(Mode::Cgroup).state_dir.join("pods");
    let own = std::fs::read_dir(&records).expect("records").next().expect("one").expect("an entry").path();
    let text = std::fs::read_to_string(own).expect("the record of the pod");
    let earlier = text.replace(&lab.a.netns, "gone").replace(&lab.a.v4.to_string(), "10.65.7.7");
    assert_ne!(earlier, text);
    std::fs::write(records.join("earlier.json"), earlier).expect("a record of an earlier boot");
    steering.sweep(&BTreeSet::from([Arc::clone(&lab.a.local.key)])).expect("swept");
    assert!(!records.join("earlier.json").exists(), "the record is swept");
    let repairs = steering.reconcile();
    assert!(repairs.made.is_empty(), "something of the pod was swept: {repairs:?}");
    assert_answer("daemon-outbound", &lab.a.ns, (lab.b.v4, 8080));
}

#[test]
fn a_namespace_of_another_pod_is_never_steered() {
    let lab = Lab::new("wrong");
    let (steering, _) = lab.daemon(Mode::Cgroup);
    let other = local_pod("a", &lab.a.netns, &lab.b.both());
    assert!(matches!(steering.open(&other), Err(SteerError::WrongNamespace { .. })));
    let mut node = lab.a.local.clone();
    node.netns = "/proc/self/ns/net".to_owned();
    assert!(matches!(steering.open(&node), Err(SteerError::WrongNamespace { .. })));
    node.netns = "/run/netns/sk-nothing".to_owned();
    assert!(matches!(steering.open(&node), Err(SteerError::Namespace { .. })));
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Breaks something, and waits until the daemon has put it right.
fn repair(mode: Mode, name: &str, breaks: impl Fn(&Lab), kind: Repair) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, metrics) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a);
    let whole = namespace(&lab.a);
    assert!(steering.reconcile().made.is_empty(), "nothing is broken yet");
    breaks(&lab);
    let start = Instant::now();
    // The daemon calls once a second: five calls are five seconds.
    let repairs: Vec<_> = (0..5).map(|_| steering.reconcile()).collect();
    assert!(start.elapsed() < SOON);
    let made: u32 = repairs.iter().filter_map(|repairs| repairs.made.get(&kind)).sum();
    assert!(made >= 1, "{kind:?}: {repairs:?}");
    assert!(repairs.iter().all(|repairs| repairs.failed.is_empty()), "{repairs:?}");
    // A rule comes back behind its equals in priority.
    assert_eq!(sorted(&namespace(&lab.a)), sorted(&whole));
    let counted = format!("mesh_steer_repairs_total{{kind=\"{}\"}} {made}", kind.name());
    let text = metrics.encode().expect("metrics");
    assert!(text.contains(&counted), "{counted}\n{text}");
    for address in lab.b.both() {
        assert_answer("daemon-outbound", &lab.a.ns, (address, 8080));
    }
    assert!(steering.reconcile().made.is_empty(), "nothing is broken any more");
}

#[test]
fn a_deleted_rule_comes_back() {
    let breaks = |lab: &Lab| {
        for family in ["-4", "-6"] {
            ip(&format!("-n {} {family} rule del pref {} lookup {}", lab.a.netns, route::RULE_PRIORITY, route::TABLE));
        }
    };
    repair(Mode::Cgroup, "rule", breaks, Repair::Rule);
}

#[test]
fn a_deleted_route_comes_back() {
    let breaks = |lab: &Lab| {
        for family in ["-4", "-6"] {
            ip(&format!("-n {} {family} route flush table {}", lab.a.netns, route::TABLE));
        }
    };
    repair(Mode::Cgroup, "route", breaks, Repair::Route);
}

#[test]
fn a_changed_setting_comes_back() {
    let breaks = |lab: &Lab| {
        for name in &SETTINGS[..3] {
            set(&lab.a.ns, name, "0");
        }
    };
    repair(Mode::Cgroup, "sysctl", breaks, Repair::Sysctl);
}

fn remove_pins(lab: &Lab, mode: Mode) {
    let root = lab.config(mode).bpf_dir.join(pin::LAYOUT);
    for name in [pin::CONNECT4, pin::CONNECT6] {
        let pin = root.join(name);
        assert_eq!(PinnedLink::open(&pin).expect("a link").is_some(), mode == Mode::Cgroup);
        std::fs::remove_file(pin).ok();
    }
    for directory in kernel_objects(lab, mode) {
        std::fs::remove_dir_all(directory).expect("removed");
    }
}

#[test]
fn a_detached_program_comes_back() {
    let breaks = |lab: &Lab| {
        for directory in kernel_objects(lab, Mode::Cgroup) {
            let link = PinnedLink::open(&directory.join(pin::LOOKUP)).expect("a pin").expect("a link");
            assert!(link.state().expect("a state").attached);
            link.detach().expect("detached");
        }
    };
    repair(Mode::Cgroup, "detached", breaks, Repair::Link);
}

#[test]
fn a_deleted_pin_comes_back() {
    repair(Mode::Cgroup, "pin-c", |lab| remove_pins(lab, Mode::Cgroup), Repair::Link);
}

#[test]
fn a_deleted_pin_comes_back_packet_by_packet() {
    repair(Mode::Tcx, "pin-t", |lab| remove_pins(lab, Mode::Tcx), Repair::Link);
}
