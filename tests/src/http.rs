//! Requests by curl, and answers of HTTP/1.1 as they come.
//!
//! In:  a namespace and a URL, or a connection.
//! Out: [`Seen`].
//! Invariant: what is not answered is an error; what is refused by a status is none.

use crate::exec::execute;
use crate::netns::NetNs;
use crate::traffic;
use crate::wait::PATIENCE;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The status code.
    pub status: u16,
    /// The headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Seen {
    /// The body as what the server `httpecho` understood.
    ///
    /// **Errors**: it is no JSON.
    pub fn told(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }

    /// Which server `httpecho` answered.
    ///
    /// **Errors**: as [`Seen::told`].
    pub fn server(&self) -> Result<String> {
        Ok(self.told()?["server"].as_str().unwrap_or_default().to_owned())
    }
}

impl NetNs {
    /// What curl inside gets, with further arguments.
    ///
    /// **Errors**: no answer came; the error has curl's reason.
    pub fn ask(&self, url: &str, arguments: &[&str]) -> Result<Seen> {
        let fixed = ["--silent", "--show-error", "--globoff", "--max-time", "10", "--dump-header", "/dev/stderr"];
        let output = execute(self.command("curl").args(fixed).args(arguments).arg(url), PATIENCE)?;
        ensure!(output.status.success(), "curl {url}: {}", output.stderr);
        seen(&output.stderr, output.stdout)
    }
}

/// The next answer on a connection, which has a length, or no body.
///
/// **Errors**: the connection ends or breaks before, or what comes is no answer.
pub fn answer(stream: &mut impl Read) -> Result<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(traffic::read_exactly(stream, 1)?);
    }
    let mut seen = seen(&String::from_utf8(head)?, String::new())?;
    let length = seen.headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    seen.body = String::from_utf8(traffic::read_exactly(stream, length)?)?;
    Ok(seen)
}

/// What was seen, by the heads and the body.
fn seen(heads: &str, body: String) -> Result<Seen> {
    // Of several heads, such as 100 and 200, the last counts.
    let last = heads.trim_end().split("\r\n\r\n").last().unwrap_or_default();
    let mut lines = last.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Seen { status: status.with_context(|| format!("no head: {last}"))?, headers, body })
}
