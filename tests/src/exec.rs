//! Runs programs with a deadline, and keeps some running.

use crate::leftovers;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a program printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    command: String,
}

impl Output {
    /// What it printed, if it succeeded.
    ///
    /// **Errors**: it failed; the error has everything it printed.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{} failed ({})\n{}{}", self.command, self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs `command` to its end.
///
/// **Errors**: it cannot be started, or is not done within `patience` and was killed.
pub fn execute(command: &mut Command, patience: Duration) -> Result<Output> {
    run(command.stdin(Stdio::null()), b"", patience)
}

/// Runs `command` to its end, with `input` as what it reads.
///
/// **Errors**: as [`execute`]. That it does not read its input is none: what it says of that is in the output.
pub fn feed(command: &mut Command, input: &[u8], patience: Duration) -> Result<Output> {
    run(command.stdin(Stdio::piped()), input, patience)
}

fn run(command: &mut Command, input: &[u8], patience: Duration) -> Result<Output> {
    let line = line(command);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run {line}"))?;
    let stdout = read_all(child.stdout.take());
    let stderr = read_all(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // Both outputs are read meanwhile, so neither side waits for the other.
        drop(stdin.write_all(input));
    }
    let status = match wait_child(&mut child, patience) {
        Ok(status) => status,
        Err(error) => {
            end(&mut child);
            return Err(error.context(line));
        }
    };
    Ok(Output { status, stdout: joined(stdout), stderr: joined(stderr), command: line })
}

/// Runs `command` to its end within [`PATIENCE`], and gives what it prints.
///
/// **Errors**: it cannot be started, is too slow, or fails.
pub(crate) fn checked(command: &mut Command) -> Result<String> {
    execute(command, PATIENCE)?.success()
}

/// A program that runs in the background; ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs in the file `log`.
    ///
    /// **Errors**: it cannot be started, or the log not made.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let stdout = create(log)?;
        let stderr = stdout.try_clone().context("cannot share the log")?;
        Self::start_with(command.stdout(stdout).stderr(stderr), log)
    }

    /// Starts `command`, whose outputs are set up, and of which `log` tells most.
    pub(crate) fn start_with(command: &mut Command, log: &Path) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {}", line(command)))?;
        Ok(Self { child: Mutex::new(child), name: line(command), log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// Sends it a signal.
    ///
    /// **Errors**: it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).context("process id")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// How it ended, if it has.
    ///
    /// **Errors**: the kernel does not say.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.child().try_wait().with_context(|| format!("cannot ask for {}", self.name))
    }

    /// Waits for its end.
    ///
    /// **Errors**: it has not ended within `patience`.
    pub fn wait(&self, patience: Duration) -> Result<ExitStatus> {
        wait::until(&format!("the end of {}", self.name), patience, || self.ended())
    }

    /// Everything it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !leftovers::kept() {
            end(&mut self.child());
        }
    }
}

/// A new file for a log.
pub(crate) fn create(log: &Path) -> Result<File> {
    File::create(log).with_context(|| format!("cannot create {}", log.display()))
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn wait_child(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    wait::until("the end of the command", patience, || Ok(child.try_wait()?))
}

/// Ends a child, whether it still runs or not.
fn end(child: &mut Child) {
    // Both fail if it has ended, which is what is wanted.
    drop(child.kill());
    drop(child.wait());
}

fn read_all(source: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            // What could be read is shown even if the rest could not.
            drop(source.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(reader: JoinHandle<String>) -> String {
    reader.join().unwrap_or_default()
}
