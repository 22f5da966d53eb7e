//! Holds many idle connections open.
//!
//! In:  a target and a number.
//! Out: one line of JSON once they are open; the end when standard input ends.
//! Invariant: each connection carried one answered request, so that it is in use end to end.

use crate::client::{Connection, Progress, request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Opens in groups, so that no accept queue overflows.
const GROUP: usize = 50;

pub(crate) fn run(target: SocketAddr, connections: usize, seconds: u64) -> anyhow::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let request = request(target, "/", false);
    let mut held = Vec::with_capacity(connections);
    let mut failed = 0_usize;
    while held.len() + failed < connections && Instant::now() < end {
        let mut group: Vec<Connection> = Vec::new();
        for _ in 0..GROUP.min(connections - held.len() - failed) {
            let opened = Connection::open(target).and_then(|mut connection| {
                connection.send(&request, Instant::now())?;
                Ok(connection)
            });
            match opened {
                Ok(connection) => group.push(connection),
                Err(_) => failed += 1,
            }
        }
        for mut connection in group {
            if answered(&mut connection) {
                held.push(connection);
            } else {
                failed += 1;
            }
        }
    }
    println!("{}", serde_json::json!({ "held": held.len(), "failed": failed }));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn answered(connection: &mut Connection) -> bool {
    loop {
        match connection.receive() {
            Ok(Progress::Answered(ok)) => return ok,
            Ok(Progress::Pending) => {}
            Err(_) => return false,
        }
        let waited = poll(&mut [PollFd::new(connection.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5000_u16));
        if !matches!(waited, Ok(1..)) {
            return false;
        }
    }
}
