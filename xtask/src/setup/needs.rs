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
    /// `cargo xtask test`.
    Test,
    /// `cargo xtask ci`.
    Ci,
    /// `cargo xtask bench`.
    Bench,
    /// Everything.
    All,
}

impl Group {
    /// Does whoever needs `self` also need what `other` needs?
    pub(crate) const fn includes(self, other: Self) -> bool {
        match self {
            Self::Build => matches!(other, Self::Build),
            Self::Demo => matches!(other, Self::Build | Self::Demo),
            Self::Test => matches!(other, Self::Build | Self::Demo | Self::Test),
            Self::Ci => matches!(other, Self::Build | Self::Demo | Self::Test | Self::Ci),
            Self::Bench => matches!(other, Self::Build | Self::Demo | Self::Bench),
            Self::All => true,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Build => "build",
            Self::Demo => "demo",
            Self::Test => "test",
            Self::Ci => "ci",
            Self::Bench => "bench",
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
    package("golang-go", "go", Group::Test),
    package("bpftool", "bpftool", Group::Test),
    service("mariadb-server", "mariadbd", Group::Test, &["mariadb"]),
    package("mariadb-client", "mariadb", Group::Test),
    service("redis-server", "redis-server", Group::Test, &["redis-server"]),
    service("opensmtpd", "smtpd", Group::Test, &["opensmtpd"]),
    service("haproxy", "haproxy", Group::Bench, &["haproxy"]),
    package("wrk", "wrk", Group::Bench),
    package("iperf3", "iperf3", Group::Bench),
];

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
    /// The module's directory.
    pub(crate) module: &'static str,
    pub(crate) package: &'static str,
    pub(crate) group: Group,
    pub(crate) expected: &'static str,
}

/// Every such program.
pub(crate) const GO_TOOLS: &[GoTool] = &[
    GoTool {
        name: "cnitool",
        module: "tests/tools/cni",
        package: "github.com/containernetworking/cni/cnitool",
        group: Group::Test,
        expected: "half a minute",
    },
    GoTool {
        name: "helm",
        module: "tests/tools/helm",
        package: "helm.sh/helm/v3/cmd/helm",
        group: Group::Ci,
        expected: "5 minutes",
    },
];

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
    fn demo_needs_no_go_and_nothing_of_the_tests() {
        assert!(GO_TOOLS.iter().all(|tool| !Group::Demo.includes(tool.group)));
        assert!(!Group::Demo.includes(Group::Test));
        assert!(!Group::Test.includes(Group::Bench));
        assert!(Group::Ci.includes(Group::Test));
    }
}
