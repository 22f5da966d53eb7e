//! The result of the plugin before this one.
//!
//! In:  `prevResult`, of any version that this plugin speaks.
//! Out: the pod's addresses, and the same result again.
//! Invariant: the result is given on as it was written. Where its `cniVersion` is not the configuration's, that member is
//! set, and `ips[].version`, which 0.x requires and 1.x does not have, follows.
//! Source: CNI 1.1.0, section 5, "Add Success"; CNI 0.4.0, "Result"; Calico leaves out `sandbox`, `ips[].interface` and
//! the pod's own interface.

use crate::config::Version;
use crate::members::Members;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use std::net::IpAddr;

/// The result of the plugin before this one, not yet interpreted.
#[derive(Debug)]
pub struct PrevResult(Box<RawValue>);

/// There is no result, or it is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum PrevResultError {
    /// There is none.
    #[error("no prevResult: mesh-cni must be chained after a plugin that makes the pod's interface")]
    Missing,
    /// It is not of the form that every result has.
    #[error("prevResult cannot be decoded")]
    Decode {
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a version that this plugin does not speak.
    #[error("prevResult has cniVersion {version:?}, which is none of 0.3.1, 0.4.0, 1.0.0 and 1.1.0")]
    Version {
        /// The version.
        version: String,
    },
    /// An address cannot be parsed.
    #[error("prevResult has the address {address:?}, which is not of the form address/prefix length")]
    Address {
        /// The address.
        address: String,
    },
    /// It has no address for the interface.
    #[error("prevResult has no address for {ifname}: there is nothing that could be steered")]
    NoAddress {
        /// The interface name inside the pod.
        ifname: String,
    },
}

#[derive(Deserialize)]
struct Addresses {
    #[serde(default)]
    interfaces: Option<Vec<Interface>>,
    #[serde(default)]
    ips: Option<Vec<Ip>>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Ip {
    address: String,
    #[serde(default)]
    interface: Option<i64>,
}

impl PrevResult {
    /// Takes the result from the configuration.
    ///
    /// **Errors**: it has none.
    pub fn new(raw: Option<Box<RawValue>>) -> Result<Self, PrevResultError> {
        raw.map(Self).ok_or(PrevResultError::Missing)
    }

    /// The pod's addresses on `ifname`, in their order. Those which the result places on another interface inside the pod
    /// are left out.
    ///
    /// **Errors**: the result is malformed or has no address.
    pub fn addresses(&self, ifname: &str) -> Result<Vec<IpAddr>, PrevResultError> {
        let result: Addresses = decode(&self.0)?;
        let interfaces = result.interfaces.unwrap_or_default();
        let mut addresses = Vec::new();
        for ip in result.ips.unwrap_or_default() {
            let interface = ip.interface.and_then(|at| usize::try_from(at).ok()).and_then(|at| interfaces.get(at));
            let elsewhere = interface.is_some_and(|other| !other.sandbox.is_empty() && other.name != ifname);
            let address = parse_address(&ip.address)?;
            if !elsewhere && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(PrevResultError::NoAddress { ifname: ifname.to_owned() }) } else { Ok(addresses) }
    }

    /// The result in `version`, as JSON.
    ///
    /// **Errors**: it is no object, or of a version that is not spoken here.
    pub fn print(&self, version: Version) -> Result<String, PrevResultError> {
        let mut members: Members = decode(&self.0)?;
        let written: Option<String> = members.value("cniVersion").map(decode).transpose()?;
        match written {
            // Without a version, the result follows the configuration's.
            None => {}
            Some(text) => match Version::parse(&text) {
                Some(written) if written == version => return Ok(self.0.get().to_owned()),
                Some(written) => convert_addresses(&mut members, written, version)?,
                None => return Err(PrevResultError::Version { version: text }),
            },
        }
        members.set("cniVersion", raw(version.as_str())?);
        serde_json::to_string(&members).map_err(|source| PrevResultError::Decode { source })
    }
}

/// Between 0.x and 1.x, `ips[].version` comes or goes; nothing else that a plugin must have differs.
fn convert_addresses(result: &mut Members, from: Version, to: Version) -> Result<(), PrevResultError> {
    let has_version = |version: Version| version < Version::V1_0_0;
    let Some(ips) = result.value("ips").filter(|_| has_version(from) != has_version(to)) else {
        return Ok(());
    };
    let mut ips: Vec<Members> = decode(ips)?;
    for ip in &mut ips {
        if has_version(to) {
            let address: String = ip.value("address").map(decode).transpose()?.unwrap_or_default();
            let family = if parse_address(&address)?.is_ipv4() { "4" } else { "6" };
            ip.set("version", raw(family)?);
        } else {
            ip.remove("version");
        }
    }
    let ips = to_raw_value(&ips).map_err(|source| PrevResultError::Decode { source })?;
    result.set("ips", ips);
    Ok(())
}

fn parse_address(text: &str) -> Result<IpAddr, PrevResultError> {
    let wrong = || PrevResultError::Address { address: text.chars().take(100).collect() };
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let length: u8 = length.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if length <= longest { Ok(address.to_canonical()) } else { Err(wrong()) }
}

fn decode<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, PrevResultError> {
    serde_json::from_str(raw.get()).map_err(|source| PrevResultError::Decode { source })
}

fn raw(text: &str) -> Result<Box<RawValue>, PrevResultError> {
    to_raw_value(text).map_err(|source| PrevResultError::Decode { source })
}
