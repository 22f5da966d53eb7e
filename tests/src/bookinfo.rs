//! Bookinfo as small real services: productpage, details, reviews and ratings.
//!
//! In:  [`Options`] from flags or the environment; HTTP/1.1 requests.
//! Out: JSON and one HTML page, at the paths and with the fields of the public Bookinfo API.
//! Invariant: a service calls its neighbours at the addresses it was given and needs no DNS; what it is asked
//! to carry along for tracing reaches every neighbour it calls.
//! Source: the Bookinfo sample's OpenAPI description (`/api/v1`), W3C Trace Context, B3.

mod catalogue;
pub(crate) mod http;
mod page;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use http::{Call, Reply, Upstream};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

/// Which of the four services a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The page, made from details and reviews.
    Productpage,
    /// Facts about the book.
    Details,
    /// What readers say; versions 2 and 3 ask ratings for stars.
    Reviews,
    /// Stars by reader.
    Ratings,
}

/// What a process is told at its start. Host names may be IP addresses.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Which service to be.
    pub kind: Kind,
    /// Where to listen.
    #[arg(long, default_value = "[::]:9080")]
    pub listen: SocketAddr,
    /// v1 has no stars, v2 black ones, v3 red ones (reviews only).
    #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
    pub service_version: String,
    /// The name under which the process reports itself.
    #[arg(long, env = "HOSTNAME", default_value = "unknown")]
    pub pod: String,
    /// Host of details.
    #[arg(long, env = "DETAILS_HOSTNAME", default_value = "details")]
    pub details_hostname: String,
    /// Port of details.
    #[arg(long, env = "DETAILS_SERVICE_PORT", default_value_t = 9080)]
    pub details_port: u16,
    /// Host of reviews.
    #[arg(long, env = "REVIEWS_HOSTNAME", default_value = "reviews")]
    pub reviews_hostname: String,
    /// Port of reviews.
    #[arg(long, env = "REVIEWS_SERVICE_PORT", default_value_t = 9080)]
    pub reviews_port: u16,
    /// Host of ratings.
    #[arg(long, env = "RATINGS_HOSTNAME", default_value = "ratings")]
    pub ratings_hostname: String,
    /// Port of ratings.
    #[arg(long, env = "RATINGS_SERVICE_PORT", default_value_t = 9080)]
    pub ratings_port: u16,
}

/// One running service.
struct Bookinfo {
    kind: Kind,
    pod: String,
    stars: Option<&'static str>,
    details: Upstream,
    reviews: Upstream,
    ratings: Upstream,
}

/// Serves until the process is ended.
///
/// **Errors**: the version is unknown, or the address cannot be listened on.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let stars = match options.service_version.as_str() {
        "v1" => None,
        "v2" => Some("black"),
        "v3" => Some("red"),
        other => anyhow::bail!("there is no version {other}; use v1, v2 or v3"),
    };
    let service = Arc::new(Bookinfo {
        kind: options.kind,
        pod: options.pod,
        stars,
        details: Upstream { host: options.details_hostname, port: options.details_port },
        reviews: Upstream { host: options.reviews_hostname, port: options.reviews_port },
        ratings: Upstream { host: options.ratings_hostname, port: options.ratings_port },
    });
    http::serve(options.listen, move |call| {
        let service = Arc::clone(&service);
        async move { service.answer(&call).await }
    })
    .await
    .with_context(|| format!("cannot serve on {}", options.listen))
}

impl Bookinfo {
    async fn answer(&self, call: &Call) -> Reply {
        if call.method != "GET" {
            return Reply::error(405, "only GET is served here");
        }
        match self.kind {
            Kind::Productpage => self.productpage(call).await,
            Kind::Details => details(call),
            Kind::Reviews => self.reviews(call).await,
            Kind::Ratings => ratings(call),
        }
    }

    async fn productpage(&self, call: &Call) -> Reply {
        match call.path.as_str() {
            "/health" => Reply::text("Product page is healthy"),
            "/" => Reply::html(page::front()),
            "/productpage" => self.page(call).await,
            "/api/v1/products" => Reply::json(&json!([catalogue::product()])),
            "/api/v1/products/0" => pass_on(self.details.ask("/details/0", call).await),
            "/api/v1/products/0/reviews" => pass_on(self.reviews.ask("/reviews/0", call).await),
            "/api/v1/products/0/ratings" => pass_on(self.ratings.ask("/ratings/0", call).await),
            _ => Reply::error(404, "there is nothing at this path"),
        }
    }

    async fn page(&self, call: &Call) -> Reply {
        let (details, reviews) =
            tokio::join!(self.details.ask_json("/details/0", call), self.reviews.ask_json("/reviews/0", call));
        Reply::html(page::product(&self.pod, details.as_ref().ok(), reviews.as_ref().ok()))
    }

    async fn reviews(&self, call: &Call) -> Reply {
        match number_after(&call.path, "/reviews/") {
            Some(id) => {
                let ratings = match self.stars {
                    Some(color) => Some((color, self.ratings.ask_json(&format!("/ratings/{id}"), call).await.ok())),
                    None => None,
                };
                Reply::json(&catalogue::reviews(id, &self.pod, ratings))
            }
            None if call.path == "/health" => Reply::json(&json!({"status": "Reviews is healthy"})),
            None => Reply::error(404, "ask for /reviews/<number>"),
        }
    }
}

fn details(call: &Call) -> Reply {
    match number_after(&call.path, "/details/") {
        Some(id) => Reply::json(&catalogue::details(id)),
        None if call.path == "/health" => Reply::json(&json!({"status": "Details is healthy"})),
        None => Reply::error(404, "ask for /details/<number>"),
    }
}

fn ratings(call: &Call) -> Reply {
    match number_after(&call.path, "/ratings/") {
        Some(id) => Reply::json(&catalogue::ratings(id)),
        None if call.path == "/health" => Reply::json(&json!({"status": "Ratings is healthy"})),
        None => Reply::error(404, "ask for /ratings/<number>"),
    }
}

fn pass_on(answer: Result<Reply, http::UpstreamError>) -> Reply {
    answer.unwrap_or_else(|error| Reply::error(503, &error.to_string()))
}

fn number_after(path: &str, prefix: &str) -> Option<u32> {
    path.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_carry_a_number() {
        assert_eq!(number_after("/reviews/7", "/reviews/"), Some(7));
        assert_eq!(number_after("/reviews/", "/reviews/"), None);
        assert_eq!(number_after("/reviews/-1", "/reviews/"), None);
        assert_eq!(number_after("/details/7", "/reviews/"), None);
    }
}
