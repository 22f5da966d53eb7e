//! Why the kernel could not be made to steer.
//!
//! Invariant: each error says what was attempted, and holds the kernel's answer as its source.

use std::io;
use std::path::PathBuf;

/// Why the kernel could not be made to steer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteerError {
    /// Another daemon steers this node.
    #[error("another daemon of this node steers; it took over")]
    NotOwner,
    /// No cgroup v2.
    #[error("cannot use cgroup v2{}; mount it, or choose the mode `tcx`", at.as_ref().map(|at| format!(" at {}", at.display())).unwrap_or_default())]
    Cgroup {
        /// Where it should be.
        at: Option<PathBuf>,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The BPF file system refused.
    #[error("cannot pin at {}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The object or its maps could not be loaded.
    #[error("cannot load the eBPF object; maps of another layout at the same place must be removed")]
    Load {
        /// Why not.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program could not be loaded or attached.
    #[error("cannot load or attach the program {name}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why not.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A map could not be read or changed.
    #[error("cannot use the map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why not.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A pod's namespace could not be opened.
    #[error("cannot open the network namespace {path}, or listen in it")]
    Namespace {
        /// Its path.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The namespace is not the pod's.
    #[error("the network namespace {path} is not that of the pod: it {problem}")]
    WrongNamespace {
        /// Its path.
        path: String,
        /// What gives it away.
        problem: String,
    },
    /// A route, a rule or the addresses.
    #[error("cannot read or change routing: {what}")]
    Routing {
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A kernel setting.
    #[error("cannot read or change the kernel setting {name}; /proc/sys must be writable")]
    Sysctl {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the daemon.
    #[error("cannot use {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
