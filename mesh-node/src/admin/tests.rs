use super::*;
use expect_test::expect;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_millis(20);

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A daemon that lacks what the test says.
struct Daemon {
    missing: Mutex<Vec<String>>,
    metrics: Metrics,
}

impl Source for Daemon {
    fn ready(&self) -> Result<(), Vec<String>> {
        let missing = self.missing.lock().expect("no test panics here").clone();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.metrics.encode()
    }

    fn debug(&self, what: What) -> serde_json::Value {
        match what {
            What::Snapshot => {
                view::snapshot(&crate::snapshot::NodeSnapshot::default(), |_| view::PodState::default(), &[])
            }
            What::World | What::Model | What::Kernel => json!({ "what": format!("{what:?}") }),
        }
    }

    fn why(&self, question: &crate::why::Question) -> Result<crate::why::Answer, crate::why::WhyError> {
        crate::why::ask(crate::world::World::default(), Default::default(), Default::default(), question)
    }
}

struct Admin {
    address: SocketAddr,
    daemon: Arc<Daemon>,
    task: JoinHandle<()>,
}

impl Admin {
    fn start() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        Self::on(listen(HERE).expect("a free port"), limits)
    }

    fn on(listener: Listeners, limits: Limits) -> Self {
        let address = listener.address().expect("an address");
        let metrics = Metrics::default();
        let daemon = Arc::new(Daemon { missing: Mutex::default(), metrics: metrics.clone() });
        let source: Arc<dyn Source> = Arc::<Daemon>::clone(&daemon);
        let task = serve_within(listener, source, &metrics, limits).expect("a server");
        Self { address, daemon, task }
    }

    /// Sends raw bytes and returns everything that comes back.
    #[expect(clippy::disallowed_methods, reason = "a client of the admin server, over loopback")]
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut response = Vec::new();
        // A server that refuses what it has not read to its end may reset the connection after its answer.
        let _ = stream.read_to_end(&mut response).await;
        String::from_utf8(response).expect("text")
    }

    /// The answer without its date.
    async fn ask(&self, method: &str, path: &str) -> String {
        let response = self.raw(&format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let lines = response.lines().filter(|line| !line.starts_with("date: "));
        lines.map(|line| format!("{line}\n")).collect()
    }

    async fn wait_for_metric(&self, line: &str) {
        let found = async {
            while !self.daemon.metrics.encode().expect("metrics are written").lines().any(|known| known == line) {
                tokio::task::yield_now().await;
            }
        };
        let metrics = || self.daemon.metrics.encode();
        tokio::time::timeout(Duration::from_secs(20), found)
            .await
            .unwrap_or_else(|_| panic!("no `{line}` in {:?}", metrics()));
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let admin = Admin::start();
    expect![[r#"
        HTTP/1.1 200 OK
        content-type: application/json
        cache-control: no-store
        connection: close
        content-length: 37

        {
          "ready": true,
          "missing": []
        }
    "#]]
    .assert_eq(&admin.ask("GET", "/readyz").await);
    *admin.daemon.missing.lock().expect("no test panics here") = vec!["no certificates yet".into()];
    expect![[r#"
        HTTP/1.1 503 Service Unavailable
        content-type: application/json
        cache-control: no-store
        connection: close
        content-length: 67

        {
          "ready": false,
          "missing": [
            "no certificates yet"
          ]
        }
    "#]]
    .assert_eq(&admin.ask("GET", "/readyz").await);
    assert!(admin.ask("GET", "/healthz").await.ends_with("\n\nok\n"), "healthy while not ready");
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let admin = Admin::start();
    let response = admin.ask("GET", "/metrics").await;
    assert!(response.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\n"));
    assert!(response.ends_with("# EOF\n"), "{response}");
}

#[tokio::test]
async fn every_view_is_json_and_the_rest_is_refused() {
    let admin = Admin::start();
    for (path, what) in [("/debug/world", "World"), ("/debug/model", "Model"), ("/debug/kernel", "Kernel")] {
        let response = admin.ask("GET", path).await;
        assert!(response.ends_with(&format!("\n\n{{\n  \"what\": \"{what}\"\n}}\n")), "{response}");
    }
    assert!(admin.ask("GET", "/debug/snapshot?pretty").await.contains("\"pods\": []"));
    let unknown = admin.ask("GET", "/debug").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("\n/debug/snapshot\n"), "{unknown}");
    let post = admin.ask("POST", "/metrics").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\nallow: GET\n"), "{post}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_counted() {
    let admin = Admin::start();
    let response = admin.raw("\x16\x03\x01\x02\x00\x01\r\n\r\n").await;
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 400 "), "{response}");
    admin.wait_for_metric("mesh_admin_connection_errors_total{reason=\"not_http\"} 1").await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEADER));
    let response = admin.raw(&large).await;
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 431 "), "{response}");
    assert!(admin.ask("GET", "/healthz").await.starts_with("HTTP/1.1 200 "), "the next one is served");
}

#[tokio::test]
async fn who_says_nothing_is_cut_off_and_counted() {
    for (header, whole) in [(SHORT, LIMITS.whole), (LIMITS.whole, SHORT)] {
        let admin = Admin::with(Limits { header, whole });
        assert_eq!(admin.raw("GET /healthz HTTP/1.1\r\n").await, "", "the connection ends without an answer");
        admin.wait_for_metric("mesh_admin_connection_errors_total{reason=\"deadline\"} 1").await;
    }
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    for address in [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 15020)),
    ] {
        let error = listen(address).expect_err("this is not loopback");
        assert!(error.to_string().contains("is not a loopback address; use 127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn a_new_daemon_listens_beside_the_old_one() {
    let old = Admin::start();
    let new = listen(old.address).expect("the address is shared");
    assert_eq!(new.address().expect("an address"), old.address);
}

#[tokio::test]
async fn a_probe_asks_one_daemon_at_its_own_socket() {
    let path = |name: &str| std::env::temp_dir().join(format!("mesh-admin-{name}-{}.sock", std::process::id()));
    let (first, second) = (path("first"), path("second"));
    let old = Admin::on(listen(HERE).and_then(|listeners| listeners.and_socket(&first)).expect("a socket"), LIMITS);
    let new = listen(old.address).and_then(|listeners| listeners.and_socket(&second)).expect("a socket");
    let new = Admin::on(new, LIMITS);
    *new.daemon.missing.lock().expect("no test panics here") = vec!["no certificates yet".into()];
    status::probe(&first, true).await.expect("the old one is ready");
    status::probe(&second, false).await.expect("the new one is alive");
    let error = status::probe(&second, true).await.expect_err("the new one is not ready");
    assert!(error.to_string().contains("no certificates yet"), "{error}");
    new.task.abort();
    std::fs::remove_file(&second).expect("the socket is there");
    let error = status::probe(&second, false).await.expect_err("nobody listens");
    assert!(error.to_string().contains(&second.display().to_string()), "{error}");
    std::fs::remove_file(&first).expect("the socket is there");
}

#[tokio::test]
async fn other_machines_get_the_metrics_and_nothing_else() {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let listeners = listen(HERE).and_then(|listeners| listeners.and_metrics(everywhere)).expect("a free port");
    let port = listeners.metrics_address().expect("an address").expect("it is open").port();
    let mut admin = Admin::on(listeners, LIMITS);
    admin.address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert!(admin.ask("GET", "/metrics").await.starts_with("HTTP/1.1 200 "));
    for path in ["/healthz", "/readyz", "/debug/world", "/debug/snapshot"] {
        assert!(admin.ask("GET", path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[tokio::test]
async fn the_status_page_is_made_from_a_daemon_that_serves() {
    let admin = Admin::start();
    crate::telemetry::process::register(&admin.daemon.metrics, "0.9.0");
    *admin.daemon.missing.lock().expect("no test panics here") = vec!["no certificates yet".into()];
    let page = status::status(admin.address).await.expect("a page");
    let head = format!("mesh-node 0.9.0 at {}: NOT READY\n  missing: no certificates yet\n\nPods (0)\n", admin.address);
    assert!(page.starts_with(&head), "{page}");
}

#[tokio::test]
async fn without_a_daemon_the_status_says_what_to_check() {
    // Bound and not listening, so that no one else can have the port either.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&HERE.into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let error = status::status(address).await.expect_err("nobody listens");
    assert!(error.to_string().contains("is it running"), "{error}");
}
