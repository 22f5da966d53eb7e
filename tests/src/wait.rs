//! Waits for a condition, with a deadline.
//!
//! Invariant: nothing else in this crate pauses.

use crate::exec::Output;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long most things may take on a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `condition` gives something.
///
/// **Errors**: it gives an error, or nothing within `patience`; `what` says what was waited for.
pub fn until<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} in vain: {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks until `condition` is true.
///
/// **Errors**: as [`until`].
pub fn until_true(what: &str, patience: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, patience, || Ok(condition()?.then_some(())))
}

/// Waits until definitions of kinds hold, by `kubectl`; `which` is the name of one, or `--all`.
///
/// **Errors**: as [`until`].
pub fn until_established(which: &str, kubectl: impl Fn(&[&str]) -> Result<Output>) -> Result<()> {
    let established = ["wait", "--for=condition=Established", "--timeout=10s", "customresourcedefinition", which];
    // One that was made a moment ago has no conditions, for which kubectl does not wait.
    until_true(&format!("the definition {which} holds"), Duration::from_secs(60), || {
        Ok(kubectl(&established)?.status.success())
    })
}
