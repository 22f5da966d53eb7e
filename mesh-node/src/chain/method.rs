//! How our plugin gets into the runtime's chain.
//!
//! In:  what the operator wants; the runtime's name and version, as the Node object has them.
//! Out: [`Method`].
//! Source: libcni 1.3.0 appends what is in `<configuration directory>/<network>/*.conf`; containerd 2.1 and CRI-O 1.33 are the
//! first that were built with it.

/// Where our entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// In a file of its own, in the network's directory, which nobody else writes.
    DropIn,
    /// In the list of the network itself, which whoever wrote it may write again.
    Conflist,
}

impl Method {
    /// In metrics and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DropIn => "drop-in",
            Self::Conflist => "conflist",
        }
    }
}

/// The runtime's version cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("whether the container runtime {0:?} reads drop-ins is not known; set --chain to drop-in or to conflist")]
pub struct UnknownRuntime(pub String);

/// The method that a runtime needs. `runtime` is `status.nodeInfo.containerRuntimeVersion` of the Node, as in
/// `containerd://1.6.20~ds1`.
///
/// **Errors**: it is neither containerd nor CRI-O, or its version is no number.
pub fn method(runtime: &str) -> Result<Method, UnknownRuntime> {
    let unknown = || UnknownRuntime(runtime.to_owned());
    let (name, version) = runtime.trim().split_once("://").ok_or_else(unknown)?;
    let since = match name {
        "containerd" => (2, 1),
        "cri-o" => (1, 33),
        _ => return Err(unknown()),
    };
    let mut parts = version.trim_start_matches('v').split('.');
    let mut number = || {
        let part = parts.next()?;
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    };
    let version = number().zip(number()).ok_or_else(unknown)?;
    Ok(if version >= since { Method::DropIn } else { Method::Conflist })
}
