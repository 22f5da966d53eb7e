//! `cargo xtask cluster`: a real Kubernetes of two nodes with a real Calico, all of it on this machine.
//!
//! In:  what the user wants of it.
//! Out: a cluster, whose kubeconfig, namespaces and logs `target/cluster/state.json` names.
//! Invariant: each node has its own network, mounts, processes, names and cgroups; nothing outside `target/cluster` and
//!            `/run/netns` changes, and both are as before after `down`. One work tree has one cluster.

mod calico;
mod cgroups;
mod check;
mod config;
mod control;
mod images;
mod layout;
mod machine;
mod mounts;
mod network;
mod node;
mod pki;
mod reboot;
mod status;
mod sweep;
mod up;
mod wait;

pub(crate) use images::busybox;

use crate::setup::{self, Group};
use crate::{env, run};
use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use layout::Layout;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Bring it up, in the place of one that is there.
    Up(Choices),
    /// Remove it, also after a crash; the logs stay.
    Down,
    /// Show how every component is, and where its log is.
    Status,
    /// Prove it: pods on both nodes, a Service, DNS, a policy of Calico.
    Check,
    /// Bring it up with the mesh's images, run the tests of `tests/tests/cluster`, and remove it.
    Test {
        /// What the names of tests contain; all by default.
        filters: Vec<String>,
        /// In which cluster.
        #[command(flatten)]
        choices: Choices,
    },
    /// Run kubectl.
    #[command(disable_help_flag = true)]
    Kubectl(Rest),
    /// Run calicoctl.
    #[command(disable_help_flag = true)]
    Calicoctl(Rest),
    /// Import an archive of images on every node.
    LoadImage {
        /// An archive in the layout of OCI or of Docker.
        file: PathBuf,
    },
    /// Run a command inside a node: `cluster exec node1 -- ip route`.
    Exec {
        /// Which node.
        node: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// End a node as a power cut would, and boot it: its disk stays, and nothing else.
    Reboot {
        /// Which node.
        node: String,
        /// Do not wait until its components work.
        #[arg(long)]
        no_wait: bool,
    },
    /// Enter a machine's cgroups and network.
    #[command(hide = true)]
    Launch {
        /// The machine's description.
        description: PathBuf,
    },
    /// Be the first process of a machine.
    #[command(hide = true)]
    Machine {
        /// The machine's description.
        description: PathBuf,
    },
}

/// Arguments for another program.
#[derive(Debug, clap::Args)]
pub(crate) struct Rest {
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Which parts the cluster has.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Choices {
    /// Which of the kernel's packet filters felix uses.
    #[arg(long, value_enum, default_value_t = Felix::Nft)]
    felix: Felix,
    /// Which containerd runs the pods.
    #[arg(long, value_enum, default_value_t = Containerd::V2)]
    containerd: Containerd,
    /// How kube-proxy translates the addresses of Services.
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    proxy: Proxy,
    /// How Calico wraps what pods on different nodes say to each other.
    #[arg(long, value_enum, default_value_t = Encapsulation::Vxlan)]
    encapsulation: Encapsulation,
}

/// The packet filter of Calico's felix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Felix {
    /// iptables over nf_tables.
    #[default]
    Nft,
    /// The first iptables.
    Legacy,
}

/// A version of containerd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Containerd {
    /// The newest, from its Go module.
    #[default]
    #[value(name = "2")]
    V2,
    /// Debian's.
    #[value(name = "1.6")]
    V1_6,
}

/// How kube-proxy works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Proxy {
    #[default]
    Nftables,
    Iptables,
}

/// How packets go from node to node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Encapsulation {
    /// In VXLAN, as where the network knows nothing of pods.
    #[default]
    Vxlan,
    /// As they are, by static routes.
    None,
}

/// Does what the user wants.
///
/// **Errors**: it failed; the error names the component, its log, or the cure.
pub(crate) fn run(action: &Action) -> Result<()> {
    let layout = Layout::of_work_tree();
    if matches!(action, Action::Up(_)) {
        setup::ensure(Group::Cluster)?;
    }
    need_root()?;
    match action {
        Action::Launch { description } => machine::launch(description),
        Action::Machine { description } => machine::run(description),
        Action::Up(choices) => {
            let _lock = lock(&layout)?;
            up::up(&layout, choices)
        }
        Action::Down => {
            let _lock = lock(&layout)?;
            let found = sweep::sweep(&layout)?;
            println!("cluster: {}", if found { "removed" } else { "none was up" });
            Ok(())
        }
        Action::Status => status::print(&layout),
        Action::Check => {
            status::print(&layout)?;
            check::run(&layout)
        }
        Action::Test { filters, choices } => crate::ci::cluster_test(filters, *choices),
        Action::Kubectl(rest) => become_program(need_up(&layout)?.kubectl().args(&rest.arguments)),
        Action::Calicoctl(rest) => become_program(need_up(&layout)?.calicoctl().args(&rest.arguments)),
        Action::LoadImage { file } => images::load(need_up(&layout)?, file),
        Action::Reboot { node, no_wait } => {
            let _lock = lock(&layout)?;
            reboot::reboot(need_up(&layout)?, layout::node(node)?, !no_wait)
        }
        Action::Exec { node, command } => {
            let (program, arguments) = command.split_first().context("no command is given")?;
            become_program(machine::inside(&layout, layout::node(node)?.name, program)?.args(arguments))
        }
    }
}

/// Is a cluster up?
pub(crate) fn is_up() -> bool {
    Layout::of_work_tree().state().exists() && need_up(&Layout::of_work_tree()).is_ok()
}

/// `kubectl` with all rights.
///
/// **Errors**: no cluster is up.
pub(crate) fn kubectl() -> Result<Command> {
    Ok(need_up(&Layout::of_work_tree())?.kubectl())
}

/// Waits until `kubectl` has ended, and gives what it printed.
///
/// **Errors**: no cluster is up, or it fails or is too slow.
pub(crate) fn kubectl_output(arguments: &[&str], patience: Duration) -> Result<String> {
    wait::output(kubectl()?.args(arguments), patience)
}

/// Waits until every definition of the cluster holds.
///
/// **Errors**: no cluster is up, or one does not hold in time.
pub(crate) fn definitions_hold() -> Result<()> {
    let layout = Layout::of_work_tree();
    need_up(&layout)?;
    wait::definitions(&layout)
}

/// A program that `cargo xtask setup` built, where the API server and pods are reached, with a kubeconfig for any deed.
///
/// **Errors**: no cluster is up.
pub(crate) fn client(tool: &str) -> Result<Command> {
    let layout = Layout::of_work_tree();
    let mut command = need_up(&layout)?.in_network(layout::CONTROL, layout.tool(tool));
    command.env("KUBECONFIG", layout.kubeconfig());
    Ok(command)
}

/// Goes on as another program, so that its exit code, terminal and signals are its own.
fn become_program(command: &mut Command) -> Result<()> {
    Err(command.exec()).with_context(|| format!("cannot run {}", run::line(command)))
}

fn need_up(layout: &Layout) -> Result<&Layout> {
    if !layout.namespace(layout::CONTROL).exists() {
        bail!("no cluster is up: run `cargo xtask cluster up`");
    }
    Ok(layout)
}

/// Keeps two from changing the cluster at once.
fn lock(layout: &Layout) -> Result<File> {
    let dir = layout.dir();
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = File::create(dir.join("lock")).context("cannot create the cluster's lock")?;
    file.try_lock().context("another command is changing this cluster: wait for it to end")?;
    Ok(file)
}

fn need_root() -> Result<()> {
    if env::is_root() {
        return Ok(());
    }
    bail!(
        "the cluster makes namespaces and mounts, which needs root: run `sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask cluster …`"
    )
}
