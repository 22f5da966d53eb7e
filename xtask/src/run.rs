//! Runs commands: in the open, or quietly with a log and a sign of life.
//!
//! Invariant: a command that fails is named in full, with the end of what it printed.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often a quiet command shows that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// How many lines of a failed command's log are shown.
const LOG_TAIL: usize = 30;

/// Runs `command` with its output on the terminal.
///
/// **Errors**: it cannot be started or fails.
pub(crate) fn open(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// What `command` prints.
///
/// **Errors**: it cannot be started or fails; its error output is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", line(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})\n{}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` with its output in the file `log`, saying every 20 seconds that it still runs.
///
/// **Errors**: it cannot be started or fails; the end of the log is in the error.
pub(crate) fn quiet(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot create the log {}", log.display()))?;
    let errors = file.try_clone().context("cannot share the log between output and errors")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot run {}", line(command)))?;
    let started = Instant::now();
    let (done, watch) = channel::<()>();
    let alive = thread::spawn(move || {
        while watch.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
            println!("       … still running, {} s so far", started.elapsed().as_secs());
        }
    });
    let status = child.wait();
    drop(done);
    // It only prints; that it panicked would change nothing.
    drop(alive.join());
    let status = status.with_context(|| format!("cannot wait for {}", line(command)))?;
    if !status.success() {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        bail!("{} failed ({status}); all it printed is in {}, the end of it:\n{tail}", line(command), log.display());
    }
    Ok(())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// A duration as people read it.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
