//! A line of text, written piece by piece.
//!
//! In:  what a record knows.
//! Out: readable text. It is written for each request, so nothing is made that is not in it.
//! Invariant: no text from outside can end the line or pass for another field.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// A line that is being written.
pub(super) struct Line(String);

impl Line {
    /// An empty one, with room for `usual` bytes.
    pub(super) fn with_capacity(usual: usize) -> Self {
        Self(String::with_capacity(usual))
    }

    /// The bytes, with a newline.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.0.push('\n');
        self.0.into_bytes()
    }

    /// Text of our own.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// A number in decimal.
    pub(super) fn number(&mut self, mut number: u64) -> &mut Self {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = digit(number % 10);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.ascii(&digits[at..])
    }

    /// A time in milliseconds, to the microsecond.
    pub(super) fn milliseconds(&mut self, time: Duration) -> &mut Self {
        let micros = u64::try_from((time.as_nanos() + 500) / 1000).unwrap_or(u64::MAX);
        let rest = micros % 1000;
        self.number(micros / 1000).ascii(&[b'.', digit(rest / 100), digit(rest / 10 % 10), digit(rest % 10)])
    }

    /// An address and its port.
    pub(super) fn address(&mut self, address: SocketAddr) -> &mut Self {
        match address {
            SocketAddr::V4(address) => {
                let [a, b, c, d] = address.ip().octets().map(u64::from);
                self.number(a).text(".").number(b).text(".").number(c).text(".").number(d);
                self.text(":").number(address.port().into())
            }
            SocketAddr::V6(address) => {
                // Memory takes every character.
                let _ = write!(self.0, "{address}");
                self
            }
        }
    }

    /// Text from elsewhere, in parts: as it is where it is plain, else quoted with escapes.
    pub(super) fn name(&mut self, parts: &[&str]) -> &mut Self {
        let plain = |b: u8| b.is_ascii_alphanumeric() | matches!(b, b'.' | b'-' | b'_' | b'/' | b':');
        if parts.iter().any(|part| !part.is_empty()) && are_all(parts, plain) {
            parts.iter().for_each(|part| self.0.push_str(part));
            return self;
        }
        self.quoted(parts)
    }

    /// Text from elsewhere, in parts, quoted with escapes.
    pub(super) fn quoted(&mut self, parts: &[&str]) -> &mut Self {
        let plain = |b: u8| matches!(b, b' '..=b'~') & (b != b'"') & (b != b'\\');
        if are_all(parts, plain) {
            self.0.push('"');
            parts.iter().for_each(|part| self.0.push_str(part));
            self.0.push('"');
        } else {
            // Memory takes every character.
            let _ = write!(self.0, "{:?}", parts.concat());
        }
        self
    }

    fn ascii(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.push_str(std::str::from_utf8(bytes).unwrap_or_default());
        self
    }
}

/// Are all bytes like this? Each is looked at, whatever the others are, so that many are looked at together.
fn are_all(parts: &[&str], is_so: impl Fn(u8) -> bool) -> bool {
    parts.iter().all(|part| part.bytes().fold(true, |so_far, byte| so_far & is_so(byte)))
}

/// The digit of a number below ten.
fn digit(number: u64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Line) -> &mut Line) -> String {
        let mut line = Line::with_capacity(16);
        write(&mut line);
        line.0
    }

    #[test]
    fn pieces_are_as_the_standard_library_writes_them() {
        for number in [0, 7, 10, 4294967296, u64::MAX] {
            assert_eq!(written(|line| line.number(number)), number.to_string());
        }
        for address in ["10.0.0.1:80", "255.255.255.255:65535", "[fd00::1]:8080"] {
            assert_eq!(written(|line| line.address(address.parse().expect("an address"))), address);
        }
        for (micros, text) in [(0, "0.000"), (7, "0.007"), (12_345, "12.345"), (60_000_000, "60000.000")] {
            assert_eq!(written(|line| line.milliseconds(Duration::from_micros(micros))), text);
        }
        assert_eq!(written(|line| line.milliseconds(Duration::from_nanos(1_500))), "0.002");
        for text in ["GET / HTTP/1.1", "", "a\"b", "a\\b", "a\nb", "é", "\u{7f}"] {
            assert_eq!(written(|line| line.quoted(&[text])), format!("{text:?}"));
            assert_eq!(written(|line| line.quoted(&[text, "c"])), format!("{:?}", format!("{text}c")));
        }
        for (parts, text) in [(&["a", "/", "b"][..], "a/b"), (&["a b"], "\"a b\""), (&[""], "\"\"")] {
            assert_eq!(written(|line| line.name(parts)), text);
        }
    }
}
