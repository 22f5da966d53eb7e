//! What a daemon tells of the listeners of gateways, as an annotation of its own pod.
//!
//! In:  what it tells; the text of the annotation.
//! Out: the text to write; what it says.
//! Invariant: the text is bounded: gateways that have no room in it are left out, as if nothing were told of them.
//! Invariant: what is not understood says nothing.

use crate::model::{Closed, Listening, Told};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The annotation.
pub const LISTENING: &str = "mesh.internal/listening";

/// The longest text: annotations of an object may have four times as much.
const MAX_TEXT: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Written {
    generation: i64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    closed: BTreeMap<String, String>,
}

/// The value of the annotation that tells this.
#[must_use]
pub fn text(listening: &Listening) -> String {
    let mut text = String::from("{");
    for (uid, told) in listening {
        let closed = told.closed.iter().map(|(name, why)| (name.clone(), why.word().to_owned())).collect();
        let written = Written { generation: told.generation, closed };
        let entry = serde_json::to_string(&written).map(|entry| format!("{}:{entry}", serde_json::Value::from(&**uid)));
        // Maps of texts and numbers can be written.
        let Ok(entry) = entry else { continue };
        if text.len() + entry.len() + 2 > MAX_TEXT {
            break;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&entry);
    }
    text.push('}');
    text
}

/// What such a value tells.
#[must_use]
pub fn read(text: &str) -> Listening {
    let written: BTreeMap<String, Written> = serde_json::from_str(text).unwrap_or_default();
    let told = |Written { generation, closed }| {
        let why = |word: &str| Closed::ALL.into_iter().find(|why| why.word() == word);
        let closed = closed.into_iter().map(|(name, word)| Some((name, why(&word)?))).collect::<Option<_>>()?;
        Some(Told { generation, closed })
    };
    written.into_iter().filter_map(|(uid, of)| Some((uid, told(of)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(closed: &[(&str, Closed)]) -> Told {
        Told { generation: 3, closed: closed.iter().map(|(name, why)| ((*name).to_owned(), *why)).collect() }
    }

    #[test]
    fn what_is_written_is_read() {
        for listening in [
            Listening::new(),
            Listening::from([("u-1".to_owned(), told(&[]))]),
            Listening::from([
                ("u-1".to_owned(), told(&[("http", Closed::Opening), ("https", Closed::InvalidCertificate)])),
                ("u-2".to_owned(), told(&[("a", Closed::PortUnavailable), ("b", Closed::Conflict)])),
            ]),
        ] {
            assert_eq!(read(&text(&listening)), listening);
        }
        assert_eq!(text(&Listening::from([("u".to_owned(), told(&[]))])), r#"{"u":{"generation":3}}"#);
    }

    #[test]
    fn what_is_not_understood_says_nothing() {
        for text in ["", "[]", r#"{"u":{}}"#, r#"{"u":{"generation":1,"closed":{"a":"Asleep"}}}"#] {
            assert_eq!(read(text), Listening::new(), "{text}");
        }
    }

    #[test]
    fn a_text_is_bounded_and_what_is_in_it_is_whole() {
        let all: Listening = (0..5000).map(|number| (format!("{number:036}"), told(&[]))).collect();
        let text = text(&all);
        assert!(text.len() <= MAX_TEXT);
        let found = read(&text);
        assert!(found.len() > 1000 && found.iter().all(|(uid, told)| all.get(uid) == Some(told)));
    }
}
