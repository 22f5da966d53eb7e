//! What clients may do to a node that speaks HTTP/2, frame by frame: refused, counted, and felt by nobody else.

use crate::support::{Shop, curl};
use anyhow::{Context as _, Result, bail, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{ServiceSpec, env, wait};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What more memory a node may need for all that one pod does to it here.
const MOST_MEMORY: u64 = 96 << 20;

/// A client that writes whatever frames it likes.
struct Frames(TcpStream);

/// A frame of the node's.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// How a connection ended for its client.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// By a code of RFC 9113, section 7.
    GoAway(u32),
    /// Without a word.
    Closed,
}

impl Frames {
    /// Begins a connection, with what else its first SETTINGS say.
    fn begin(mut stream: TcpStream, settings: &[u8]) -> Result<Self> {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut frames = Self(stream);
        frames.send(&frame(SETTINGS, 0, 0, settings));
        Ok(frames)
    }

    /// Sends what the other side may no longer want to have.
    fn send(&mut self, bytes: &[u8]) {
        let _ended = self.0.write_all(bytes);
    }

    /// The next frame; nothing once the connection has ended.
    fn next(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Ok(None);
            }
            Err(error) => return Err(error).context("neither a frame nor an end"),
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
        if self.0.read_exact(&mut payload).is_err() {
            return Ok(None);
        }
        Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload }))
    }

    /// Reads until the connection ends.
    fn end(&mut self) -> Result<End> {
        while let Some(Frame { kind, payload, .. }) = self.next()? {
            if let (GOAWAY, Some((_, code))) = (kind, payload.split_first_chunk::<4>())
                && let Some((code, _)) = code.split_first_chunk()
            {
                return Ok(End::GoAway(u32::from_be_bytes(*code)));
            }
        }
        Ok(End::Closed)
    }

    /// Waits until everything that was sent has been read.
    fn read(&mut self) -> Result<bool> {
        self.send(&frame(PING, 0, 0, &[7; 8]));
        while let Some(Frame { kind, flags, .. }) = self.next()? {
            if (kind, flags) == (PING, 1) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields of RFC 7541, section 6.2.2, neither indexed nor coded.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| match u8::try_from(text.len()) {
        Ok(short @ 0..127) => vec![short],
        Ok(_) | Err(_) => {
            let rest = text.len() - 127;
            let low = |shift: u32| u8::try_from(rest >> shift & 127).unwrap_or_default();
            vec![127, low(0) | 128, low(7) | 128, low(14)]
        }
    };
    [&[0][..], &length(name), name.as_bytes(), &length(value), value.as_bytes()].concat()
}

/// `GET` of a path.
fn get(path: &str) -> Vec<u8> {
    [&[0x82, 0x86][..], &literal(":path", path), &literal(":authority", "web")].concat()
}

/// A request as one frame.
fn asks(stream: u32, fields: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, fields)
}

fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// Many fields from one that was sent once: RFC 7541, section 7.3.
fn bomb(times: usize) -> Vec<u8> {
    let large = "x".repeat(4000);
    let mut kept = literal("bomb", &large);
    kept[0] = 0x40;
    [get("/"), kept, vec![0x80 | 62; times]].concat()
}

/// What a client sends after its first SETTINGS, and by which reason its connection is then ended.
fn ended_for() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let continued = [frame(HEADERS, END_STREAM, 1, &get("/")), frame(CONTINUATION, 0, 1, b"").repeat(1000)];
    let reset: Vec<u8> = streams(1000)
        .flat_map(|stream| [asks(stream, &get("/")), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat())
        .collect();
    let posts = [&[0x83, 0x86][..], &literal(":path", "/"), &literal(":authority", "web")].concat();
    let post = frame(HEADERS, END_HEADERS, 1, &posts);
    let windows = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    vec![
        ("headers without an end", "enhance_your_calm", continued.concat()),
        ("requests reset before they are looked at", "enhance_your_calm", reset),
        ("data without data", "enhance_your_calm", [post.clone(), frame(DATA, 0, 1, b"").repeat(20_000)].concat()),
        ("a bomb of headers", "enhance_your_calm", asks(1, &bomb(1000))),
        ("settings", "control_flood", frame(SETTINGS, 0, 0, b"").repeat(3000)),
        ("pings", "control_flood", frame(PING, 0, 0, &[0; 8]).repeat(3000)),
        ("priorities", "control_flood", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]).repeat(3000)),
        ("frames of no known type", "control_flood", frame(77, 0, 0, b"x").repeat(3000)),
        ("windows beyond all bounds", "flow_control_error", windows),
        ("a window of nothing", "protocol_error", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("data for no stream", "protocol_error", frame(DATA, 0, 0, b"x")),
        ("data for a stream that nobody opened", "protocol_error", frame(DATA, 0, 1, b"x")),
        ("a stream of the server's", "protocol_error", asks(2, &get("/"))),
        ("a stream that was skipped", "protocol_error", [asks(5, &get("/")), asks(3, &get("/"))].concat()),
        ("a promise", "protocol_error", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("the reset of nothing", "protocol_error", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("something else amid headers", "protocol_error", [frame(HEADERS, 0, 1, &get("/")), post].concat()),
        ("the continuation of nothing", "protocol_error", frame(CONTINUATION, END_HEADERS, 1, b"")),
        ("an index of nothing", "protocol_error", asks(1, &[0x80 | 100])),
        ("a name in capitals", "protocol_error", asks(1, &[get("/"), literal("X-One", "1")].concat())),
        ("a pseudo-header of no kind", "protocol_error", asks(1, &[get("/"), literal(":other", "1")].concat())),
        ("a setting cut short", "protocol_error", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a ping that is too long", "protocol_error", frame(PING, 0, 0, &[0; 9])),
        ("more than a frame may have", "frame_size_error", frame(DATA, 0, 1, &[0; 16_385])),
    ]
}

/// How often the client's node has counted this.
fn counted(shop: &Shop, reason: &str) -> Result<f64> {
    shop.mesh.daemon(B)?.metric("mesh_proxy_bad_http_total", &[("side", "outbound"), ("reason", reason)])
}

/// Waits until it was counted once more than before.
fn counted_since(shop: &Shop, what: &str, reason: &str, before: f64) -> Result<()> {
    let daemon = shop.mesh.daemon(B)?;
    let labels = [("side", "outbound"), ("reason", reason)];
    let counted = daemon.wait_metric("mesh_proxy_bad_http_total", &labels, before + 1.0);
    counted.map(drop).with_context(|| format!("{what} is not counted as {reason}: {}", bad(daemon.metrics().ok())))
}

fn bad(metrics: Option<String>) -> String {
    metrics.unwrap_or_default().lines().filter(|line| line.starts_with("mesh_proxy_bad_http_total")).collect()
}

/// Runs `abuse` beside the steady requests of another pod of the same node to another server; what came of those, and by how much
/// the node's memory grew.
fn beside(shop: &mut Shop, abuse: impl FnOnce(&Shop) -> Result<()>) -> Result<(Value, u64)> {
    shop.add("calm", A, "calm")?;
    let bystander = shop.mesh.pod("shop/bystander").on(B).account("client").start()?;
    let calm = ServiceSpec::new("shop/calm").selector("app", "calm").named("http", 80, 8080);
    let target = shop.mesh.kube().service(calm)?.address(80);
    wait::until_true("the other pod is served", wait::PATIENCE, || {
        Ok(curl(&bystander, &format!("http://{target}/"), &[]).is_ok_and(|seen| seen.status == 200))
    })?;
    let target = target.to_string();
    let before = shop.mesh.daemon(B)?.memory()?;
    let mut load = bystander.command(env::built("meshload")?);
    load.args(["fixed", &target, "--rate", "100", "--connections", "8", "--seconds", "600"]);
    let load = bystander.spawn(&mut load, "load")?;
    let abused = abuse(shop);
    load.signal(Signal::SIGTERM)?;
    load.wait(Duration::from_secs(10))?;
    abused?;
    let told = load.log();
    let figures = serde_json::from_str(told.lines().last().context("the load says nothing")?)?;
    Ok((figures, shop.mesh.daemon(B)?.peak_memory()?.saturating_sub(before)))
}

fn untouched((figures, grown): (Value, u64)) -> Result<()> {
    println!("beside it: {figures}; the node grew by {} KiB", grown >> 10);
    let answered = figures["answered"].as_u64().unwrap_or_default();
    ensure!(figures["errors"] == 0 && figures["unanswered"] == 0 && answered > 10, "another pod felt it: {figures}");
    ensure!(grown < MOST_MEMORY, "the node grew by {} KiB", grown >> 10);
    Ok(())
}

#[test]
fn abuse_of_http_2_ends_its_connection_is_counted_and_felt_by_nobody_else() -> Result<()> {
    let mut shop = Shop::open("http abuse", &["web-v1"])?;
    let seen = beside(&mut shop, |shop| {
        for (what, reason, bytes) in ended_for() {
            let before = counted(shop, reason)?;
            let mut client = Frames::begin(shop.client.connect(shop.web.address(81))?, &[])?;
            client.send(&bytes);
            let end = client.end().context(what)?;
            println!("{what}: {end:?}");
            drop(client);
            counted_since(shop, what, reason, before)?;
        }
        Ok(())
    })?;
    untouched(seen)
}

#[test]
fn requests_given_up_as_soon_as_they_are_made_end_their_connection() -> Result<()> {
    let mut shop = Shop::open("http rapid", &["web-v1"])?;
    let before = counted(&shop, "rapid_reset")?;
    let seen = beside(&mut shop, |shop| {
        let mut client = Frames::begin(shop.client.connect(shop.web.address(81))?, &[])?;
        let all: Vec<u32> = streams(4000).collect();
        for some in all.chunks(10) {
            for &stream in some {
                client.send(&asks(stream, &get("/waits/5000")));
            }
            if !client.read()? {
                return Ok(());
            }
            for &stream in some {
                client.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            }
        }
        bail!("4000 requests were given up, and the connection goes on")
    })?;
    counted_since(&shop, "a rapid reset", "rapid_reset", before)?;
    untouched(seen)
}

#[test]
fn a_stream_that_says_no_request_is_refused_alone_and_counted() -> Result<()> {
    let shop = Shop::open("http streams", &["web-v1"])?;
    for (what, fields) in [
        (
            "a head that is too large",
            [get("/"), literal("large", &"x".repeat(60_000)), literal("more", &"x".repeat(9000))].concat(),
        ),
        ("no path", [&[0x82, 0x86][..], &literal(":authority", "web")].concat()),
        ("two paths", [get("/"), literal(":path", "/b")].concat()),
        ("what concerns a connection", [get("/"), literal("connection", "close")].concat()),
        ("a pseudo-header after others", [&[0x82, 0x86][..], &literal("x", "1"), &literal(":path", "/")].concat()),
    ] {
        let before = counted(&shop, "bad_stream")?;
        let mut client = Frames::begin(shop.client.connect(shop.web.address(81))?, &[])?;
        // The head may need more than one frame.
        let (first, rest) = fields.split_at(fields.len().min(16_000));
        let mut parts: Vec<&[u8]> = rest.chunks(16_000).collect();
        let last = parts.pop();
        client.send(&frame(HEADERS, END_STREAM | if last.is_some() { 0 } else { END_HEADERS }, 1, first));
        parts.iter().for_each(|part| client.send(&frame(CONTINUATION, 0, 1, part)));
        last.iter().for_each(|part| client.send(&frame(CONTINUATION, END_HEADERS, 1, part)));
        client.send(&asks(3, &get("/")));
        let mut answered = false;
        while let Some(Frame { kind, flags, stream, payload }) = client.next()? {
            ensure!(kind != GOAWAY, "{what} ended the connection: {payload:?}");
            ensure!(stream != 1 || kind == RST_STREAM || kind == HEADERS, "{what}: {kind} {payload:?}");
            answered |= stream == 3 && flags & END_STREAM != 0 && (kind == DATA || kind == HEADERS);
            if answered {
                break;
            }
        }
        ensure!(answered, "{what}: the request beside it is not answered");
        drop(client);
        counted_since(&shop, what, "bad_stream", before)?;
    }
    let seen = shop.get(80, "/seen", &[])?.told()?;
    ensure!(seen.as_object().is_some_and(|paths| !paths.contains_key("/b")), "{seen}");
    Ok(())
}

#[test]
fn heads_of_http_1_that_are_too_large_or_none_are_counted() -> Result<()> {
    let shop = Shop::open("http heads", &["web-v1"])?;
    for (what, reason, request) in [
        (
            "a large head",
            "head_too_large",
            format!("GET / HTTP/1.1\r\nhost: web\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
        ),
        ("no request", "malformed", "GET /\u{0} HTTP/1.1\r\nhost: web\r\n\r\n".to_owned()),
    ] {
        let before = counted(&shop, reason)?;
        let mut stream = shop.client.connect(shop.web.address(80))?;
        let _may_end_before = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _may_be_reset = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
        counted_since(&shop, what, reason, before)?;
    }
    Ok(())
}

#[test]
fn abuse_is_counted_where_it_arrives_too() -> Result<()> {
    let shop = Shop::open("http abuse in", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", serde_json::json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let address = shop.pods[0].0.address(8080);
    wait::until_true("an outsider is answered", wait::PATIENCE, || {
        Ok(curl(&outsider, &format!("http://{address}/"), &[]).is_ok_and(|seen| seen.status == 200))
    })?;
    let mut client = Frames::begin(outsider.connect(address)?, &[])?;
    client.send(&frame(PING, 0, 0, &[0; 8]).repeat(3000));
    client.end()?;
    let labels = [("side", "inbound"), ("reason", "control_flood")];
    shop.mesh.daemon(A)?.wait_metric("mesh_proxy_bad_http_total", &labels, 1.0)?;
    Ok(())
}

#[test]
fn a_client_that_takes_nothing_holds_little_and_nobody_up() -> Result<()> {
    let mut shop = Shop::open("http stalls", &["web-v1"])?;
    let handshakes = |shop: &Shop| shop.mesh.daemon(B)?.metric("mesh_proxy_handshakes_total", &[("side", "outbound")]);
    let seen = beside(&mut shop, |shop| {
        let before = handshakes(shop)?;
        // SETTINGS_INITIAL_WINDOW_SIZE of nothing, and of one byte.
        for window in [0, 1] {
            let settings = [&[0, 4][..], &u32::to_be_bytes(window)].concat();
            let mut client = Frames::begin(shop.client.connect(shop.web.address(81))?, &settings)?;
            for stream in streams(250) {
                client.send(&asks(stream, &get("/bytes/1000000")));
            }
            ensure!(client.read()?, "the connection ended");
            let mut heads = 0;
            while heads < 250 {
                let frame = client.next()?.context("the connection ended")?;
                heads += u32::from(frame.kind == HEADERS);
            }
            // Whatever the node would read ahead, it has by now.
            ensure!(shop.get(80, "/waits/1000", &[])?.status == 200, "the same pod's other requests are not served");
            ensure!(client.read()?, "the connection ended");
        }
        // A hundred requests share one, and some others were made beside it.
        let made = handshakes(shop)? - before;
        ensure!(made < 20.0, "{made} connections between the nodes for two of 250 requests each");
        Ok(())
    })?;
    untouched(seen)
}
