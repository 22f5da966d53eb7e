//! A bank as three small real services: customer, summary and database.
//!
//! In:  [`Options`] from flags or the environment; HTTP/1.1 requests.
//! Out: JSON: customer asks summary for a balance, which asks the database.
//! Invariant: no service refuses anybody or any method: whoever is refused was refused by policies.

use crate::bookinfo::http::{self, Call, Reply, Upstream};
use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

/// Which of the three services a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The page of a customer, with the balance that summary tells.
    Customer,
    /// The balance of an account that the database has.
    Summary,
    /// The accounts.
    Database,
}

/// What a process is told at its start. Host names may be IP addresses.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Which service to be.
    pub kind: Kind,
    /// Where to listen.
    #[arg(long, default_value = "[::]:9080")]
    pub listen: SocketAddr,
    /// The name under which the process reports itself.
    #[arg(long, env = "HOSTNAME", default_value = "unknown")]
    pub pod: String,
    /// Host of summary.
    #[arg(long, env = "SUMMARY_SERVICE_HOST", default_value = "summary")]
    pub summary_host: String,
    /// Port of summary.
    #[arg(long, env = "SUMMARY_SERVICE_PORT", default_value_t = 9080)]
    pub summary_port: u16,
    /// Host of the database.
    #[arg(long, env = "DATABASE_SERVICE_HOST", default_value = "database")]
    pub database_host: String,
    /// Port of the database.
    #[arg(long, env = "DATABASE_SERVICE_PORT", default_value_t = 9080)]
    pub database_port: u16,
}

/// Serves until the process is ended.
///
/// **Errors**: the address cannot be listened on.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let Options { kind, listen, pod, summary_host, summary_port, database_host, database_port } = options;
    let next = match kind {
        Kind::Customer => Upstream { host: summary_host, port: summary_port },
        Kind::Summary | Kind::Database => Upstream { host: database_host, port: database_port },
    };
    let service = Arc::new((kind, pod, next));
    http::serve(listen, move |call| {
        let service = Arc::clone(&service);
        async move {
            let (kind, pod, next) = &*service;
            answer(*kind, (pod, next), &call).await
        }
    })
    .await
    .with_context(|| format!("cannot serve on {listen}"))
}

async fn answer(kind: Kind, (pod, next): (&str, &Upstream), call: &Call) -> Reply {
    let (method, path) = (call.method.as_str(), call.path.as_str());
    match (kind, method, path) {
        (_, "GET", "/health") => Reply::text("healthy"),
        (Kind::Customer, "GET", "/") => asked(next, "/balance", call).await,
        (Kind::Summary, "GET", "/balance") => asked(next, "/accounts/519", call).await,
        (Kind::Database, "GET", "/accounts/519") => Reply::json(&json!({"account": 519, "balance": "988.67"})),
        _ => Reply::json(&json!({"pod": pod, "did": format!("{method} {path}")})),
    }
}

async fn asked(next: &Upstream, path: &str, call: &Call) -> Reply {
    match next.ask_json(path, call).await {
        Ok(answer) => Reply::json(&answer),
        Err(error) => Reply::error(503, &error.to_string()),
    }
}
