//! Waits for conditions and commands, with a deadline.

use super::layout::Layout;
use crate::run;
use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(100);
/// How long definitions may take.
const DEFINED: Duration = Duration::from_secs(60);

/// Looks until `condition` is true.
///
/// **Errors**: it gives an error, or is not true within `patience`; `what` says what was waited for.
pub(super) fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("waited {} in vain: {what}", run::duration(patience));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// What `command` prints.
///
/// **Errors**: it fails, or has not ended within `patience` and was told to.
pub(super) fn output(command: &Command, patience: Duration) -> Result<String> {
    let seconds = patience.as_secs().max(1);
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=5", &seconds.to_string()]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    // `timeout` itself ends with 124 then.
    run::output(&mut bounded).with_context(|| format!("it failed, or took more than {seconds} s"))
}

/// Waits until every definition of the cluster holds. One that was made a moment ago has no conditions, for which kubectl does not wait.
///
/// **Errors**: one does not hold in time.
pub(super) fn definitions(layout: &Layout) -> Result<()> {
    let established = ["wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=30s"];
    let mut last = None;
    let waited = until("every definition holds", DEFINED, || {
        last = output(layout.kubectl().args(established), DEFINED).err();
        Ok(last.is_none())
    });
    waited.with_context(|| last.map(|error| format!("{error:#}")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended() {
        let started = Instant::now();
        let error = output(Command::new("sh").args(["-c", "exec cat /dev/zero > /dev/null"]), Duration::from_secs(1));
        assert!(format!("{:#}", error.unwrap_err()).contains("124"));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_keeps_its_environment() {
        let printed = output(Command::new("sh").args(["-c", "echo $WORD"]).env("WORD", "mesh"), Duration::from_secs(5));
        assert_eq!(printed.unwrap(), "mesh\n");
    }
}
