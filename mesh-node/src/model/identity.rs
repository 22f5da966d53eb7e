//! SPIFFE identities in the form Istio gives them.
//!
//! **Source**: SPIFFE-ID section 2; Istio's `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The authority that vouches for identities, as in `cluster.local`.
pub type TrustDomain = Arc<str>;

/// What a workload proves about itself: its service account in a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Who vouches.
    pub trust_domain: TrustDomain,
    /// The service account's namespace.
    pub namespace: Arc<str>,
    /// The service account's name.
    pub service_account: Arc<str>,
}

/// A text that is no identity of a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct IdentityError {
    text: String,
}

impl Identity {
    /// The identity of a service account.
    ///
    /// **Errors**: a part would change the meaning of the SPIFFE ID, such as a name with a slash.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Result<Self, IdentityError> {
        let identity = Self {
            trust_domain: Arc::clone(trust_domain),
            namespace: namespace.into(),
            service_account: service_account.into(),
        };
        if is_trust_domain(&identity.trust_domain)
            && is_segment(&identity.namespace)
            && is_segment(&identity.service_account)
        {
            Ok(identity)
        } else {
            Err(IdentityError { text: identity.to_string() })
        }
    }

    /// Istio's principal: the SPIFFE ID without its scheme.
    #[must_use]
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let error = || IdentityError { text: text.to_owned() };
        let rest = text.strip_prefix("spiffe://").ok_or_else(error)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            &[trust_domain, "ns", namespace, "sa", service_account]
                if is_trust_domain(trust_domain) && is_segment(namespace) && is_segment(service_account) =>
            {
                Ok(Self {
                    trust_domain: trust_domain.into(),
                    namespace: namespace.into(),
                    service_account: service_account.into(),
                })
            }
            _ => Err(error()),
        }
    }
}

fn is_trust_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_identity_correspond() {
        let text = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let identity: Identity = text.parse().expect("a valid identity");
        assert_eq!(identity.to_string(), text);
        assert_eq!(identity.principal(), "cluster.local/ns/default/sa/bookinfo-reviews");
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in [
            "",
            "cluster.local/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://Cluster.Local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a/sa/..",
            "spiffe://cluster.local/ns/a/sa/b%41",
            "spiffe://cluster.local:1/ns/a/sa/b",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
