//! A source file as the rules see it: tokens without comments and literals, and the paths in it.
//!
//! In:  the text of a Rust file.
//! Out: [`Source`], in which tokens know their line and whether they are test code.
//! Invariant: what stands in a comment or a literal is never a token.
//! Source: The Rust Reference, "Lexical structure" and "Use declarations".

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    /// `::`.
    PathSeparator,
    Sign(char),
    Literal,
}

/// A token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Counted from 1.
    pub(super) line: usize,
    /// Is it compiled for tests only?
    pub(super) test: bool,
    /// How many inline modules it stands in.
    pub(super) depth: usize,
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(text) if text == word)
    }

    pub(super) fn is_sign(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }
}

/// A path such as `crate::model::Name`; groups in `use` are spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    pub(super) test: bool,
    pub(super) depth: usize,
}

/// A Rust source file.
pub(super) struct Source {
    /// From the root of the work tree.
    pub(super) path: String,
    pub(super) tokens: Vec<Token>,
    pub(super) lines: usize,
    /// The comment that opens the file.
    pub(super) head: String,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let mut tokens = Lexer::new(text).tokens();
        if is_test_file(path) {
            for token in &mut tokens {
                token.test = true;
            }
        } else {
            mark_tests(&mut tokens);
        }
        mark_depth(&mut tokens);
        let head = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
        Self { path: path.to_owned(), tokens, lines: text.lines().count(), head }
    }

    /// Is all of it for tests?
    pub(super) fn is_test(&self) -> bool {
        is_test_file(&self.path)
    }

    /// Lines outside test code.
    pub(super) fn lines_without_tests(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        let runs = self.tokens.chunk_by(|token, next| token.test == next.test).filter(|run| run[0].test);
        self.lines - runs.map(|run| run[run.len() - 1].line - run[0].line + 1).sum::<usize>()
    }

    /// Every path of two or more segments, with groups spelled out.
    pub(super) fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            at = if matches!(self.tokens[at].kind, Kind::Word(_)) {
                self.path_from(at, &[], &mut paths)
            } else {
                at + 1
            };
        }
        paths.retain(|path| path.segments.len() > 1);
        paths
    }

    /// Reads the path or `use` tree that starts at a word or `*`; returns the first token after it.
    fn path_from(&self, start: usize, prefix: &[String], paths: &mut Vec<Path>) -> usize {
        let mut segments = prefix.to_vec();
        let mut at = start;
        loop {
            match self.tokens.get(at).map(|token| &token.kind) {
                Some(Kind::Word(word)) => segments.push(word.clone()),
                Some(Kind::Sign('*')) => segments.push("*".to_owned()),
                Some(Kind::Sign('{')) => return self.group_from(at + 1, &segments, paths),
                Some(_) | None => break,
            }
            at += 1;
            if self.tokens.get(at).is_none_or(|token| token.kind != Kind::PathSeparator) {
                break;
            }
            at += 1;
        }
        let token = &self.tokens[start];
        paths.push(Path { segments, line: token.line, test: token.test, depth: token.depth });
        at.max(start + 1)
    }

    /// Reads a group after its `{`; returns the first token after its `}`.
    fn group_from(&self, start: usize, prefix: &[String], paths: &mut Vec<Path>) -> usize {
        let mut at = start;
        while let Some(token) = self.tokens.get(at) {
            at = match &token.kind {
                Kind::Sign('}') => return at + 1,
                Kind::Word(word) if word == "as" => at + 2,
                Kind::Word(_) | Kind::Sign('*') => self.path_from(at, prefix, paths),
                Kind::Sign(_) | Kind::PathSeparator | Kind::Literal => at + 1,
            };
        }
        at
    }
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Marks what `#[cfg(test)]` and `#[test]` govern.
fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        let Some(end) = test_attribute(&tokens[at..]) else {
            at += 1;
            continue;
        };
        let end = end_of_item(tokens, at + end);
        for token in &mut tokens[at..end] {
            token.test = true;
        }
        at = end;
    }
}

/// The length of the attribute at the start of `tokens`, if it says that an item is for tests only.
fn test_attribute(tokens: &[Token]) -> Option<usize> {
    let opens = tokens.first()?.is_sign('#') && tokens.get(1)?.is_sign('[');
    if !opens {
        return None;
    }
    let end = tokens.iter().position(|token| token.is_sign(']'))?;
    let inside = &tokens[2..end];
    let for_tests = match inside {
        [only] => only.is("test"),
        [cfg, open, condition, ..] => {
            cfg.is("cfg") && open.is_sign('(') && (condition.is("test") || (condition.is("all") && has_test(inside)))
        }
        _ => false,
    };
    for_tests.then_some(end + 1)
}

fn has_test(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| token.is("test")) && !tokens.iter().any(|token| token.is("not"))
}

/// The end of the item that starts at `start`: after its braces, or after the semicolon of one without.
fn end_of_item(tokens: &[Token], start: usize) -> usize {
    let mut open = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.kind {
            Kind::Sign('{' | '(' | '[') => open += 1,
            Kind::Sign(sign @ ('}' | ')' | ']')) => {
                open = open.saturating_sub(1);
                if open == 0 && sign == '}' {
                    return at + 1;
                }
            }
            Kind::Sign(';') if open == 0 => return at + 1,
            Kind::Sign(_) | Kind::Word(_) | Kind::PathSeparator | Kind::Literal => {}
        }
    }
    tokens.len()
}

/// Counts the inline modules around each token.
fn mark_depth(tokens: &mut [Token]) {
    let mut ends = Vec::new();
    for at in 0..tokens.len() {
        ends.retain(|&end| at < end);
        tokens[at].depth = ends.len();
        let opens_module = tokens[at].is_sign('{') && at >= 2 && tokens[at - 2].is("mod");
        if opens_module {
            ends.push(end_of_item(tokens, at));
        }
    }
}

/// Cuts text into tokens.
struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    const fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    fn tokens(mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let Some(first) = self.rest.chars().next() {
            let line = self.line;
            if let Some(kind) = self.next(first) {
                tokens.push(Token { kind, line, test: false, depth: 0 });
            }
        }
        tokens
    }

    /// Takes one token, or something that is none.
    fn next(&mut self, first: char) -> Option<Kind> {
        if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            return None;
        }
        if self.rest.starts_with("/*") {
            self.take(block_comment(self.rest));
            return None;
        }
        if let Some(length) = string(self.rest).or_else(|| character(self.rest)) {
            self.take(length);
            return Some(Kind::Literal);
        }
        if self.rest.starts_with("::") {
            self.take(2);
            return Some(Kind::PathSeparator);
        }
        if first == '_' || first.is_alphanumeric() {
            let raw = if self.rest.starts_with("r#") { 2 } else { 0 };
            let length = self.rest[raw..].find(|next: char| next != '_' && !next.is_alphanumeric());
            let word = &self.rest[raw..length.map_or(self.rest.len(), |length| raw + length)];
            self.take(raw + word.len());
            return Some(if first.is_numeric() { Kind::Literal } else { Kind::Word(word.to_owned()) });
        }
        self.take(first.len_utf8());
        (!first.is_whitespace()).then_some(Kind::Sign(first))
    }

    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }
}

/// The length of the block comment that `text` starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut open = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            open += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            open -= 1;
            at += 2;
            if open == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string literal, of any kind, that `text` starts with.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with('"') || (prefix.ends_with('r') && rest.trim_start_matches('#').starts_with('"'))
        })
    })?;
    let rest = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let marks = rest.len() - rest.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(marks));
        let body = &rest[marks + 1..];
        return Some(body.find(&end).map_or(text.len(), |at| prefix.len() + marks + 1 + at + end.len()));
    }
    Some(prefix.len() + 1 + escaped(&rest[1..], '"'))
}

/// The length up to and with the closing `quote`, where a backslash hides the next character.
fn escaped(text: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, next) in text.char_indices() {
        match next {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            _ if next == quote => return at + next.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal or lifetime that `text` starts with.
fn character(text: &str) -> Option<usize> {
    let prefix = usize::from(text.starts_with("b'"));
    let rest = text[prefix..].strip_prefix('\'')?;
    let mut next = rest.chars();
    let (first, second) = (next.next()?, next.next());
    if first == '\\' || second == Some('\'') {
        return Some(prefix + 1 + escaped(rest, '\''));
    }
    Some(1 + rest.find(|next: char| next != '_' && !next.is_alphanumeric()).unwrap_or(rest.len()))
}
