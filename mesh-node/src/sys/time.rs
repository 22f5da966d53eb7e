//! Time of processors.
//!
//! Source: `getrusage(2)`, `RUSAGE_THREAD`.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::io;
use std::time::Duration;

/// How much time of a processor this thread has used so far; what it waited for, be it a processor, is none.
///
/// **Errors**: those of `getrusage(2)`.
pub fn of_thread() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let used = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(used.num_microseconds().try_into().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    #[test]
    fn work_is_counted_and_waiting_is_not() {
        const LONG: Duration = Duration::from_millis(200);
        let used = |work: &dyn Fn()| {
            let before = of_thread().expect("the kernel tells");
            work();
            of_thread().expect("the kernel tells") - before
        };
        let (_nobody_sends, received) = mpsc::channel::<()>();
        assert!(used(&|| assert!(received.recv_timeout(LONG).is_err())) < LONG / 2);
        let deadline = Instant::now() + Duration::from_secs(20);
        let before = of_thread().expect("the kernel tells");
        while of_thread().expect("the kernel tells") - before < LONG {
            assert!(Instant::now() < deadline, "work is not counted");
        }
    }
}
