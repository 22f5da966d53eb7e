//! What passes, and how it looks on both sides.

use crate::support::{Shop, answer, curl, multiplexed};
use anyhow::{Result, ensure};
use mesh_tests::Node::B;
use mesh_tests::wait;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn requests_of_every_kind_arrive_as_they_were_sent() -> Result<()> {
    let shop = Shop::open("http kinds", &["web-v1"])?;
    let wire = shop.mesh.capture("kinds")?;
    let told = shop.get(80, "/a/b?c=d", &["-H", "x-one: 1", "-H", "x-one: 2", "-H", "host: web"])?.told()?;
    ensure!(told["path"] == "/a/b?c=d" && told["host"] == "web" && told["version"] == "HTTP/1.1", "{told}");
    ensure!(told["headers"]["x-one"] == serde_json::json!(["1", "2"]), "{told}");

    let posted = shop.get(80, "/", &["--data", "some text"])?.told()?;
    ensure!(posted["method"] == "POST" && posted["body"] == "some text", "{posted}");
    let chunked = shop.get(80, "/", &["--data", "in parts", "-H", "transfer-encoding: chunked"])?.told()?;
    ensure!(chunked["body"] == "in parts", "{chunked}");
    let expected = shop.get(80, "/", &["--data", "after 100", "-H", "expect: 100-continue"])?.told()?;
    ensure!(expected["body"] == "after 100", "{expected}");

    for port in [80, 81, 82] {
        let second = shop.get(port, "/", &["--http2-prior-knowledge", "--data", "two"])?.told()?;
        ensure!(second["version"] == "HTTP/2.0" && second["body"] == "two", "port {port}: {second}");
    }
    let translated = shop.get(81, "/", &["-H", "host: web"])?.told()?;
    ensure!(translated["version"] == "HTTP/2.0" && translated["host"] == "web", "{translated}");
    let head = shop.get(80, "/", &["--head", "--output", "/dev/null"])?;
    ensure!(head.status == 200 && head.headers.contains_key("content-length"), "{head:?}");
    let trailers = curl(&shop.client, &shop.url(80, "/trailers"), &["-H", "te: trailers", "--raw"])?;
    ensure!(trailers.body.contains("x-checksum: 42"), "{trailers:?}");
    wire.stop()?.only_tls_on(&[8080])
}

#[test]
fn a_connection_serves_one_request_after_another_and_large_ones_too() -> Result<()> {
    let shop = Shop::open("http keepalive", &["web-v1"])?;
    let mut stream = shop.client.connect(shop.web.address(80))?;
    let mut answers = Vec::new();
    for number in 0..50 {
        write!(stream, "GET /{number} HTTP/1.1\r\nhost: web\r\n\r\n")?;
        answers.push(answer(&mut stream)?.body);
    }
    ensure!(answers.iter().enumerate().all(|(at, body)| body.contains(&format!("\"path\":\"/{at}\""))), "{answers:?}");
    // Sent at once, answered in order.
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: web\r\n\r\nGET /y HTTP/1.1\r\nhost: web\r\n\r\n")?;
    ensure!(answer(&mut stream)?.body.contains("\"/x\""), "the first of two is answered first");
    ensure!(answer(&mut stream)?.body.contains("\"/y\""), "the second of two is answered then");

    let large = "x".repeat(3_000_000);
    let file = std::env::temp_dir().join(format!("mesh-http-large-{}", std::process::id()));
    std::fs::write(&file, &large)?;
    let data = format!("@{}", file.display());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let told = shop.get(80, "/", &[version, "--data-binary", &data]);
        ensure!(told.as_ref().is_ok_and(|seen| seen.told().is_ok_and(|told| told["length"] == 3_000_000)), "{told:?}");
    }
    std::fs::remove_file(&file)?;
    Ok(())
}

#[test]
fn first_requests_that_come_at_once_share_one_connection_between_the_nodes() -> Result<()> {
    let shop = Shop::open("http first", &["web-v1"])?;
    let handshakes = || shop.mesh.daemon(B)?.metric("mesh_proxy_handshakes_total", &[("side", "outbound")]);
    let before = handshakes()?;
    let statuses = multiplexed(shop.client.connect(shop.web.address(81))?, &[20])?;
    ensure!(statuses == [200; 20], "{statuses:?}");
    let made = handshakes()? - before;
    ensure!(made == 1.0, "{made} connections for 20 requests at once");
    Ok(())
}

#[test]
fn a_connection_goes_over_to_another_protocol() -> Result<()> {
    let shop = Shop::open("http upgrade", &["web-v1"])?;
    let mut stream = shop.client.connect(shop.web.address(80))?;
    stream.write_all(b"GET /ws HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")?;
    let switched = answer(&mut stream)?;
    ensure!(switched.status == 101 && switched.headers["upgrade"] == "echo", "{switched:?}");
    for word in [&b"anything"[..], &[0, 255, 13, 10]] {
        stream.write_all(word)?;
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back)?;
        ensure!(back == word, "{back:?}");
    }
    Ok(())
}

#[test]
fn whoever_offers_to_go_over_to_http_2_is_answered_in_http_1_1() -> Result<()> {
    let shop = Shop::open("http h2c", &["web-v1"])?;
    for port in [80, 82] {
        // The server would go over to whatever it is asked for.
        let told = shop.get(port, "/offered", &["--http2", "--data", "kept"])?.told()?;
        ensure!(told["version"] == "HTTP/1.1" && told["body"] == "kept", "port {port}: {told}");
        let headers = told["headers"].as_object();
        let leaked =
            headers.is_none_or(|headers| headers.contains_key("upgrade") || headers.contains_key("http2-settings"));
        ensure!(!leaked, "port {port}: {told}");
    }
    let known = shop.get(81, "/offered", &["--http2"])?.told()?;
    ensure!(known["version"] == "HTTP/2.0", "{known}");
    Ok(())
}

#[test]
fn a_port_that_says_nothing_is_seen_and_stalls_nobody() -> Result<()> {
    let shop = Shop::open("http sniffed", &["web-v1"])?;
    ensure!(shop.get(82, "/", &[])?.status == 200, "not served");
    let record = shop.mesh.daemon(B)?.wait_access("the request", |record| record["path"] == "/")?;
    ensure!(record["method"] == "GET", "{record}");
    let _banner = shop.pods[0].0.banner(9000, "server speaks first\n")?;
    let started = Instant::now();
    let mut stream = shop.client.connect(shop.pods[0].0.address(9000))?;
    let mut text = [0; 19];
    stream.read_exact(&mut text)?;
    ensure!(started.elapsed() < Duration::from_secs(1), "a server that speaks first waited {:?}", started.elapsed());
    Ok(())
}

#[test]
fn what_could_be_understood_in_two_ways_is_refused() -> Result<()> {
    let shop = Shop::open("http smuggling", &["web-v1"])?;
    for (what, request) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("a host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
        ("an unknown coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("a folded header", "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n"),
        ("a space before the colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
        ("a negative length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
        ("a length with a sign", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
        ("a zero byte", "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
        ("a bad chunk", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n"),
    ] {
        let mut stream = shop.client.connect(shop.web.address(80))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        // A reset is a refusal, too.
        let _reset = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        ensure!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{what}: {answer} {:?}",
            shop.mesh.daemon(B)?.access_log()?.last()
        );
    }
    // Of a length and chunks the chunks count: the length is not handed on, and nothing follows on that connection.
    let mut stream = shop.client.connect(shop.web.address(80))?;
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")?;
    stream.write_all(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let mut answer = String::new();
    let _reset = stream.read_to_string(&mut answer);
    ensure!(answer.matches("HTTP/1.1 ").count() <= 1 && !answer.contains("content-length\":"), "{answer}");
    let seen = shop.get(80, "/seen", &[])?.told()?;
    ensure!(seen.get("/smuggled").is_none(), "{seen}");
    ensure!(seen.as_object().is_some_and(|paths| !paths.contains_key("*")), "{seen}");
    wait::until_true("a well-formed request is still served", wait::PATIENCE, || {
        Ok(shop.get(80, "/", &[])?.status == 200)
    })
}
