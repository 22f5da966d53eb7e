//! Address prefixes, as in `10.0.0.0/8`.

use super::maps::address;
use mesh_common::map::Address;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text that is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no prefix; write an address and a length, as in 10.0.0.0/8, with no bit set beyond the length")]
pub struct PrefixError {
    text: String,
}

impl Prefix {
    /// The key in the trie: length and address in mapped form.
    pub(super) fn key(self) -> (u32, Address) {
        let before = if self.address.is_ipv4() { 96 } else { 0 };
        (before + u32::from(self.length), address(self.address))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
            let beyond = match address {
                IpAddr::V4(address) if length <= 32 => {
                    u128::from(u32::from(address) & u32::MAX.checked_shr(length.into()).unwrap_or(0))
                }
                IpAddr::V6(address) if length <= 128 => {
                    u128::from(address) & u128::MAX.checked_shr(length.into()).unwrap_or(0)
                }
                IpAddr::V4(_) | IpAddr::V6(_) => return None,
            };
            (beyond == 0).then_some(Self { address, length })
        };
        parse().ok_or_else(|| PrefixError { text: text.to_owned() })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_prefix_correspond() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "169.254.169.254/32", "fd00::/8", "::/0", "fd00::1/128"] {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "fd00::1/64", "fd00::/129", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
