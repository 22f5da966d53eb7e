//! Packet stories, each by cgroup and packet by packet.

use crate::support::{
    Client, Lab, OUTSIDE, Pod, Proxy, SOON, Service, application, application_everywhere, ask, assert_answer,
    eventually, exchange, fates, local_socket, set,
};
use mesh_common::route::{MARK_CAPTURE, MARK_MASK, MARK_PROXY};
use mesh_node::steer::{Mode, PodNet, Steering};
use mesh_node::sys::netns::NetNs;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

macro_rules! in_both_modes {
    ($($story:ident,)*) => {
        mod cgroup {
            $(#[test] fn $story() { super::$story(concat!("c-", stringify!($story)), mesh_node::steer::Mode::Cgroup); })*
        }
        mod tcx {
            $(#[test] fn $story() { super::$story(concat!("t-", stringify!($story)), mesh_node::steer::Mode::Tcx); })*
        }
    };
}

in_both_modes! {
    outbound_connections_reach_the_daemon,
    excluded_ports_and_prefixes_are_left_alone,
    loopback_and_the_own_address_are_left_alone,
    udp_and_icmp_are_left_alone,
    an_application_with_its_own_mark_is_captured,
    the_daemons_own_sockets_are_left_alone,
    no_application_answers_for_a_remote_service,
    inbound_connections_reach_the_daemon,
    without_a_daemon_inbound_is_refused,
    the_application_sees_the_clients_address,
    both_pods_of_a_node_are_in_the_mesh,
    open_connections_survive_enrolment_and_leaving,
    a_closed_port_refuses_at_once,
    a_pod_of_one_family_is_captured_in_that_family,
    a_socket_used_again_is_judged_again,
    no_protocol_that_becomes_tcp_slips_by,
}

/// Enrols a pod and serves its listeners.
fn enrol(steering: &mut Steering, pod: &Pod, service: Service) -> (Arc<PodNet>, Proxy) {
    let net = steering.open(&pod.local).expect("the namespace is the pod's");
    steering.enrol(&pod.local, &net).expect("the pod is enrolled");
    let proxy = Proxy::start("daemon", service, &net);
    (net, proxy)
}

fn outbound_connections_reach_the_daemon(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    // A distribution may be strict about where packets come from.
    for device in ["all", "eth0"] {
        set(&lab.a.ns, &format!("net/ipv4/conf/{device}/rp_filter"), "1");
    }
    let (mut steering, _) = lab.daemon(mode);
    assert_answer("application", &lab.a.ns, (lab.b.v4, 8080));
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    for address in lab.b.both() {
        assert_answer("daemon-outbound", &lab.a.ns, (address, 8080));
    }
    let dual_stack = Client { dual_stack: true, ..Client::default() };
    let answer = dual_stack.ask(&lab.a.ns, (lab.b.v4, 8080).into()).expect("an answer");
    assert_eq!((answer.who.as_str(), answer.dialled), ("daemon-outbound", (lab.b.v4, 8080).into()));
    // Nobody has this address: the connection is the daemon's to refuse.
    assert_answer("daemon-outbound", &lab.a.ns, (IpAddr::from([192, 0, 2, 1]), 80));
    let counts = fates(&steering);
    assert!(counts["connect_captured"] >= 4 && counts["lookup_outbound"] >= 4, "{counts:?}");
    // The other pod is not enrolled.
    assert_answer("application", &lab.b.ns, (lab.b.v4, 8080));
}

fn excluded_ports_and_prefixes_are_left_alone(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    for port in [9000, 9001] {
        application_everywhere(&lab.a, port);
        application_everywhere(&lab.b, port);
    }
    application(&lab.node, (OUTSIDE, 8080).into());
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    for address in lab.b.both() {
        assert_answer("application", &lab.a.ns, (address, 9000));
        assert_answer("daemon-outbound", &lab.a.ns, (address, 9001));
    }
    assert_answer("application", &lab.a.ns, (OUTSIDE, 8080));
    let dual_stack = Client { dual_stack: true, ..Client::default() };
    for to in [SocketAddr::new(OUTSIDE, 8080), SocketAddr::new(lab.b.v4, 9000)] {
        assert_eq!(dual_stack.ask(&lab.a.ns, to).expect("an answer").who, "application");
    }
    for address in lab.a.both() {
        assert_answer("application", &lab.b.ns, (address, 9001));
        assert_answer("daemon-inbound", &lab.b.ns, (address, 9000));
    }
}

fn loopback_and_the_own_address_are_left_alone(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.a, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    for address in loopback.into_iter().chain(lab.a.both()) {
        assert_answer("application", &lab.a.ns, (address, 8080));
    }
    let dual_stack = Client { dual_stack: true, ..Client::default() };
    for address in [loopback[0], lab.a.v4] {
        assert_eq!(dual_stack.ask(&lab.a.ns, (address, 8080).into()).expect("an answer").who, "application");
    }
}

fn udp_and_icmp_are_left_alone(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    let (mut steering, _) = lab.daemon(mode);
    let _served = (enrol(&mut steering, &lab.a, Service::Report), enrol(&mut steering, &lab.b, Service::Report));
    for (from, to) in [(lab.a.v4, lab.b.v4), (lab.a.v6, lab.b.v6)] {
        let bind = |ns: &NetNs, at: IpAddr, port: u16| {
            let socket = ns.enter(|| UdpSocket::bind((at, port))).expect("a free port");
            socket.set_read_timeout(Some(SOON)).expect("a time limit");
            socket
        };
        let (server, client) = (bind(&lab.b.ns, to, 5353), bind(&lab.a.ns, from, 0));
        client.connect((to, 5353)).expect("UDP connects");
        client.send(b"question").expect("sent");
        let mut bytes = [0; 16];
        let (length, peer) = server.recv_from(&mut bytes).expect("the datagram arrives");
        assert_eq!((&bytes[..length], peer.ip()), (&b"question"[..], from));
        server.send_to(b"answer", peer).expect("sent");
        assert_eq!(client.recv(&mut bytes).expect("the answer arrives"), 6);
    }
    assert_eq!(ping(&lab.a.ns, lab.b.v4), lab.b.v4);
}

/// Sends an echo request; who answers.
fn ping(ns: &NetNs, to: IpAddr) -> IpAddr {
    let socket = ns.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))).expect("a raw socket");
    socket.set_read_timeout(Some(SOON)).expect("a time limit");
    // Type 8; the checksum is the complement of the sum of the words, of which only the first is set.
    socket.send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &SocketAddr::new(to, 0).into()).expect("sent");
    let mut bytes = [0; 64];
    let mut socket = socket;
    let length = socket.read(&mut bytes).expect("an answer");
    assert_eq!(bytes[..length][20], 0, "an echo reply");
    IpAddr::from([bytes[12], bytes[13], bytes[14], bytes[15]])
}

fn an_application_with_its_own_mark_is_captured(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    for mark in [1, 0x000f_ffff, 0x1230_0001, MARK_CAPTURE] {
        let client = Client { mark: Some(mark), ..Client::default() };
        let answer = client.ask(&lab.a.ns, (lab.b.v4, 8080).into()).expect("an answer");
        assert_eq!(answer.who, "daemon-outbound", "{mark:#x}");
        if mode == Mode::Cgroup {
            let stream = client.connect(&lab.a.ns, (lab.b.v6, 8080).into()).expect("connected");
            let kept = Socket::from(stream).mark().expect("a mark");
            assert_eq!((kept & MARK_MASK, kept & !MARK_MASK), (MARK_CAPTURE, mark & !MARK_MASK));
        }
    }
}

fn the_daemons_own_sockets_are_left_alone(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    let client = Client { mark: Some(MARK_PROXY | 7), ..Client::default() };
    for address in lab.b.both() {
        assert_eq!(client.ask(&lab.a.ns, (address, 8080).into()).expect("an answer").who, "application");
    }
}

fn no_application_answers_for_a_remote_service(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.a, 8080);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let (net, proxy) = enrol(&mut steering, &lab.a, Service::Report);
    assert_answer("daemon-outbound", &lab.a.ns, (lab.b.v4, 8080));
    proxy.stop();
    drop(net);
    // Nobody may answer. IPv4 waits for a daemon; IPv6 sends resets also from addresses that are not its own.
    let error = ask(&lab.a.ns, (lab.b.v4, 8080)).expect_err("nobody may answer");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let error = ask(&lab.a.ns, (lab.b.v6, 8080)).expect_err("nobody may answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    assert!(fates(&steering)["drop_outbound"] >= 2);
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    assert_answer("daemon-outbound", &lab.a.ns, (lab.b.v4, 8080));
}

fn inbound_connections_reach_the_daemon(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.b, Service::Report);
    for (from, to) in [(lab.a.v4, lab.b.v4), (lab.a.v6, lab.b.v6)] {
        let answer = ask(&lab.a.ns, (to, 8080)).expect("an answer");
        assert_eq!((answer.who.as_str(), answer.client.ip()), ("daemon-inbound", from));
        assert_answer("daemon-inbound", &lab.a.ns, (to, 8080));
    }
    // The node's own probes come by the pod's device too.
    assert_answer("daemon-inbound", &lab.node, (lab.b.v4, 8080));
}

fn without_a_daemon_inbound_is_refused(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let (net, proxy) = enrol(&mut steering, &lab.b, Service::Report);
    proxy.stop();
    drop(net);
    for address in lab.b.both() {
        let error = ask(&lab.a.ns, (address, 8080)).expect_err("nobody may answer");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    assert!(fates(&steering)["drop_inbound"] >= 2);
}

fn the_application_sees_the_clients_address(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.b, Service::Relay);
    for (from, to) in [(lab.a.v4, lab.b.v4), (lab.a.v6, lab.b.v6)] {
        let answer = ask(&lab.a.ns, (to, 8080)).expect("an answer");
        assert_eq!((answer.who.as_str(), answer.client.ip()), ("application", from));
        assert_ne!(answer.client.port(), answer.own.port(), "the daemon stands between");
    }
    let counts = fates(&steering);
    assert!(counts["lookup_inbound"] >= 2, "{counts:?}");
}

/// One pod's captured connection to another looks like that other's connection from its proxy, but for the namespace.
fn both_pods_of_a_node_are_in_the_mesh(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.a, 8080);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = (enrol(&mut steering, &lab.a, Service::Relay), enrol(&mut steering, &lab.b, Service::Relay));
    for (from, to) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        for (source, destination) in from.both().into_iter().zip(to.both()) {
            for port in [0, 1500, 20_000, 50_000] {
                let client = Client { from: Some((source, port).into()), ..Client::default() };
                let answer = client.ask(&from.ns, (destination, 8080).into()).expect("an answer");
                assert_eq!((answer.who.as_str(), answer.client.ip()), ("application", source), "{port}");
                assert_ne!(answer.client.port(), answer.own.port(), "the daemon stands between");
            }
        }
    }
    let counts = fates(&steering);
    // Packets that come after their connection is gone are looked up, too.
    assert!(counts["lookup_outbound"] >= 16 && counts["lookup_inbound"] >= 16, "{counts:?}");
}

fn open_connections_survive_enrolment_and_leaving(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let open = |address: IpAddr| {
        let stream = Client::default().connect(&lab.a.ns, (address, 8080).into()).expect("connected");
        let mut line = String::new();
        BufReader::with_capacity(1, &stream).read_line(&mut line).expect("the application presents itself");
        assert!(line.starts_with("application"), "{line}");
        stream
    };
    let mut before: Vec<_> = lab.b.both().into_iter().map(open).collect();
    let _served = (enrol(&mut steering, &lab.a, Service::Relay), enrol(&mut steering, &lab.b, Service::Relay));
    let mut during: Vec<_> = lab.b.both().into_iter().map(open).collect();
    let mut all = |what: &str| {
        for stream in before.iter_mut().chain(&mut during) {
            exchange(stream, &format!("{what}\n")).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    };
    all("enrolled");
    let captured = fates(&steering)["connect_captured"];
    for pod in [&lab.a, &lab.b] {
        steering.leave(&pod.local.key).expect("the pod leaves");
    }
    all("left");
    // New connections are as if there were no mesh.
    assert_answer("application", &lab.a.ns, (lab.b.v4, 8080));
    assert_answer("application", &lab.b.ns, (lab.b.v6, 8080));
    assert_eq!(fates(&steering)["connect_captured"], captured);
    all("still open");
    drop(during);
    for pod in [&lab.a, &lab.b] {
        steering.restore(&pod.local.key).expect("the namespace is given back");
    }
    for stream in &mut before {
        exchange(stream, "restored\n").expect("still open");
    }
    assert_answer("application", &lab.a.ns, (lab.b.v4, 8080));
}

fn a_closed_port_refuses_at_once(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    let (mut steering, _) = lab.daemon(mode);
    let (net, _proxy) = enrol(&mut steering, &lab.b, Service::Relay);
    // The pod's kernel refuses the connection to the application; the refusal must come back to the daemon.
    for (port, source) in [(3000, lab.a.v4), (3001, lab.a.v6)] {
        let socket = local_socket(&net.ns, (source, port).into()).expect("a socket");
        let to = if source.is_ipv4() { lab.b.v4 } else { lab.b.v6 };
        let error = socket.connect_timeout(&SocketAddr::new(to, 8081).into(), SOON).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
    eventually("the counters are kept", || fates(&steering)["lookup_self"] >= 2);
}

fn a_pod_of_one_family_is_captured_in_that_family(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.a, 8080);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let [only, other] = [(lab.b.v4, lab.b.v6), (lab.b.v6, lab.b.v4)];
    for (captured, free) in [only, other] {
        let mut pod = lab.a.local.clone();
        pod.addresses.retain(|address| address.is_ipv4() == captured.is_ipv4());
        let net = steering.open(&pod).expect("the namespace is the pod's");
        steering.enrol(&pod, &net).expect("the pod is enrolled");
        let proxy = Proxy::start("daemon", Service::Report, &net);
        assert_answer("daemon-outbound", &lab.a.ns, (captured, 8080));
        assert_answer("application", &lab.a.ns, (free, 8080));
        let own = pod.addresses[0];
        assert_answer("daemon-inbound", &lab.b.ns, (own, 8080));
        proxy.stop();
        steering.restore(&pod.key).expect("given back");
    }
}

/// A socket whose first connection failed may be used for another, which may be one that is left alone.
fn a_socket_used_again_is_judged_again(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 9000);
    let (mut steering, _) = lab.daemon(mode);
    let (net, proxy) = enrol(&mut steering, &lab.a, Service::Report);
    proxy.stop();
    drop(net);
    let socket = lab.a.ns.enter(|| Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))).expect("a socket");
    let to = |port| SocketAddr::new(lab.b.v6, port).into();
    socket.connect_timeout(&to(8080), SOON).expect_err("captured, and no daemon listens");
    // The first attempt after a failure may only tell of that failure.
    if let Err(error) = socket.connect_timeout(&to(9000), SOON) {
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        socket.connect_timeout(&to(9000), SOON).expect("an excluded port");
    }
    let mut line = String::new();
    BufReader::new(std::net::TcpStream::from(socket)).read_line(&mut line).expect("a line");
    assert!(line.starts_with("application"), "{line}");
}

fn no_protocol_that_becomes_tcp_slips_by(name: &str, mode: Mode) {
    let lab = Lab::new(name);
    application_everywhere(&lab.b, 8080);
    let (mut steering, _) = lab.daemon(mode);
    let _served = enrol(&mut steering, &lab.a, Service::Report);
    let mptcp = lab.a.ns.enter(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)));
    match mptcp {
        // An application falls back to TCP.
        Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ENOPROTOOPT), "{error}"),
        Ok(socket) => {
            socket.connect_timeout(&SocketAddr::new(lab.b.v4, 8080).into(), SOON).expect("connected");
            let mut line = String::new();
            BufReader::new(std::net::TcpStream::from(socket)).read_line(&mut line).expect("a line");
            assert!(line.starts_with("daemon-outbound"), "{line}");
        }
    }
}
