//! Times as users write them.
//!
//! In:  a text such as `1h30m`, `7s` or `0.5s`.
//! Out: a `Duration`.
//! Source: Gateway API GEP-2257; Istio takes what Go's `time.ParseDuration` takes.

use std::time::Duration;

const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The time that `text` says.
///
/// **Errors**: it says none, or one of more than about 500 years.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is no time");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(error());
    }
    let mut nanoseconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(error());
        }
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        let mut part = 0_u64;
        if !whole.is_empty() {
            part = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(*unit)).ok_or_else(error)?;
        }
        let mut place = *unit;
        for digit in fraction.bytes() {
            place /= 10;
            part = part.checked_add(place * u64::from(digit - b'0')).ok_or_else(error)?;
        }
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(error)?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums_of_numbers_with_units() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("7s", 7_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1m0s", 60_000),
            ("0.5s", 500),
            (".5s", 500),
            ("1.5s", 1_500),
            ("2.s", 2_000),
            ("1s500ms", 1_500),
            ("1000000us", 1_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "7", "s", ".s", "-1s", "1d", "1 s", "s1", "1s2", "99999999999999999999s", "9999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
