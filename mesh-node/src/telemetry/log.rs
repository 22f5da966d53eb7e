//! The daemon's own log: what it did and what went wrong, on standard error.
//!
//! In:  events of `tracing`.
//! Out: one line per event, as text or JSON.
//! Invariant: a line is written by the thread that logs it, so that none is lost when the daemon dies; what
//!   happens once per connection belongs into [`super::access`] and metrics instead.
//! Invariant: the filter is passed in; no environment variable is read here.
//! Source: filters are written as for `RUST_LOG`.

use super::TelemetryError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A readable line.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Begins the log of this process; `filter` as in `info,mesh_node::steer=debug`.
///
/// **Errors**: the filter is not valid, or a log was begun before.
pub fn init(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let filter = parse(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|source| TelemetryError::LogTaken { source })
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(parse("info,mesh_node::steer=debug").is_ok());
        let error = parse("mesh_node=loud").expect_err("an unknown level");
        assert!(error.to_string().contains("`mesh_node=loud`"), "{error}");
    }
}
