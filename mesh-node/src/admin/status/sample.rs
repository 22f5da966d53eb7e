//! Reads samples of counters from the OpenMetrics text format.
//!
//! In:  text as the daemon writes it.
//! Out: the samples of one metric: labels and value. What is not well formed is left out.
//! Source: OpenMetrics 1.0, "ABNF".

use std::collections::BTreeMap;

/// Labels by name.
pub(super) type SampleLabels = BTreeMap<String, String>;

/// The samples of the counter or info metric called `name`, suffix included.
pub(super) fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (SampleLabels, u64)> + 'a {
    text.lines().filter_map(move |line| sample(line.strip_prefix(name)?))
}

/// The rest of a line after the name: `{a="b",c="d"} 1` or ` 1`.
fn sample(rest: &str) -> Option<(SampleLabels, u64)> {
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (SampleLabels::new(), rest),
    };
    let value = value.strip_prefix(' ')?.split(' ').next()?;
    Some((labels, value.parse().ok()?))
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(SampleLabels, &str)> {
    let mut labels = SampleLabels::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.insert(key.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}
