//! Many objects at once, and many changes.
//!
//! In:  an API server.
//! Out: objects in its store; [`Proxy`], through which requests are sent without a process for each.
//! Invariant: what the store is given is what the API server itself would have put there, but for the form, which is JSON.
//! Source: etcd, "gRPC gateway"; Kubernetes, "kubectl proxy".

use super::{ApiServer, Stage};
use crate::daemon::{Answer, parse};
use crate::exec::Process;
use crate::traffic;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The store takes at most 128 operations in one transaction.
const TOGETHER: usize = 100;
const STORE_PORT: u16 = 2379;
const PROXY_PORT: u16 = 8001;

/// A way to the API server for the admin, without TLS. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    stage: Arc<Stage>,
    _process: Process,
}

impl ApiServer {
    /// Puts objects, by their keys, into the store behind the API server: thousands a second, where the API server takes
    /// some hundreds. Returns how many.
    ///
    /// **Errors**: the store does not take them.
    pub fn store(&self, entries: impl IntoIterator<Item = (String, String)>) -> Result<usize> {
        let mut entries = entries.into_iter().peekable();
        let mut stored = 0;
        while entries.peek().is_some() {
            let base64 = |text: &str| BASE64_STANDARD.encode(text);
            let put =
                |(key, value): (String, String)| json!({"requestPut": {"key": base64(&key), "value": base64(&value)}});
            let puts: Vec<Value> = entries.by_ref().take(TOGETHER).map(put).collect();
            stored += puts.len();
            let answer =
                request(&self.0, STORE_PORT, ("POST", "/v3/kv/txn", "application/json"), &json!({"success": puts}))?;
            ensure!(answer.status == 200, "the store answered {}: {}", answer.status, answer.body);
        }
        Ok(stored)
    }

    /// Opens a way to the API server for the admin.
    ///
    /// **Errors**: `kubectl` is not built, or does not start.
    pub fn proxy(&self) -> Result<Proxy> {
        let mut command = self.kubectl_command();
        command.args(["proxy", &format!("--port={PROXY_PORT}")]);
        let process = Process::start(&mut command, &self.dir().join("proxy.log"))?;
        let proxy = Proxy { stage: Arc::clone(&self.0), _process: process };
        wait::until_true("kubectl proxies", PATIENCE, || {
            Ok(proxy.get("/readyz").is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(proxy)
    }
}

impl Proxy {
    /// What the API server has at `path`.
    ///
    /// **Errors**: it does not answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        request(&self.stage, PROXY_PORT, ("GET", path, "application/json"), &Value::Null)
    }

    /// Changes the object at `path` by a merge patch.
    ///
    /// **Errors**: the API server does not answer, or refuses.
    pub fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        let answer = request(&self.stage, PROXY_PORT, ("PATCH", path, "application/merge-patch+json"), patch)?;
        ensure!(answer.status == 200, "PATCH {path}: {} {}", answer.status, answer.body);
        Ok(())
    }
}

fn request(stage: &Stage, port: u16, (method, path, form): (&str, &str, &str), body: &Value) -> Result<Answer> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let stream = traffic::connect(&stage.ns, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), PATIENCE)?;
    let answer = traffic::exchange_open(stream, (head + &body).as_bytes())?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("the answer to {method} {path}"))
}
