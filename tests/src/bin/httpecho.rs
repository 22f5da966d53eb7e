//! An HTTP server that tells each client what it understood, over HTTP/1.1 and HTTP/2 alike.
//!
//! In:  requests; a path such as `/status/503` says how to answer.
//! Out: a JSON object: this server's name, method, path, host, version, headers and body of the request. Whoever asks for
//!      health by gRPC is told that the server of this name is well, and that no other is known.
//! Invariant: every body is read to its end or the connection ends; at SIGTERM nothing is accepted any more, what is
//! under way is answered, and the program ends within a few seconds.
//! Source: gRPC, "GRPC Health Checking Protocol", "gRPC over HTTP2".

use bytes::Bytes;
use clap::Parser;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Parser)]
#[command(about = "An HTTP server that tells each client what it understood")]
struct Options {
    /// Where to listen.
    #[arg(long, default_value = "[::]:8080")]
    listen: SocketAddr,
    /// The name that answers carry.
    #[arg(long)]
    name: String,
    /// What every request but those of paths that say so is answered with.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The certificate to show, in PEM; with it TLS is spoken.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long)]
    key: Option<PathBuf>,
}

/// How long what is under way at SIGTERM may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

type Body = BoxBody<Bytes, Infallible>;

struct Server {
    name: String,
    /// What requests are answered with, unless their path says so.
    status: StatusCode,
    /// Requests so far, by path.
    seen: std::sync::Mutex<HashMap<String, u64>>,
    all: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen).await?;
    let tls = tls(&options)?;
    let status = StatusCode::from_u16(options.status)?;
    let server = Arc::new(Server { name: options.name, status, seen: Default::default(), all: AtomicU64::new(0) });
    let mut told_to_end = signal(SignalKind::terminate())?;
    let ending = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = told_to_end.recv() => break,
        };
        let (server, tls, watcher) = (Arc::clone(&server), tls.clone(), ending.watcher());
        #[expect(clippy::disallowed_methods, reason = "a program of its own, not part of the daemon")]
        tokio::spawn(async move {
            // A client that breaks off, or to which the certificate proves nothing, is no concern of the server.
            let Some(tls) = tls else { return serve((server, watcher), None, stream).await };
            let Ok(stream) = tls.accept(stream).await else { return };
            let sni = stream.get_ref().1.server_name().map(str::to_owned);
            serve((server, watcher), sni, stream).await;
        });
    }
    drop(listener);
    let _some_are_left = tokio::time::timeout(LAST_WORDS, ending.shutdown()).await;
    Ok(())
}

/// Serves one connection, whose client asked for the server of a name if it did.
async fn serve<S>((server, watcher): (Arc<Server>, Watcher), sni: Option<String>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(Arc::clone(&server), sni.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let _broken_off = watcher.watch(connection).await;
}

fn tls(options: &Options) -> anyhow::Result<Option<TlsAcceptor>> {
    let (Some(certificate), Some(key)) = (&options.certificate, &options.key) else { return Ok(None) };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config).into()))
}

async fn answer(
    server: Arc<Server>,
    sni: Option<String>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    server.all.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let count = {
        let mut seen = server.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = seen.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    if request.headers().contains_key(UPGRADE) {
        return Ok(upgrade(&mut request));
    }
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let mut status = server.status;
    match words[..] {
        ["status", code] => status = code.parse().unwrap_or(StatusCode::BAD_REQUEST),
        // Fails so many times, then no more.
        ["fails", times, ..] if count <= times.parse().unwrap_or(0) => status = StatusCode::SERVICE_UNAVAILABLE,
        ["waits", millis] => tokio::time::sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await,
        // So many bytes.
        ["bytes", count] => {
            let count = count.parse().unwrap_or(0);
            return Ok(Response::new(full("x".repeat(count))));
        }
        ["trailers"] => return Ok(trailers()),
        ["grpc.health.v1.Health", "Check"] => return Ok(health(&server.name, request).await),
        ["seen", ..] => {
            let seen = server.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            return Ok(Response::new(full(json!(seen).to_string())));
        }
        _ => {}
    }
    let told = tell(&server, sni, request).await;
    let mut response = Response::new(full(told.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert("x-server", HeaderValue::from_str(&server.name).unwrap_or(HeaderValue::from_static("?")));
    Ok(response)
}

/// What was understood of a request.
async fn tell(server: &Server, sni: Option<String>, request: Request<Incoming>) -> Value {
    let (head, body) = request.into_parts();
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        headers.entry(name.to_string()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let host = head.uri.authority().map(ToString::to_string).or_else(|| headers.get("host")?.first().cloned());
    let (body, trailers) = match body.collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().map(|trailers| trailers.len());
            (collected.to_bytes(), trailers)
        }
        Err(_) => (Bytes::from_static(b"(broken off)"), None),
    };
    json!({
        "server": server.name,
        "sni": sni,
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map(ToString::to_string),
        "host": host,
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body[..body.len().min(1024)]),
        "length": body.len(),
        "trailers": trailers,
    })
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed()
}

fn trailers() -> Response<Body> {
    let mut response = Response::new(ending(b"body", "x-checksum", "42"));
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum"));
    response
}

/// A body with one trailer.
fn ending(body: &'static [u8], name: &'static str, value: &'static str) -> Body {
    let mut last = hyper::HeaderMap::new();
    last.insert(name, HeaderValue::from_static(value));
    let frames = [Ok(Frame::data(Bytes::from_static(body))), Ok(Frame::trailers(last))];
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}

/// Says whether the service that is asked for is well: the server itself, or what bears its name.
async fn health(name: &str, request: Request<Incoming>) -> Response<Body> {
    // A message is a byte that says it is not compressed, its length, and here one field: the service's name, if any.
    let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let known = match asked.get(5..) {
        Some([]) => true,
        Some([0x0a, _, service @ ..]) => service == name.as_bytes(),
        Some(_) | None => false,
    };
    let (message, status): (&'static [u8], _) = if known { (b"\0\0\0\0\x02\x08\x01", "0") } else { (b"", "5") };
    let mut response = Response::new(ending(message, "grpc-status", status));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Goes over to a protocol that sends back what it gets.
fn upgrade(request: &mut Request<Incoming>) -> Response<Body> {
    let protocol = request.headers().get(UPGRADE).cloned();
    let upgraded = hyper::upgrade::on(request);
    #[expect(clippy::disallowed_methods, reason = "a program of its own, not part of the daemon")]
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut bytes = vec![0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(full(String::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(UPGRADE, protocol);
    }
    response
}
