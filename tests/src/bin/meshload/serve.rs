//! The smallest servers that load can be measured against: one of HTTP/1.1, and one of HTTP/2, which is hyper's.
//!
//! In:  requests without bodies.
//! Out: the same answer to each; `Connection: close` is honoured.
//! Invariant: no allocation for a request of HTTP/1.1; the answers are equal, so that only what lies between can differ.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const MAX_HEAD: usize = 4096;

pub(crate) fn run(listen: SocketAddr, bytes: usize, http2: bool) -> anyhow::Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let answers = Arc::new(Answers {
        keep: answer(bytes, ""),
        close: answer(bytes, "Connection: close\r\n"),
        body: vec![b'x'; bytes].into(),
        http2,
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(accept(listen, answers))
}

/// The two answers of HTTP/1.1, as bytes, and the body for HTTP/2.
struct Answers {
    keep: Vec<u8>,
    close: Vec<u8>,
    body: Bytes,
    http2: bool,
}

fn answer(bytes: usize, connection: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{connection}Content-Length: {bytes}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer
}

#[expect(clippy::disallowed_methods, reason = "this server stands for an application and has no telemetry")]
async fn accept(listen: SocketAddr, answers: Arc<Answers>) -> anyhow::Result<()> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(8192)?;
    loop {
        let (stream, _peer) = listener.accept().await?;
        let answers = Arc::clone(&answers);
        // A client that breaks off is its own affair.
        tokio::spawn(async move {
            if answers.http2 {
                drop(multiplexed(stream, answers.body.clone()).await)
            } else {
                drop(converse(stream, &answers).await)
            }
        });
    }
}

async fn multiplexed(stream: TcpStream, body: Bytes) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(move |_| {
        let body = body.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
    });
    Ok(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await?)
}

async fn converse(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; MAX_HEAD];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        while let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            let close = buffer[..end].windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"));
            stream.write_all(if close { &answers.close } else { &answers.keep }).await?;
            if close {
                return stream.shutdown().await;
            }
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
        }
        if filled == MAX_HEAD {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}
