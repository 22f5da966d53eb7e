//! Where spans go and how many, as settings say it.

use http::Uri;
use std::str::FromStr;

/// The address of a collector, to which spans are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// With the path for traces.
    pub(super) traces: Uri,
}

/// What is wrong with the address of a collector.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL.
    #[error("`{text}` is no URL; write it as in http://192.0.2.1:4318")]
    Url {
        /// As it was given.
        text: String,
    },
    /// Neither HTTP nor HTTPS.
    #[error(
        "spans are posted over http or https, which `{text}` does not begin with; port 4317 is usually that of gRPC, 4318 that of HTTP"
    )]
    Scheme {
        /// As it was given.
        text: String,
    },
    /// It has a query.
    #[error("`{text}` has a query, which the address of a collector has not")]
    Query {
        /// As it was given.
        text: String,
    },
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// **Source**: OpenTelemetry, `OTEL_EXPORTER_OTLP_ENDPOINT`: `v1/traces` is added to the address.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = || text.to_owned();
        let uri: Uri = text().parse().map_err(|_| EndpointError::Url { text: text() })?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(EndpointError::Scheme { text: text() });
        }
        if uri.query().is_some() {
            return Err(EndpointError::Query { text: text() });
        }
        let traces = format!("{}/v1/traces", text().trim_end_matches('/'));
        let traces = traces.parse().map_err(|_| EndpointError::Url { text: text() })?;
        Ok(Self { traces })
    }
}

/// A share of all requests, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(f64);

/// What is no share of all requests.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no percentage; give a number from 0 to 100, as in 1 or 0.01")]
pub struct PercentError {
    text: String,
}

impl Percent {
    /// Is one request, taken at random, among them?
    pub(super) fn draw(self) -> bool {
        self.0 > 0.0 && fastrand::f64() * 100.0 < self.0
    }
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        match text.parse() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(Self(share)),
            Ok(_) | Err(_) => Err(PercentError { text: text.to_owned() }),
        }
    }
}
