//! A machine: its first process, which starts the others, starts them again when they end, and buries the dead.
//!
//! In:  a [`Machine`], read from a file.
//! Out: the components run, and print into their logs.
//! Invariant: everything in the machine ends with its first process, for that is the first of a namespace of processes.
//! Source: `pid_namespaces(7)`, `unshare(1)`, `setsid(1)`.

use super::layout::Layout;
use super::{cgroups, mounts, wait};
use crate::{env, run};
use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The file in a machine's directory that describes it.
const DESCRIPTION: &str = "machine.json";
/// Between the end of a component and its next start.
const RESTART: Duration = Duration::from_millis(500);
/// How long a component may take until others can use it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a component.
const PAUSE: Duration = Duration::from_millis(50);

/// What a machine is made of.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Machine {
    pub(super) name: String,
    /// Cargo's directory, which is seen inside where it is outside.
    pub(super) target: PathBuf,
    /// Does it run containers? Then it has cgroups and file systems of its own.
    pub(super) node: bool,
    /// Directories of this machine, and where they are inside.
    pub(super) binds: Vec<(PathBuf, PathBuf)>,
    /// The `PATH` of every component.
    pub(super) search_path: String,
    pub(super) components: Vec<Component>,
}

/// A program that always runs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Succeeds once others can use it; empty if nothing waits for it.
    pub(super) ready: Vec<String>,
    /// Run then, before the next component starts.
    pub(super) then: Vec<Vec<String>>,
}

impl Component {
    /// A component for which nothing waits.
    pub(super) fn new(name: &str, program: &Path, arguments: &[String]) -> Self {
        let mut command = vec![program.display().to_string()];
        command.extend(arguments.iter().cloned());
        Self { name: name.to_owned(), command, environment: Vec::new(), ready: Vec::new(), then: Vec::new() }
    }
}

/// Starts a machine, which goes on when this process ends.
///
/// **Errors**: a file cannot be written, or the first program not be started.
pub(super) fn start(layout: &Layout, machine: &Machine) -> Result<()> {
    let dir = layout.machine(&machine.name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (outside, _) in &machine.binds {
        std::fs::create_dir_all(outside).with_context(|| format!("cannot create {}", outside.display()))?;
    }
    let description = dir.join(DESCRIPTION);
    let text = serde_json::to_string_pretty(machine).context("cannot describe a machine")?;
    std::fs::write(&description, text).with_context(|| format!("cannot write {}", description.display()))?;
    boot(layout, &machine.name)
}

/// Starts a machine that is described already; as [`start`].
///
/// **Errors**: a log cannot be written, or the first program not be started.
pub(super) fn boot(layout: &Layout, name: &str) -> Result<()> {
    let log = create_log(&layout.log(name, "machine"))?;
    Command::new("setsid")
        .arg(env::own_program()?)
        .args(["cluster", "launch"])
        .arg(layout.machine(name).join(DESCRIPTION))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log)
        .spawn()
        .context("cannot run setsid, of the package util-linux")
        .map(drop)
}

/// Enters the machine's cgroups and network, and becomes the parent of its first process.
///
/// **Errors**: only if it fails; else this process is another program.
pub(super) fn launch(description: &Path) -> Result<()> {
    let machine = read(description)?;
    let layout = Layout::of_work_tree();
    if machine.node {
        cgroups::enter(&layout.name(&machine.name)).context(
            "the cluster needs cgroups that root may write: mount them below /sys/fs/cgroup; in a container, run it privileged",
        )?;
    }
    let mut command = layout.in_network(&machine.name, "unshare");
    command.args(["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
    if machine.node {
        command.arg("--cgroup");
    }
    command.arg(env::own_program()?).args(["cluster", "machine"]).arg(description);
    Err(command.exec()).context("cannot run nsenter, of the package util-linux")
}

/// Runs as the first process of a machine. Comes back only if it fails, and then everything in the machine ends.
///
/// **Errors**: something could not be mounted or started, or was not ready in time.
pub(super) fn run(description: &Path) -> Result<()> {
    let machine = read(description)?;
    let layout = Layout::of_work_tree();
    // `/proc` is still that of the outside, and so is the number.
    let outside = std::fs::read_link("/proc/self").context("cannot read /proc/self")?;
    std::fs::write(layout.machine(&machine.name).join("pid"), outside.as_os_str().as_encoded_bytes())
        .context("cannot note the number of the machine's first process")?;
    nix::unistd::sethostname(&machine.name).context("cannot set the machine's name")?;
    mounts::make(&machine)?;
    let mut running = BTreeMap::new();
    for component in &machine.components {
        running.insert(spawn(&layout, &machine, component)?, component);
        prepare(&layout, &machine, component)?;
    }
    loop {
        let ended = match waitpid(None, None).context("cannot wait for the processes of the machine")? {
            WaitStatus::Exited(process, status) => Some((process, format!("with status {status}"))),
            WaitStatus::Signaled(process, signal, _) => Some((process, format!("by {signal}"))),
            // Only what has ended is buried.
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => None,
        };
        let Some((process, how)) = ended else { continue };
        if let Some(component) = running.remove(&process.as_raw()) {
            println!("{} ended {how}, and starts again", component.name);
            thread::sleep(RESTART);
            running.insert(spawn(&layout, &machine, component)?, component);
        }
    }
}

/// A command that runs inside a machine that is up, with the programs that its components find.
///
/// **Errors**: the machine is down.
pub(super) fn inside(layout: &Layout, name: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let process = layout.first_process(name);
    let process = process.with_context(|| format!("{name} is down: run `cargo xtask cluster up`"))?;
    let machine = read(&layout.machine(name).join(DESCRIPTION))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &process.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--"]);
    command.arg(program).env("PATH", machine.search_path);
    Ok(command)
}

/// Waits until a component can be used, and then does what comes after.
fn prepare(layout: &Layout, machine: &Machine, component: &Component) -> Result<()> {
    let Some((program, arguments)) = component.ready.split_first() else { return Ok(()) };
    let started = Instant::now();
    while !command(machine, program).args(arguments).output().is_ok_and(|output| output.status.success()) {
        if started.elapsed() > PATIENCE {
            let log = layout.log(&machine.name, &component.name);
            bail!("{} is not ready after {}: see {}", component.name, run::duration(PATIENCE), log.display());
        }
        thread::sleep(PAUSE);
    }
    for step in &component.then {
        let Some((program, arguments)) = step.split_first() else { continue };
        wait::output(command(machine, program).args(arguments), PATIENCE)?;
    }
    println!("{} was ready after {}", component.name, run::duration(started.elapsed()));
    Ok(())
}

/// Starts a component; returns its number.
fn spawn(layout: &Layout, machine: &Machine, component: &Component) -> Result<i32> {
    let (program, arguments) = component.command.split_first().context("a component without a program")?;
    let log = create_log(&layout.log(&machine.name, &component.name))?;
    let child = command(machine, program)
        .args(arguments)
        .envs(component.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}: is {program} there?", component.name))?;
    i32::try_from(child.id()).context("the number of a process")
}

/// A command with the environment of the machine.
fn command(machine: &Machine, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", &machine.search_path).env("HOME", "/root").current_dir("/");
    command
}

fn read(description: &Path) -> Result<Machine> {
    let text = std::fs::read(description).with_context(|| format!("cannot read {}", description.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} describes no machine", description.display()))
}

fn create_log(path: &Path) -> Result<File> {
    let dir = path.parent().context("a log without a directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    File::options().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}
