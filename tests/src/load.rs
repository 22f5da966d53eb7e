//! What `meshload` says of a load.
//!
//! In:  what it prints.
//! Out: [`Figures`].

use anyhow::{Context, Result};
use serde::Deserialize;

/// What came of a load.
#[derive(Clone, Debug, Deserialize)]
pub struct Figures {
    /// Requests with an answer, whatever that was.
    pub answered: u32,
    /// Answers other than 200, and connections that failed.
    errors: u32,
    /// Requests whose answer had not come when the load ended.
    unanswered: u32,
    /// Why the first one failed.
    pub first_error: Option<String>,
    /// The latency that half of the answers did not exceed; none where there was no answer.
    pub p50_ms: Option<f64>,
    /// The same of nine in ten.
    pub p90_ms: Option<f64>,
    /// The same of 99 in a hundred.
    pub p99_ms: Option<f64>,
    /// The same of 999 in a thousand.
    pub p999_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
}

impl Figures {
    /// The figures in what a load printed, whatever stands around them.
    ///
    /// **Errors**: there are none.
    pub fn read(printed: &str) -> Result<Self> {
        let found = printed.lines().find_map(|line| serde_json::from_str(line).ok());
        found.with_context(|| format!("meshload printed no figures: {printed}"))
    }

    /// Requests that failed or were not answered.
    #[must_use]
    pub const fn failed(&self) -> u32 {
        self.errors + self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_other_lines() {
        let printed =
            "warning: busy\n{\"answered\":3,\"errors\":1,\"unanswered\":2,\"first_error\":\"reset\",\"p50_ms\":0.5}\n";
        let figures = Figures::read(printed).unwrap();
        assert_eq!((figures.answered, figures.failed(), figures.p50_ms, figures.p99_ms), (3, 3, Some(0.5), None));
        assert!(Figures::read("command terminated").is_err());
    }
}
