//! Two pods on one node, as Calico wires them, and what plays the application, the client and the daemon.

use mesh_common::map::{Fate, Side};
use mesh_node::model::{Identity, Name, Text};
use mesh_node::snapshot::{InboundModes, LocalPod, WorkloadEntry, WorkloadLabels};
use mesh_node::steer::{Config, Host, Mode, PodNet, Steering};
use mesh_node::sys::netns::NetNs;
use mesh_node::sys::socket::{Destined, streams, toward_application, toward_network};
use mesh_node::sys::sysctl;
use mesh_node::telemetry::Metrics;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How long a client waits before it is sure that nobody answers.
const SILENCE: Duration = Duration::from_millis(1500);

/// An address of the node, outside both pods.
pub(crate) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 65, 9, 1));

/// A pod's namespace.
pub(crate) struct Pod {
    pub(crate) netns: String,
    pub(crate) ns: NetNs,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
    pub(crate) local: LocalPod,
}

/// A node's namespace between the namespaces of two pods.
pub(crate) struct Lab {
    name: String,
    pub(crate) node: NetNs,
    pub(crate) a: Pod,
    pub(crate) b: Pod,
}

impl Lab {
    /// Wires node and pods.
    pub(crate) fn new(name: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the kernel suite makes network namespaces: run it as root");
        let name = format!("sk-{name}");
        remove(&name);
        let node = format!("{name}-n");
        ip(&format!("netns add {node}"));
        ip(&format!("-n {node} link set lo up"));
        ip(&format!("-n {node} addr add {OUTSIDE}/32 dev lo"));
        // The node answers for a pod's next hop only if it could go on from there.
        ip(&format!("-n {node} link add up0 type veth peer name up1"));
        for device in ["up0", "up1"] {
            ip(&format!("-n {node} link set {device} up"));
        }
        ip(&format!("-n {node} addr add 192.168.77.1/24 dev up0"));
        ip(&format!("-n {node} route add default via 192.168.77.254 dev up0"));
        let node = NetNs::open(format!("/run/netns/{node}")).expect("the namespace just made");
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            set(&node, setting, "1");
        }
        let (a, b) = (Pod::new(&name, "a", 1, &node), Pod::new(&name, "b", 2, &node));
        Self { name, node, a, b }
    }

    /// What steering is told in this lab.
    pub(crate) fn config(&self, mode: Mode) -> Config {
        let (bpf_dir, state_dir) = directories(&self.name);
        Config {
            host: Host::default(),
            bpf_dir,
            state_dir,
            cgroup: None,
            mode,
            excluded_outbound_ports: vec![9000],
            excluded_inbound_ports: vec![9001],
            excluded_prefixes: vec!["10.65.9.0/24".parse().expect("a prefix")],
        }
    }

    /// A daemon that is ready to steer, and its metrics.
    pub(crate) fn daemon(&self, mode: Mode) -> (Steering, Metrics) {
        let metrics = Metrics::default();
        let mut steering = Steering::start(self.config(mode), &metrics).expect("steering starts");
        steering.take_over().expect("nobody else steers");
        (steering, metrics)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Sets a setting of a namespace.
pub(crate) fn set(ns: &NetNs, name: &str, value: &str) {
    sysctl::write(Path::new(sysctl::ALL), ns, (name, value)).expect("a setting");
}

fn directories(name: &str) -> (PathBuf, PathBuf) {
    (PathBuf::from("/sys/fs/bpf").join(name), std::env::temp_dir().join(name))
}

/// Removes what the test made, or an earlier run of it.
fn remove(name: &str) {
    let (bpf_dir, state_dir) = directories(name);
    for directory in [bpf_dir, state_dir] {
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("left behind: {}: {error}", directory.display());
            }
            _ => {}
        }
    }
    for suffix in ["n", "a", "b"] {
        let netns = format!("{name}-{suffix}");
        if PathBuf::from("/run/netns").join(&netns).exists() {
            ip(&format!("netns del {netns}"));
        }
    }
}

impl Pod {
    fn new(lab: &str, suffix: &str, number: u8, node: &NetNs) -> Self {
        let netns = format!("{lab}-{suffix}");
        let (peer, node_name) = (format!("cali{suffix}"), format!("{lab}-n"));
        let v4 = IpAddr::from([10, 65, 0, number]);
        let v6 = IpAddr::from([0xfd00, 0x65, 0, 0, 0, 0, 0, u16::from(number)]);
        let next_hop6 = "fe80::ecee:eeff:feee:eeee";
        ip(&format!("netns add {netns}"));
        // An address that is still being tested would make two looks at one namespace differ.
        ip(&format!("netns exec {netns} sysctl -q -w net.ipv6.conf.default.accept_dad=0"));
        let ns = NetNs::open(format!("/run/netns/{netns}")).expect("the namespace just made");
        ip(&format!("-n {netns} link set lo up"));
        ip(&format!("link add eth0 netns {netns} type veth peer name {peer} netns {node_name}"));
        ip(&format!("-n {node_name} link set {peer} address ee:ee:ee:ee:ee:ee up"));
        for (setting, value) in [
            (format!("net/ipv4/conf/{peer}/proxy_arp"), "1"),
            (format!("net/ipv4/neigh/{peer}/proxy_delay"), "0"),
            (format!("net/ipv4/conf/{peer}/rp_filter"), "1"),
            (format!("net/ipv6/conf/{peer}/proxy_ndp"), "1"),
        ] {
            set(node, &setting, value);
        }
        ip(&format!("-n {node_name} addr add {next_hop6}/64 dev {peer} nodad"));
        ip(&format!("-n {netns} link set eth0 up"));
        ip(&format!("-n {netns} addr add {v4}/32 dev eth0"));
        ip(&format!("-n {netns} addr add {v6}/128 dev eth0 nodad"));
        ip(&format!("-n {netns} route add 169.254.1.1 dev eth0 scope link"));
        ip(&format!("-n {netns} route add default via 169.254.1.1 dev eth0"));
        ip(&format!("-n {netns} -6 route add default via {next_hop6} dev eth0"));
        ip(&format!("-n {node_name} route add {v4}/32 dev {peer} scope link"));
        ip(&format!("-n {node_name} -6 route add {v6}/128 dev {peer}"));
        let local = local_pod(suffix, &netns, &[v4, v6]);
        Self { netns, ns, v4, v6, local }
    }

    /// The pod's addresses.
    pub(crate) fn both(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }
}

/// A pod as the snapshot tells of it. Its key is one that no file name may carry as it is.
pub(crate) fn local_pod(name: &str, netns: &str, addresses: &[IpAddr]) -> LocalPod {
    let name = Name::new("test", name);
    let identity: Identity = "spiffe://cluster.local/ns/test/sa/default".parse().expect("an identity");
    LocalPod {
        key: format!("sandbox.of/{name}").into(),
        name,
        uid: String::new(),
        probe_ports: Box::default(),
        netns: format!("/run/netns/{netns}"),
        ifname: "eth0".to_owned(),
        addresses: addresses.to_vec(),
        enrolled: true,
        announced: mesh_node::model::Announced::InForce,
        workload: Arc::new(WorkloadEntry {
            identity: Arc::new(identity),
            inbound: None::<InboundModes>,
            takes_mutual_tls: false,
            labels: Arc::new(WorkloadLabels {
                workload: Text::new(),
                namespace: Text::new(),
                app: Text::new(),
                version: Text::new(),
                canonical_service: Text::new(),
                canonical_revision: Text::new(),
                principal: Text::new(),
            }),
            subject: Arc::default(),
        }),
    }
}

/// Runs `ip` and fails with what it says.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ip prints text")
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// An application: says who it is and who it sees, then echoes. On an IPv6 wildcard it serves both families.
pub(crate) fn application(ns: &NetNs, address: SocketAddr) {
    let listener = ns.enter(|| TcpListener::bind(address)).expect("the application's address is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                if say(&mut stream, "application").is_ok()
                    && let Ok(mut input) = stream.try_clone()
                {
                    io::copy(&mut input, &mut stream).ok();
                }
            });
        }
    });
}

/// Applications on a port of every address of a pod.
pub(crate) fn application_everywhere(pod: &Pod, port: u16) {
    application(&pod.ns, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
}

/// One line: who speaks, the address dialled, and the client.
fn say(stream: &mut TcpStream, who: &str) -> io::Result<()> {
    let (local, peer) = (canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
    writeln!(stream, "{who} {local} {peer}")
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How a client connects.
#[derive(Clone, Copy, Default)]
pub(crate) struct Client {
    /// From this address and port.
    pub(crate) from: Option<SocketAddr>,
    /// With this mark of its own.
    pub(crate) mark: Option<u32>,
    /// By an IPv6 socket, also to an IPv4 address.
    pub(crate) dual_stack: bool,
}

impl Client {
    /// Connects from inside `ns`.
    pub(crate) fn connect(self, ns: &NetNs, to: SocketAddr) -> io::Result<TcpStream> {
        let v6 = self.dual_stack || to.is_ipv6();
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = ns.enter(|| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))?;
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let Some(from) = self.from {
            socket.set_reuse_address(true)?;
            socket.bind(&from.into())?;
        }
        let to = match to.ip() {
            IpAddr::V4(address) if v6 => SocketAddr::from((address.to_ipv6_mapped(), to.port())),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        };
        socket.connect_timeout(&to.into(), SILENCE)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket.into())
    }

    /// Connects and reads the line with which the other end presents itself: who, address dialled, client.
    pub(crate) fn ask(self, ns: &NetNs, to: SocketAddr) -> io::Result<Answer> {
        let stream = self.connect(ns, to)?;
        let own = canonical(stream.local_addr()?);
        assert_eq!(canonical(stream.peer_addr()?), to, "the client sees the address it dialled");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let parts: Vec<&str> = line.split_whitespace().collect();
        match parts.as_slice() {
            &[who, local, peer] => Ok(Answer {
                who: who.to_owned(),
                dialled: local.parse().map_err(io::Error::other)?,
                client: peer.parse().map_err(io::Error::other)?,
                own,
            }),
            _ => Err(io::Error::other(format!("not an answer: {line:?}"))),
        }
    }
}

/// Who answered a client, and what it saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) who: String,
    pub(crate) dialled: SocketAddr,
    pub(crate) client: SocketAddr,
    /// The client's own idea of its address.
    pub(crate) own: SocketAddr,
}

/// Asks as a plain client.
pub(crate) fn ask(ns: &NetNs, to: impl Into<SocketAddr>) -> io::Result<Answer> {
    Client::default().ask(ns, to.into())
}

/// Asserts who answers a plain client, and that it sees the true addresses.
#[track_caller]
pub(crate) fn assert_answer(who: &str, ns: &NetNs, to: impl Into<SocketAddr>) {
    let to = to.into();
    let answer = ask(ns, to).unwrap_or_else(|error| panic!("nobody answers at {to}: {error}"));
    assert_eq!((answer.who.as_str(), answer.dialled, answer.client), (who, to, answer.own));
}

/// Exchanges one line over an open connection to an application.
pub(crate) fn exchange(stream: &mut TcpStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes())?;
    let mut answer = vec![0; line.len()];
    stream.read_exact(&mut answer)?;
    if answer == line.as_bytes() { Ok(()) } else { Err(io::Error::other("not what was sent")) }
}

/// What plays the daemon's proxy on a pod's listeners.
#[derive(Clone, Copy)]
pub(crate) enum Service {
    /// Presents itself and closes.
    Report,
    /// Carries bytes: outbound to the address dialled, inbound to the application, with the client's address.
    Relay,
}

/// Threads that serve a pod's listeners until stopped.
pub(crate) struct Proxy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Serves the listeners of `net` under this name.
    pub(crate) fn start(name: &'static str, service: Service, net: &PodNet) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let listeners = &net.listeners;
        let sides = [
            (Side::Outbound, &listeners.outbound4),
            (Side::Outbound, &listeners.outbound6),
            (Side::Inbound, &listeners.inbound4),
            (Side::Inbound, &listeners.inbound6),
        ];
        let start = |(side, listener): (Side, &Option<TcpListener>)| {
            let listener = listener.as_ref()?.try_clone().expect("a descriptor");
            let (stop, ns) = (Arc::clone(&stop), Arc::clone(&net.ns));
            Some(std::thread::spawn(move || {
                serve(&listener, &stop, |stream| match service {
                    Service::Report => report(name, side, stream),
                    Service::Relay => {
                        let ns = Arc::clone(&ns);
                        std::thread::spawn(move || relay(&ns, side, &stream));
                    }
                })
            }))
        };
        let threads = sides.into_iter().filter_map(start).collect();
        Self { stop, threads }
    }

    /// Serves what is already accepted by the kernel, and ends.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("the proxy's thread ends");
        }
    }
}

/// Accepts until told to stop, and then what is left in the queue.
fn serve(listener: &TcpListener, stop: &AtomicBool, each: impl Fn(TcpStream)) {
    loop {
        let last = stop.load(Ordering::SeqCst);
        loop {
            match listener.accept() {
                Ok((stream, _)) => each(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("accept: {error}"),
            }
        }
        if last {
            return;
        }
        wait_readable(listener);
    }
}

fn wait_readable(listener: &TcpListener) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_u8)).expect("poll");
}

fn report(name: &str, side: Side, mut stream: TcpStream) {
    let side = if side == Side::Outbound { "outbound" } else { "inbound" };
    stream.set_nonblocking(false).expect("a blocking socket");
    say(&mut stream, &format!("{name}-{side}")).ok();
    stream.shutdown(Shutdown::Write).ok();
}

/// A source port for each connection to an application, outside the ephemeral range.
static SOURCE_PORT: AtomicU16 = AtomicU16::new(2000);

/// A socket for a connection to the application of the pod in `ns`, which will see `source`.
pub(crate) fn local_socket(ns: &NetNs, source: SocketAddr) -> io::Result<Socket> {
    let socket = stream(ns, source.is_ipv6())?;
    toward_application(&socket, source.is_ipv6())?;
    socket.bind(&source.into())?;
    Ok(socket)
}

fn stream(ns: &NetNs, v6: bool) -> io::Result<Socket> {
    streams(ns, v6, 1)?.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn relay(ns: &NetNs, side: Side, downstream: &TcpStream) {
    let connect = || -> io::Result<TcpStream> {
        let (dialled, client) = (downstream.local_addr()?, downstream.peer_addr()?);
        let socket = if side == Side::Outbound {
            let socket = stream(ns, dialled.is_ipv6())?;
            toward_network(&socket, dialled.is_ipv6(), (Destined::Plain, true))?;
            socket
        } else {
            local_socket(ns, SocketAddr::new(client.ip(), SOURCE_PORT.fetch_add(1, Ordering::SeqCst)))?
        };
        socket.connect_timeout(&dialled.into(), SOON)?;
        socket.set_nonblocking(false)?;
        downstream.set_nonblocking(false)?;
        Ok(socket.into())
    };
    let upstream = match connect() {
        Ok(upstream) => upstream,
        Err(error) => return eprintln!("relay: {error}"),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| carry(downstream, &upstream));
        carry(&upstream, downstream);
    });
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}

/// The counters, by name.
pub(crate) fn fates(steering: &Steering) -> BTreeMap<&'static str, u64> {
    let counts = steering.fates().expect("the counters can be read");
    Fate::ALL.into_iter().map(Fate::name).zip(counts).collect()
}
