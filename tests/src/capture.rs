//! What passes between the nodes: captured by tcpdump, put together to streams, judged.
//!
//! In:  a device of a namespace.
//! Out: every TCP connection with its bytes, and whether they are TLS.
//! Invariant: a capture that missed packets is an error, never a proof.
//! Source: RFC 8446, section 5.1, for what a TLS record looks like.

mod pcap;

use crate::env;
use crate::exec::{Process, create};
use crate::netns;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, bail, ensure};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;
use pcap::Segment;
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every node on a link: RFC 4291, section 2.7.1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The port of nobody who answers: RFC 863.
const DISCARD: u16 = 9;
/// The longest TLS record, with what encryption may add.
const LONGEST_RECORD: usize = 16_384 + 256;

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
    /// Sends to every node on the device that is listened on.
    marker: UdpSocket,
    everybody: SocketAddrV6,
}

impl Capture {
    /// Captures everything on `device` in the network namespace at `ns` into `file`; returns once it does.
    ///
    /// **Errors**: tcpdump is not installed, or does not start.
    pub fn start(ns: &Path, device: &str, file: &Path) -> Result<Self> {
        Self::start_of(ns, device, file, "")
    }

    /// As [`Capture::start`], of packets that `filter` selects, in the words of `pcap-filter(7)`: where much else passes.
    ///
    /// **Errors**: as there, or the filter is wrong.
    pub fn start_of(ns: &Path, device: &str, file: &Path, filter: &str) -> Result<Self> {
        let log = file.with_extension("log");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", ns.display())).arg("--").arg(env::system("tcpdump")?);
        // In immediate mode each packet takes a slot as large as the longest may be: of those that pass here, 64 KiB and a head.
        command
            .args(["-i", device, "-n", "-s", "65600", "-U", "--immediate-mode", "-B", "65536", "-Z", "root", "-w"])
            .arg(file)
            .args((!filter.is_empty()).then(|| format!("udp port {DISCARD} or ({filter})")))
            .stdout(create(&log)?)
            .stderr(create(&log)?);
        let tcpdump = Process::start_with(&mut command, &log)?;
        wait::until_true("tcpdump listens", PATIENCE, || {
            if let Some(status) = tcpdump.ended()? {
                bail!("tcpdump ended ({status}): {}", tcpdump.log());
            }
            Ok(tcpdump.log().contains("listening on"))
        })?;
        let (marker, everybody) = netns::enter(ns, || {
            let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
            let marker = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).context("cannot make a socket")?;
            Ok((marker, SocketAddrV6::new(ALL_NODES, DISCARD, 0, index)))
        })?;
        Ok(Self { tcpdump, file: file.to_owned(), marker, everybody })
    }

    /// Ends the capture, once all that has passed so far is in it.
    ///
    /// **Errors**: packets were missed, or the file cannot be read.
    pub fn stop(self) -> Result<Captured> {
        // When told to end, tcpdump leaves what it has not read yet: a last packet shows that it has read the rest.
        let last = format!("the end of {}", self.file.display());
        self.marker.send_to(last.as_bytes(), self.everybody).context("cannot mark the end of the capture")?;
        wait::until_true("tcpdump has the last packet", PATIENCE, || {
            let bytes = std::fs::read(&self.file).context("cannot read the capture")?;
            Ok(bytes.windows(last.len()).rev().any(|window| window == last.as_bytes()))
        })?;
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(PATIENCE)?;
        let log = self.tcpdump.log();
        let dropped = log.lines().find(|line| line.ends_with("dropped by kernel")).unwrap_or_default();
        ensure!(dropped.starts_with("0 "), "the capture proves nothing, packets were missed: {log}");
        let bytes = std::fs::read(&self.file).context("cannot read the capture")?;
        Captured::new(&pcap::segments(&bytes)?)
    }
}

/// A TCP connection on the wire.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Who opened it.
    pub client: SocketAddr,
    /// Whom it was opened to.
    pub server: SocketAddr,
    /// What the client sent.
    pub sent: Vec<u8>,
    /// What the server sent.
    pub received: Vec<u8>,
    /// The DSCP of the first SYN, if the capture has it.
    pub syn_dscp: Option<u8>,
}

impl Flow {
    /// Is every byte of both directions part of a TLS record? A connection without bytes is no TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        !self.is_empty() && tls_records(&self.sent).is_some() && tls_records(&self.received).is_some()
    }

    /// Did neither side send anything?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.received.is_empty()
    }
}

/// What a capture has.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Every TCP connection, ordered by its addresses.
    pub flows: Vec<Flow>,
}

impl Captured {
    fn new(segments: &[Segment]) -> Result<Self> {
        let mut streams: BTreeMap<(SocketAddr, SocketAddr), Vec<&Segment>> = BTreeMap::new();
        for segment in segments {
            streams.entry((segment.from, segment.to)).or_default().push(segment);
        }
        let mut flows = Vec::new();
        for (&(client, server), sent) in &streams {
            let opens = |segments: &[&Segment]| segments.iter().any(|segment| segment.syn && !segment.ack);
            let back = streams.get(&(server, client)).map_or(&[][..], Vec::as_slice);
            // Where the opening was not captured, the lower port is taken for the server's.
            let by_port = !opens(back) && server.port() < client.port();
            if opens(sent) || by_port {
                let syn = sent.iter().find(|segment| segment.syn);
                flows.push(Flow {
                    client,
                    server,
                    sent: stream(sent).with_context(|| format!("{client} to {server}"))?,
                    received: stream(back).with_context(|| format!("{server} to {client}"))?,
                    syn_dscp: syn.map(|segment| segment.dscp),
                });
            }
        }
        Ok(Self { flows })
    }

    /// Connections to `port`.
    pub fn to_port(&self, port: u16) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(move |flow| flow.server.port() == port)
    }

    /// Do these bytes pass in one direction of a connection?
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let has = |stream: &[u8]| stream.windows(bytes.len()).any(|window| window == bytes);
        self.flows.iter().any(|flow| has(&flow.sent) || has(&flow.received))
    }

    /// Every connection goes to one of `ports`, and nothing but TLS passes; at least one connection does.
    ///
    /// **Errors**: another port, plain bytes, or nothing at all; the error shows them.
    pub fn only_tls_on(&self, ports: &[u16]) -> Result<()> {
        ensure!(self.flows.iter().any(|flow| !flow.is_empty()), "nothing passed, which proves nothing");
        for flow in &self.flows {
            let (client, server) = (flow.client, flow.server);
            ensure!(ports.contains(&server.port()), "a connection to a port of no application: {client} to {server}");
            if !flow.is_empty() && !flow.is_tls() {
                let first = |bytes: &[u8]| bytes[..bytes.len().min(60)].escape_ascii().to_string();
                bail!(
                    "plain text from {client} to {server}: sent `{}`, received `{}`",
                    first(&flow.sent),
                    first(&flow.received)
                );
            }
        }
        Ok(())
    }
}

/// Bytes in the order of their sequence numbers.
fn stream(segments: &[&Segment]) -> Result<Vec<u8>> {
    let Some(first) = segments.iter().find(|segment| segment.syn).or_else(|| segments.first()) else {
        return Ok(Vec::new());
    };
    // A SYN takes a number of its own.
    let start = first.sequence.wrapping_add(u32::from(first.syn));
    let mut parts: Vec<_> = segments
        .iter()
        .filter(|segment| !segment.payload.is_empty())
        .map(|segment| (segment.sequence.wrapping_sub(start), segment.payload.as_slice()))
        // Keep-alive probes repeat the number before.
        .filter(|&(offset, _)| offset < u32::MAX / 2)
        .collect();
    parts.sort_by_key(|&(offset, _)| offset);
    let mut bytes = Vec::new();
    for (offset, payload) in parts {
        let offset = usize::try_from(offset).context("an offset")?;
        ensure!(offset <= bytes.len(), "the capture lacks bytes {} to {offset}", bytes.len());
        // Sent again: only what is new counts.
        bytes.extend_from_slice(payload.get(bytes.len() - offset..).unwrap_or_default());
    }
    Ok(bytes)
}

/// How many TLS records `bytes` are, the last of which may be cut off; `None` if they are anything else.
#[must_use]
pub fn tls_records(mut bytes: &[u8]) -> Option<usize> {
    let mut records = 0;
    while !bytes.is_empty() {
        let kind = (20..=23).contains(&bytes[0]);
        let version = bytes.get(1).is_none_or(|&major| major == 3) && bytes.get(2).is_none_or(|&minor| minor <= 4);
        if !kind || !version {
            return None;
        }
        records += 1;
        let (Some(&high), Some(&low)) = (bytes.get(3), bytes.get(4)) else { break };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST_RECORD {
            return None;
        }
        bytes = bytes.get(5 + length..).unwrap_or_default();
    }
    Some(records)
}

#[cfg(test)]
mod tests;
