//! Installs what the build, the demo and the tests need.
//!
//! In:  the command that will run, as a [`Group`]; what the machine has.
//! Out: the machine has everything; services that came along are not running.
//! Invariant: what is there is left as it is; a second run installs nothing and takes a second.
//! Source: `invoke-rc.d(8)` for `policy-rc.d`, which keeps Debian from starting services.

mod apt;
mod envoy;
mod needs;

pub(crate) use envoy::envoy;
pub(crate) use needs::{GATEWAY_API, GATEWAY_API_SUITE, Group};

use crate::{env, run};
use anyhow::{Context, Result, bail, ensure};
use needs::{CargoTool, GoModule, GoTool};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Something that a machine lacks.
enum Missing {
    Components(Vec<String>),
    Packages(Vec<&'static needs::Package>),
    Cargo(&'static CargoTool),
    Go(&'static GoTool),
    Module(&'static GoModule),
}

impl Missing {
    /// What it is, for people.
    fn describe(&self) -> String {
        match self {
            Self::Components(names) => format!("Rust components {}", names.join(", ")),
            Self::Packages(packages) => {
                let names: Vec<_> = packages.iter().map(|package| package.name).collect();
                format!("Debian packages {}", names.join(", "))
            }
            Self::Cargo(tool) => format!("{} {}", tool.name, tool.version),
            Self::Go(tool) => tool.name.to_owned(),
            Self::Module(module) => format!("the Go module {}", module.path),
        }
    }

    /// How long it takes on two cores with a good network.
    const fn expected(&self) -> &'static str {
        match self {
            Self::Components(_) | Self::Packages(_) | Self::Module(_) => "about a minute",
            Self::Cargo(tool) => tool.expected,
            Self::Go(tool) => tool.expected,
        }
    }

    fn install(&self) -> Result<()> {
        match self {
            Self::Components(names) => add_components(names),
            Self::Packages(packages) => apt::install(packages),
            Self::Cargo(tool) => install_cargo_tool(tool),
            Self::Go(tool) => build_go_tool(tool),
            Self::Module(module) => run::open(go(module)?.args(["mod", "download", module.path])),
        }
    }
}

/// Installs whatever `group` needs and the machine lacks.
///
/// **Errors**: something could not be installed; the error says what to do.
pub(crate) fn ensure(group: Group) -> Result<()> {
    let missing = missing(group)?;
    if missing.is_empty() {
        println!("setup: everything for `{group}` is there");
        return Ok(());
    }
    println!("setup: {} thing(s) to install for `{group}`", missing.len());
    for (index, what) in missing.iter().enumerate() {
        println!("[{}/{}] {} ({})", index + 1, missing.len(), what.describe(), what.expected());
        let started = Instant::now();
        what.install().with_context(|| format!("setup could not install {}", what.describe()))?;
        println!("       done in {}", run::duration(started.elapsed()));
    }
    let left = self::missing(group)?;
    if !left.is_empty() {
        let left: Vec<_> = left.iter().map(Missing::describe).collect();
        bail!("installed without an error, and yet missing: {}; is another version earlier on PATH?", left.join("; "));
    }
    Ok(())
}

/// Lists what `group` needs and the machine lacks.
///
/// **Errors**: something is missing.
pub(crate) fn check(group: Group) -> Result<()> {
    let missing = missing(group)?;
    for what in &missing {
        println!("missing: {}", what.describe());
    }
    if !missing.is_empty() {
        bail!("install it with `cargo xtask setup {group}`");
    }
    println!("setup: everything for `{group}` is there");
    Ok(())
}

fn missing(group: Group) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    let components = missing_components()?;
    if !components.is_empty() {
        missing.push(Missing::Components(components));
    }
    let packages: Vec<_> =
        needs::PACKAGES.iter().filter(|package| group.includes(package.group) && !package.is_there()).collect();
    if !packages.is_empty() {
        missing.push(Missing::Packages(packages));
    }
    for tool in needs::CARGO_TOOLS.iter().filter(|tool| group.includes(tool.group)) {
        if installed_version(tool).as_deref() != Some(tool.version) {
            missing.push(Missing::Cargo(tool));
        }
    }
    for tool in needs::GO_TOOLS.iter().filter(|tool| group.includes(tool.group)) {
        if std::fs::read_to_string(stamp(tool)).ok() != Some(go_key(tool)?) {
            missing.push(Missing::Go(tool));
        }
    }
    for module in needs::GO_MODULES.iter().filter(|module| group.includes(module.group)) {
        if !is_fetched(module) {
            missing.push(Missing::Module(module));
        }
    }
    Ok(missing)
}

/// Is the module on this machine?
fn is_fetched(module: &GoModule) -> bool {
    directory(module).is_ok()
}

/// The directory of a module that is read. Nothing is fetched to find out.
///
/// **Errors**: Go does not have it.
pub(crate) fn module(path: &str) -> Result<PathBuf> {
    let module = needs::GO_MODULES.iter().find(|module| module.path == path);
    let module = module.with_context(|| format!("no go.mod of this work tree is noted for {path}"))?;
    directory(module)
}

fn directory(module: &GoModule) -> Result<PathBuf> {
    let listed = run::output(go(module)?.env("GOPROXY", "off").args(["list", "-m", "-f", "{{.Dir}}", module.path]))?;
    let directory = PathBuf::from(listed.trim());
    ensure!(directory.is_absolute(), "Go's cache lacks {}: run `cargo xtask setup {}`", module.path, module.group);
    Ok(directory)
}

/// Go, where a module is named.
fn go(module: &GoModule) -> Result<Command> {
    let mut go = Command::new(env::program("go").context("Go is not on PATH")?);
    go.current_dir(env::root().join(module.named_in));
    Ok(go)
}

/// The components of `rust-toolchain.toml` which the toolchain lacks.
fn missing_components() -> Result<Vec<String>> {
    let toolchain = std::fs::read_to_string(env::root().join("rust-toolchain.toml")).context("rust-toolchain.toml")?;
    let wanted = needs::components(&toolchain);
    if env::program("rustup").is_none() {
        let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(env::root()))?;
        if PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
            return Ok(Vec::new());
        }
        bail!(
            "the eBPF build needs the source of Rust's core library: install rustup, then `rustup toolchain install`"
        );
    }
    let installed =
        run::output(Command::new("rustup").args(["component", "list", "--installed"]).current_dir(env::root()))
            .context("the pinned toolchain is not installed: run `rustup toolchain install` in this directory")?;
    Ok(wanted
        .into_iter()
        .filter(|name| !installed.lines().any(|line| line == name || line.starts_with(&format!("{name}-"))))
        .collect())
}

fn add_components(names: &[String]) -> Result<()> {
    run::open(Command::new("rustup").args(["component", "add"]).args(names).current_dir(env::root()))
}

/// The version that `tool` says it has, if it is installed at all.
fn installed_version(tool: &CargoTool) -> Option<String> {
    let text = run::output(Command::new(env::program(tool.program)?).args(tool.version_arguments)).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

fn install_cargo_tool(tool: &CargoTool) -> Result<()> {
    run::open(
        Command::new("cargo")
            .args(["install", tool.name, "--version", tool.version, "--locked", "--force"])
            // A common place, so that the tools share what they have in common.
            .arg("--target-dir")
            .arg(env::target_dir().join("tools/cargo"))
            .current_dir(env::root()),
    )
    .with_context(|| {
        format!(
            "it comes from the crate registry; try `cargo install {} --version {} --locked`",
            tool.name, tool.version
        )
    })
}

fn build_go_tool(tool: &GoTool) -> Result<()> {
    let go = env::program("go").context("Go is not on PATH")?;
    let version = run::output(Command::new(&go).arg("version"))?;
    if !needs::is_go_recent(&version) {
        bail!("it needs Go 1.21 or newer, and this is {}: put a newer one first on PATH", version.trim());
    }
    let tools = env::target_dir().join("tools");
    std::fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
    let module = env::root().join(tool.module);
    let go_mod = std::fs::read_to_string(module.join("go.mod")).with_context(|| format!("{}/go.mod", tool.module))?;
    // It takes long, and whoever waits for it wants to do something else meanwhile.
    let mut build = Command::new("nice");
    build.args(["-n", "5"]).arg(go).args(["build", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags"]);
    build.arg(tool.linker_flags(&go_mod)).arg("-o").arg(tools.join(tool.name)).arg(tool.package);
    build.env("CGO_ENABLED", if tool.cgo { "1" } else { "0" }).current_dir(module);
    run::quiet(&mut build, &tools.join(format!("{}.log", tool.name)))?;
    for name in tool.also {
        let link = tools.join(name);
        if link.symlink_metadata().is_ok() {
            std::fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
        }
        std::os::unix::fs::symlink(tool.name, &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    std::fs::write(stamp(tool), go_key(tool)?).context("cannot note what was built")
}

/// Says what a Go tool was built from, beside it.
fn stamp(tool: &GoTool) -> PathBuf {
    env::target_dir().join("tools").join(format!("{}.built-from", tool.name))
}

/// The files of Go in a module of this work tree and in its packages, in order.
fn own_source(module: &Path) -> Result<String> {
    let list = |directory: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
        entries.map(|entry| Ok(entry.with_context(|| format!("cannot list {}", directory.display()))?.path())).collect()
    };
    let (packages, mut paths): (Vec<_>, Vec<_>) = list(module)?.into_iter().partition(|path| path.is_dir());
    for package in packages {
        paths.extend(list(&package)?);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "go"));
    paths.sort();
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    paths.iter().map(read).collect()
}

/// What a Go tool is built from: the version of Go, its module's pinned sums, its own source.
fn go_key(tool: &GoTool) -> Result<String> {
    let module = env::root().join(tool.module);
    let read = |name: &str| {
        std::fs::read_to_string(module.join(name)).with_context(|| format!("cannot read {}/{name}", tool.module))
    };
    let version = env::program("go").map(|go| run::output(Command::new(go).arg("version"))).transpose()?;
    let (go_mod, sums) =
        (read("go.mod")?, if module.join("go.sum").exists() { read("go.sum")? } else { String::new() });
    let is_own = module.join(tool.package).is_dir();
    let source = if is_own { own_source(&module)? } else { String::new() };
    let flags = tool.linker_flags(&go_mod);
    Ok(format!("{}\n{flags}\n{go_mod}\n{sums}\n{source}", version.unwrap_or_default()))
}
