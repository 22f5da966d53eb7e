//! What texts are compared with in policies.
//!
//! Out: [`Texts`]: any of these.
//! Invariant: a comparison costs no memory.
//! Source: Istio `AuthorizationPolicy`, "exact, prefix, suffix and presence matches", and the templates of `paths`; Calico
//! `HTTPPath`.

use crate::model::http::Pattern;

/// One thing that a text may be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// This text.
    Exact(Box<str>),
    /// One that begins so.
    Prefix(Box<str>),
    /// One that ends so.
    Suffix(Box<str>),
    /// A path that begins with these elements: `/abc` covers `/abc` and `/abc/d`, not `/abcd`. Without a slash at the end, but for `/`.
    Elements(Box<str>),
    /// One that matches as a whole.
    Regex(Pattern),
    /// Any that is not empty.
    Present,
}

impl Text {
    /// Is `text` like this?
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == &**exact,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Elements(prefix) => {
                &**prefix == "/"
                    || text.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(pattern) => pattern.matches(text),
            Self::Present => !text.is_empty(),
        }
    }
}

/// Any of these; nothing is like none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Whole texts, in order.
    exact: Box<[Box<str>]>,
    others: Box<[Text]>,
}

impl Texts {
    /// Is `text` like one of them?
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.exact.binary_search_by(|exact| (**exact).cmp(text)).is_ok()
            || self.others.iter().any(|other| other.matches(text))
    }
}

impl FromIterator<Text> for Texts {
    fn from_iter<I: IntoIterator<Item = Text>>(texts: I) -> Self {
        let (mut exact, mut others) = (Vec::new(), Vec::new());
        for text in texts {
            match text {
                Text::Exact(text) => exact.push(text),
                other @ (Text::Prefix(_) | Text::Suffix(_) | Text::Elements(_) | Text::Regex(_) | Text::Present) => {
                    others.push(other);
                }
            }
        }
        exact.sort_unstable();
        exact.dedup();
        Self { exact: exact.into(), others: others.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_like_what_any_of_them_says() {
        let text = |text: &str| -> Box<str> { text.into() };
        for (like, yes, no) in [
            (Text::Exact(text("ab")), vec!["ab"], vec!["a", "abc", ""]),
            (Text::Prefix(text("/a")), vec!["/a", "/ab"], vec!["/", ""]),
            (Text::Suffix(text("/a")), vec!["/a", "b/a"], vec!["a", ""]),
            (Text::Elements(text("/a")), vec!["/a", "/a/", "/a/b"], vec!["/ab", "/"]),
            (Text::Elements(text("/")), vec!["/", "/a"], vec![]),
            (Text::Regex(Pattern::new("/v[0-9]").expect("a pattern")), vec!["/v1"], vec!["/v12", "x/v1"]),
            (Text::Present, vec!["a"], vec![""]),
        ] {
            let texts: Texts = [Text::Exact(text("other")), like.clone()].into_iter().collect();
            assert!(yes.iter().all(|text| texts.matches(text)), "{like:?}");
            assert!(!no.iter().any(|text| texts.matches(text)), "{like:?}");
        }
        assert!(!Texts::default().matches(""));
    }
}
