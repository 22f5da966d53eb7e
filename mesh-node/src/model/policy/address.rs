//! Ranges of addresses.
//!
//! Out: [`Prefix`], one range as users write it; [`Prefixes`], any number of them.
//! Invariant: equal sets of addresses are equal, however they were written; to look one up costs the logarithm of their number.
//! Invariant: a range of IPv6 holds no address of IPv4, unless it is written in the mapped form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses, as in `10.0.0.0/8`. Bits beyond the length do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address and no range such as 10.0.0.0/8")]
pub struct PrefixError {
    text: String,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// An address, or one with a length.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let parse = || {
            let (address, length) = text.split_once('/').map_or((text, None), |(of, length)| (of, Some(length)));
            let address: IpAddr = address.parse().ok()?;
            let whole = if address.is_ipv4() { 32 } else { 128 };
            let length = match length {
                Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => length.parse().ok()?,
                Some(_) => return None,
                None => whole,
            };
            (length <= whole).then_some(Self { address, length })
        };
        parse().ok_or_else(|| PrefixError { text: text.to_owned() })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The first and the last address of IPv4, as numbers.
const OF_V4: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

impl Prefix {
    /// The first and the last address of each range that it is, as numbers. A range of IPv6 around the addresses of IPv4 is what
    /// stands before them and what stands behind.
    fn ranges(self) -> impl Iterator<Item = (u128, u128)> {
        let before = if self.address.is_ipv4() { 96 } else { 0 };
        let rest = u128::MAX.checked_shr(before + u32::from(self.length)).unwrap_or(0);
        let first = number(self.address) & !rest;
        let last = first | rest;
        let is_around = before + u32::from(self.length) < 96 && first <= OF_V4.0 && OF_V4.1 <= last;
        let parts = if is_around { [(first, OF_V4.0 - 1), (OF_V4.1 + 1, last)] } else { [(first, last), (1, 0)] };
        parts.into_iter().filter(|(first, last)| first <= last)
    }
}

/// An address as a number; those of IPv4 in their mapped form.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Any number of ranges of addresses.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefixes {
    /// First and last address of each range, in order, neither overlapping nor touching.
    ranges: Box<[(u128, u128)]>,
}

impl Prefixes {
    /// Is the address in one of them?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = number(address);
        let behind = self.ranges.partition_point(|&(first, _)| first <= address);
        behind.checked_sub(1).is_some_and(|at| address <= self.ranges[at].1)
    }

    /// What is in any of these.
    #[must_use]
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::merged(sets.into_iter().flat_map(|set| set.ranges.iter().copied()).collect())
    }

    fn merged(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Self { ranges: merged.into() }
    }
}

impl FromIterator<Prefix> for Prefixes {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        Self::merged(prefixes.into_iter().flat_map(Prefix::ranges).collect())
    }
}

impl FromIterator<IpAddr> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self::merged(addresses.into_iter().map(|address| (number(address), number(address))).collect())
    }
}

impl fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |number: u128| {
            let address = Ipv6Addr::from(number);
            address.to_ipv4_mapped().map_or(IpAddr::V6(address), |v4: Ipv4Addr| IpAddr::V4(v4))
        };
        let ranges = self.ranges.iter().map(|&(first, last)| format!("{}-{}", show(first), show(last)));
        f.debug_list().entries(ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> Prefixes {
        texts.iter().map(|text| text.parse::<Prefix>().expect("a prefix")).collect()
    }

    #[test]
    fn an_address_is_in_the_ranges_that_cover_it() {
        let set = set(&["10.0.0.5/8", "192.168.1.1", "192.168.1.2/32", "fd00::/64", "::ffff:0:0/112"]);
        for (text, within) in [
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.168.1.1", true),
            ("192.168.1.3", false),
            ("fd00::ffff:1", true),
            ("fd00:0:0:1::", false),
            ("0.0.255.255", true),
            ("::1", false),
        ] {
            assert_eq!(set.contains(text.parse().expect("an address")), within, "{text}");
        }
        assert!(!Prefixes::default().contains(Ipv4Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn ranges_of_one_family_hold_nothing_of_the_other() {
        let v4: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
        for around in ["::/0", "::/1", "::/80", "::8000:0:0/81", "::fffe:0:0/95"] {
            assert!(!set(&[around]).contains(v4), "{around}");
        }
        for (range, text) in
            [("::/0", "::1"), ("::/0", "::1:0:0:0"), ("::/0", "fd00::1"), ("::fffe:0:0/95", "::fffe:0:1")]
        {
            assert!(set(&[range]).contains(text.parse().expect("an address")), "{text} in {range}");
        }
        assert!(!set(&["0.0.0.0/0"]).contains("fd00::1".parse().expect("an address")));
        assert!(set(&["::ffff:0:0/96"]).contains(v4), "the mapped form is IPv4");
        assert!(set(&["::/0", "0.0.0.0/0"]).contains(v4));
    }

    #[test]
    fn equal_sets_are_equal_however_they_were_written() {
        assert_eq!(set(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]), set(&["10.0.0.0/8"]));
        assert_eq!(Prefixes::union([&set(&["::/1"]), &set(&["8000::/1"])]), set(&["::/0"]));
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!([address].into_iter().collect::<Prefixes>(), set(&["10.0.0.1"]));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "a/8", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
