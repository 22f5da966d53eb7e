//! A small HTTP server and a load generator for measuring what lies between them.
//!
//! In:  a target address and bounds in time and count, as flags.
//! Out: one line of JSON with counts and latencies; on request a log with one line for each request.
//! Invariant: every load ends, by count and by time.

mod client;
mod hold;
mod load;
mod serve;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "A small HTTP server and a load generator")]
struct Options {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Answer every request with the same number of bytes.
    Serve {
        /// Where to listen.
        #[arg(long, default_value = "[::]:8080")]
        listen: SocketAddr,
        /// Size of the body.
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
        /// Speak HTTP/2, without TLS.
        #[arg(long)]
        http2: bool,
    },
    /// Send at a fixed rate, whether answers come or not; latency counts from the moment a request was due.
    Fixed {
        #[command(flatten)]
        load: Load,
        /// Requests per second over all connections.
        #[arg(long, default_value_t = 2000)]
        rate: u32,
    },
    /// Send the next request of a connection as soon as the last one is answered.
    Closed {
        #[command(flatten)]
        load: Load,
        /// Open a new connection for every request.
        #[arg(long)]
        close: bool,
    },
    /// Open connections, do one request on each, say so, and hold them until standard input ends.
    Hold {
        /// What to connect to.
        target: SocketAddr,
        /// How many connections.
        #[arg(long, default_value_t = 1000)]
        connections: usize,
        /// Give up opening after so many seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

/// What both kinds of load have in common.
#[derive(clap::Args)]
struct Load {
    /// What to connect to.
    target: SocketAddr,
    /// The path to ask for.
    #[arg(long, default_value = "/")]
    path: String,
    /// How many connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// End after so many requests.
    #[arg(long, default_value_t = u64::MAX)]
    requests: u64,
    /// End after so many seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Write one line for each request: microseconds since the start, latency in microseconds.
    #[arg(long)]
    log: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    match Options::parse().mode {
        Mode::Serve { listen, bytes, http2 } => serve::run(listen, bytes, http2),
        Mode::Fixed { load, rate } => load::run(&load, load::Pace::Fixed { rate }),
        Mode::Closed { load, close } => load::run(&load, load::Pace::Closed { close }),
        Mode::Hold { target, connections, seconds } => hold::run(target, connections, seconds),
    }
}
