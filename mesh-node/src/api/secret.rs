//! Secrets that hold a certificate with its key.
//!
//! Out: [`Secret`].
//! Invariant: of its data the certificate and the key are kept and nothing else; neither is ever printed.
//! Source: the Kubernetes API reference, `core/v1.Secret` and its type `kubernetes.io/tls`.

use super::meta::{ObjectMeta, nullable};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A Secret, as far as TLS needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Namespace and name.
    pub metadata: ObjectMeta,
    /// What it holds, in base 64.
    #[serde(default, deserialize_with = "nullable")]
    pub data: Pair,
    /// The same as text, which comes before `data`.
    #[serde(default, deserialize_with = "nullable")]
    pub string_data: Pair,
}

/// A certificate chain and the key of its first certificate, both in PEM.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    #[serde(rename = "tls.crt", default)]
    chain: Option<String>,
    #[serde(rename = "tls.key", default)]
    key: Option<String>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({}, {})", self.chain.is_some(), self.key.is_some())
    }
}

impl Secret {
    /// The certificate chain and its key as text, where it has both.
    ///
    /// **Errors**: the name of the entry that is missing or is no base 64 of a text.
    pub fn pair(&self) -> Result<(String, String), &'static str> {
        let text = |of: fn(&Pair) -> &Option<String>| {
            let decoded = || String::from_utf8(STANDARD.decode(of(&self.data).as_ref()?).ok()?).ok();
            of(&self.string_data).clone().or_else(decoded)
        };
        let chain = text(|pair| &pair.chain).ok_or("tls.crt")?;
        let key = text(|pair| &pair.key).ok_or("tls.key")?;
        Ok((chain, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_entries_are_read_and_neither_is_printed() {
        let secret: Secret = serde_json::from_str(
            r#"{"metadata": {"name": "page"}, "data": {"tls.crt": "Y2hhaW4=", "tls.key": "a2V5", "other": "eA=="}}"#,
        )
        .expect("a secret");
        assert_eq!(secret.pair(), Ok(("chain".to_owned(), "key".to_owned())));
        assert!(!format!("{secret:?}").contains("a2V5"));
        let broken = r#"{"metadata": {"name": "page"}, "stringData": {"tls.crt": "chain"}, "data": {"tls.key": "?"}}"#;
        assert_eq!(serde_json::from_str::<Secret>(broken).expect("a secret").pair(), Err("tls.key"));
    }
}
