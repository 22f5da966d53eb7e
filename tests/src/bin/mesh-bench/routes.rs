//! One route is changed among many, while requests pass.
//!
//! In:  the stage, how many routes there are.
//! Out: one sample: the time from the write of the change until an answer shows it, and requests that failed.
//! Invariant: every change is waited for, by requests on one connection, before the next is made.

use crate::crowd;
use crate::figures::{Measure, Sample, Way, median};
use crate::loads::Figures;
use crate::stage::{MARK, Stage, route};
use crate::usage::{Window, rest};
use anyhow::{Context as _, ensure};
use mesh_tests::{http, load};
use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Changes that are made.
const CHANGES: usize = 20;
/// How long daemons may take to read every route.
const TAKE_IN: Duration = Duration::from_secs(60);
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests meanwhile: so many in each second, for so many seconds.
const LOAD: [&str; 2] = ["1000", "8"];

/// Changes the route of the mesh's service among `count` others.
pub(crate) fn change(stage: &Stage, count: usize) -> anyhow::Result<Option<Sample>> {
    let Some(pair) = stage.routed.iter().find(|pair| pair.way == Way::Mesh) else { return Ok(None) };
    let count = crowd::write_routes(stage.objects(), count)?;
    ensure!(rest(&pair.processes.proxies, TAKE_IN)?.is_some(), "the daemons had not taken the routes in in time");
    let window = Window::open(&pair.processes)?;
    let mut command = pair.client(&stage.meshload.0.to_string_lossy());
    command.args(["fixed", &pair.http.to_string(), "--rate", LOAD[0], "--connections", "8", "--seconds", LOAD[1]]);
    let running = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run meshload")?;
    let mut probe = BufReader::new(pair.pod.connect(pair.http)?);
    let mut times = Vec::new();
    for number in 1..=CHANGES {
        let written = Instant::now();
        stage.mesh().kube().apply(route(number))?;
        while mark(&mut probe)? != Some(number) {
            ensure!(written.elapsed() < PATIENCE, "change {number} was not in force in time");
        }
        times.push(written.elapsed().as_secs_f64() * 1e3);
    }
    let output = running.wait_with_output().context("cannot wait for meshload")?;
    let foreign = window.close()?.foreign;
    crowd::remove_routes(stage.objects(), count)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = load::Figures::read(&text)?;
    let mut figures = Figures::from([
        ("routes", crate::memory::count(count)),
        ("changes", crate::memory::count(times.len())),
        ("max_ms", times.iter().copied().fold(0.0, f64::max)),
        ("requests", f64::from(told.answered)),
        ("errors", f64::from(told.failed())),
    ]);
    if let Some(median) = median(times) {
        figures.insert("p50_ms", median);
    }
    Ok(Some(Sample { measure: Measure::Routes, way: Way::Mesh, round: 0, foreign, figures }))
}

/// Which route answers a request on this connection.
fn mark(probe: &mut BufReader<TcpStream>) -> anyhow::Result<Option<usize>> {
    probe.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    Ok(http::answer(probe)?.headers.get(MARK).and_then(|mark| mark.parse().ok()))
}
