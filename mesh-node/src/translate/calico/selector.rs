//! Calico's selectors.
//!
//! In:  an expression as users write it, and whose labels it is about.
//! Out: a [`Selector`], or a [`SelectorError`] that says where the expression stops making sense, and what to write there.
//! Invariant: what Calico's own parser accepts is accepted and means the same, and nothing else is, but for labels longer than Calico
//! promises to read and parentheses nested deeper than anybody writes.
//! Source: Calico `NetworkPolicy.spec.selector`, "Selectors"; `EntityRule.namespaceSelector` for `all()` and `global()`.

use super::label::{Term, Whose};
use crate::model::{Key, Selector};
use std::collections::BTreeSet;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// How long the name of a label may be.
const LONGEST_LABEL: usize = 512;
/// How deep parentheses may be nested. What is deeper would let an object exhaust the stack.
const DEEPEST: usize = 64;
const OPERATORS: &str = "==, !=, in, not in, contains, starts with or ends with";

/// An expression that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}, {problem}")]
pub struct SelectorError {
    /// Where, in characters from 1.
    pub at: usize,
    /// What is wrong there.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

/// The selector that `text` is; an empty one selects everything.
///
/// **Errors**: the text is no selector, or `global()` stands where it means nothing.
pub fn parse(text: &str, whose: Whose) -> Result<Selector, SelectorError> {
    let mut parser = Parser { text, rest: text, whose, depth: 0 };
    parser.space();
    if parser.rest.is_empty() {
        return Ok(Selector::everything());
    }
    let selector = parser.any()?;
    if parser.rest.is_empty() { Ok(selector) } else { Err(parser.expected("the end, && or ||")) }
}

struct Parser<'a> {
    text: &'a str,
    /// What is not read yet, without leading space.
    rest: &'a str,
    whose: Whose,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Terms joined by `||`.
    fn any(&mut self) -> Result<Selector, SelectorError> {
        let mut terms = vec![self.all()?];
        while self.eat("||") {
            terms.push(self.all()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Selector::Any(terms) })
    }

    /// Terms joined by `&&`, which binds tighter.
    fn all(&mut self) -> Result<Selector, SelectorError> {
        let mut terms = vec![self.negatable()?];
        while self.eat("&&") {
            terms.push(self.negatable()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Selector::All(terms) })
    }

    /// A term after any number of `!`.
    fn negatable(&mut self) -> Result<Selector, SelectorError> {
        let mut is_negated = false;
        while self.eat("!") {
            is_negated = !is_negated;
        }
        let term = self.term()?;
        Ok(if is_negated { not(term) } else { term })
    }

    fn term(&mut self) -> Result<Selector, SelectorError> {
        if self.rest.starts_with('(') {
            return self.group();
        }
        if self.eat("has(") {
            self.lines();
            let term = self.label()?;
            self.lines();
            self.close()?;
            return Ok(term.selector(Selector::Has));
        }
        if self.eat("all(") {
            self.lines();
            self.close()?;
            return Ok(self.whose.all());
        }
        let before = self.rest;
        if self.eat("global(") {
            self.lines();
            self.close()?;
            return self.whose.global().ok_or_else(|| {
                let problem = "global() stands where it means nothing";
                self.error(before, problem.to_owned(), "use it in the namespaceSelector of a rule only")
            });
        }
        let term = self.label()?;
        self.comparison(&term)
    }

    fn group(&mut self) -> Result<Selector, SelectorError> {
        if self.depth == DEEPEST {
            let problem = format!("parentheses are nested more than {DEEPEST} deep");
            return Err(self.error(self.rest, problem, "write it with fewer parentheses"));
        }
        self.eat("(");
        self.depth += 1;
        let inner = self.any()?;
        self.depth -= 1;
        self.close()?;
        Ok(inner)
    }

    /// What a label is compared by, and with.
    fn comparison(&mut self, term: &Term) -> Result<Selector, SelectorError> {
        if self.eat("==") {
            self.with_text(term, Selector::Is)
        } else if self.eat("!=") {
            self.with_text(term, Selector::Is).map(not)
        } else if self.eat("contains") {
            self.with_text(term, Selector::Contains)
        } else if self.eat_both("starts", "with") {
            self.with_text(term, Selector::StartsWith)
        } else if self.eat_both("ends", "with") {
            self.with_text(term, Selector::EndsWith)
        } else if self.eat_both("not", "in") {
            self.within(term).map(not)
        } else if self.eat("in") {
            self.within(term)
        } else {
            Err(self.expected(OPERATORS))
        }
    }

    fn with_text(
        &mut self,
        term: &Term,
        compare: impl Fn(Key, Arc<str>) -> Selector,
    ) -> Result<Selector, SelectorError> {
        let Some(text) = self.quoted()? else { return Err(self.expected("a text in quotes")) };
        let text: Arc<str> = text.into();
        Ok(term.selector(|key| compare(key, Arc::clone(&text))))
    }

    /// Texts in braces; there may be a comma behind the last.
    fn within(&mut self, term: &Term) -> Result<Selector, SelectorError> {
        if !self.eat("{") {
            return Err(self.expected("a set such as {'a', 'b'}"));
        }
        let mut texts = BTreeSet::new();
        while let Some(text) = self.quoted()? {
            texts.insert(Arc::from(text));
            if !self.eat(",") {
                break;
            }
        }
        if self.eat("}") {
            Ok(term.selector(|key| Selector::In(key, texts.clone())))
        } else {
            Err(self.expected("a text in quotes or }"))
        }
    }

    fn label(&mut self) -> Result<Term, SelectorError> {
        let is_of_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-');
        let end = self.rest.bytes().position(|byte| !is_of_label(byte)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected("a label, has(, all() or ("));
        }
        if end > LONGEST_LABEL {
            let problem = format!("a label is longer than {LONGEST_LABEL} characters");
            return Err(self.error(self.rest, problem, "use a shorter one"));
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.space();
        Ok(self.whose.term(name))
    }

    /// A text between quotes of one kind, if one begins here. Nothing is escaped in it.
    fn quoted(&mut self) -> Result<Option<&'a str>, SelectorError> {
        let Some(quote) = self.rest.chars().next().filter(|next| matches!(next, '\'' | '"')) else { return Ok(None) };
        let Some((text, rest)) = self.rest[1..].split_once(quote) else {
            let problem = "a text has no end".to_owned();
            return Err(self.error(self.rest, problem, &format!("close it with {quote}")));
        };
        self.rest = rest;
        self.space();
        Ok(Some(text))
    }

    fn close(&mut self) -> Result<(), SelectorError> {
        if self.eat(")") { Ok(()) } else { Err(self.expected(")")) }
    }

    /// Takes `token`, if it is next.
    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        self.space();
        true
    }

    /// Takes two words, if they are next; space between them is free.
    fn eat_both(&mut self, first: &str, second: &str) -> bool {
        let before = self.rest;
        if self.eat(first) {
            self.lines();
            if self.eat(second) {
                return true;
            }
        }
        self.rest = before;
        false
    }

    /// Blanks and tabs.
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Ends of lines too, which older versions of Calico take here and nowhere else.
    fn lines(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
    }

    fn expected(&self, what: &str) -> SelectorError {
        let found = self.rest.chars().next().map_or_else(|| "it ends".to_owned(), |next| format!("there is `{next}`"));
        self.error(self.rest, format!("{found} where {what} is expected"), &format!("write {what}"))
    }

    /// Something wrong where `rest` begins.
    fn error(&self, rest: &str, problem: String, cure: &str) -> SelectorError {
        let at = self.text.chars().count() - rest.chars().count() + 1;
        SelectorError { at, problem, cure: cure.to_owned() }
    }
}

fn not(selector: Selector) -> Selector {
    Selector::Not(Box::new(selector))
}
