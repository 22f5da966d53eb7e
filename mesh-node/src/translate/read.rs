//! Reads objects that are kept as written, so that no field is passed over.
//!
//! In:  the JSON of a spec, and readers that ask for its fields.
//! Out: values of the types that readers ask for; an `Issue` with its path for everything else.
//! Invariant: a field that no reader asked for, or one of another type, is refused. Who reads a part can ask whether
//! anything in it was, and close the part.
//! Invariant: what a reader does with a field can be surveyed without an object: then every field is there.

use crate::model::{Issue, Labels, ObjectRef, Reason};
use serde_json::{Map, Value};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

mod duration;

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It does what its API says. With the words that may stand there, if not all may.
    Enforced(Vec<String>),
    /// It is accepted and has no effect, which an issue says, with the reason.
    Reported(String),
    /// What it belongs to is closed, and an issue says why.
    Refused(String),
}

/// What was said about one object while it was read.
pub(crate) struct Log {
    object: ObjectRef,
    issues: RefCell<Vec<Issue>>,
    refusals: Cell<usize>,
    survey: Option<RefCell<BTreeMap<String, Fate>>>,
}

impl Log {
    /// Of an object that is to be read.
    pub(crate) fn new(object: ObjectRef) -> Self {
        Self { object, issues: RefCell::default(), refusals: Cell::new(0), survey: None }
    }

    /// Of no object: every field that readers ask for is there, and its fate is noted.
    pub(crate) fn survey(object: ObjectRef) -> Self {
        Self { survey: Some(RefCell::default()), ..Self::new(object) }
    }

    /// The object.
    pub(crate) fn object(&self) -> &ObjectRef {
        &self.object
    }

    /// The place of the whole spec.
    pub(crate) fn spec<'a>(&'a self, spec: &'a Map<String, Value>) -> Fields<'a> {
        let node = if self.survey.is_some() { Node::Survey } else { Node::Fields(spec) };
        Fields { node, path: "spec".to_owned(), log: self, asked: Vec::new() }
    }

    /// Reads a part that can be closed alone. Returns what was read, and whether nothing of it was refused. What was
    /// refused in it does not close what is around it.
    pub(crate) fn part<T>(&self, read: impl FnOnce() -> T) -> (T, bool) {
        let around = self.refusals.replace(0);
        let value = read();
        (value, self.refusals.replace(around) == 0)
    }

    /// Something that closes what it belongs to.
    pub(crate) fn refuse(&self, path: &str, problem: impl Into<String>, cure: impl Into<String>) {
        self.refuse_because(Reason::Unsupported, path, problem, cure);
    }

    /// The same, because of `reason`.
    pub(crate) fn refuse_because(
        &self,
        reason: Reason,
        path: &str,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.refusals.set(self.refusals.get() + 1);
        self.tell(reason, path, problem, cure);
    }

    /// Something that has no effect, or not the one that was meant.
    pub(crate) fn note(&self, path: &str, problem: impl Into<String>, cure: impl Into<String>) {
        self.tell(Reason::Remark, path, problem, cure);
    }

    /// The same, because of `reason`.
    pub(crate) fn tell(&self, reason: Reason, path: &str, problem: impl Into<String>, cure: impl Into<String>) {
        self.issues.borrow_mut().push(Issue::new(&self.object, path, problem, cure).because(reason));
    }

    /// The issues of the object.
    pub(crate) fn into_issues(self) -> Vec<Issue> {
        self.issues.into_inner()
    }

    /// The fate of each field that was asked for.
    pub(crate) fn into_fates(self) -> BTreeMap<String, Fate> {
        self.survey.unwrap_or_default().into_inner()
    }

    fn fate(&self, path: &str, fate: impl FnOnce() -> Fate) {
        if let Some(survey) = &self.survey {
            survey.borrow_mut().insert(path.to_owned(), fate());
        }
    }
}

#[derive(Clone, Copy)]
enum Node<'a> {
    Fields(&'a Map<String, Value>),
    Value(&'a Value),
    Survey,
}

/// A number or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    /// A whole number, 0 or more.
    Number(u64),
    /// A text.
    Text(&'a str),
}

/// A map whose fields are read by name. When it is dropped, fields that nobody asked for are refused.
pub(crate) struct Fields<'a> {
    node: Node<'a>,
    path: String,
    log: &'a Log,
    asked: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The place of a field, whether it is there or not.
    pub(crate) fn take(&mut self, name: &'static str) -> Place<'a> {
        self.asked.push(name);
        let node = match self.node {
            Node::Fields(fields) => fields.get(name).filter(|value| !value.is_null()).map(Node::Value),
            Node::Value(_) => None,
            Node::Survey => Some(Node::Survey),
        };
        Place { node, path: format!("{}.{name}", self.path), log: self.log }
    }

    /// Its path, as in `spec.http[0]`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What is said about the object.
    pub(crate) fn log(&self) -> &'a Log {
        self.log
    }

    /// Closes what this belongs to.
    pub(crate) fn refuse(&self, problem: impl Into<String>, cure: impl Into<String>) {
        self.log.refuse(&self.path, problem, cure);
    }

    /// Leaves the map without looking for fields that nobody asked for, because all of it is refused.
    pub(crate) fn abandon(mut self) {
        self.node = Node::Survey;
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let Node::Fields(fields) = self.node else { return };
        for (name, value) in fields {
            if !value.is_null() && !self.asked.contains(&name.as_str()) {
                let path = format!("{}.{name}", self.path);
                self.log.refuse(&path, "there is no such field", "remove it, or correct its name");
            }
        }
    }
}

/// A place in an object: a value or its absence, and how to speak of it. `null` is absence.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    node: Option<Node<'a>>,
    path: String,
    log: &'a Log,
}

impl<'a> Place<'a> {
    /// What is said about the object.
    pub(crate) fn log(&self) -> &'a Log {
        self.log
    }

    /// Its path, as in `spec.http[0]`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Is there a value?
    pub(crate) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    /// Closes what this belongs to.
    pub(crate) fn refuse(&self, problem: impl Into<String>, cure: impl Into<String>) {
        self.log.refuse(&self.path, problem, cure);
    }

    /// Says something that closes nothing.
    pub(crate) fn note(&self, problem: impl Into<String>, cure: impl Into<String>) {
        self.log.note(&self.path, problem, cure);
    }

    /// A field that the mesh does not do: refused if it is there. `cure` says what does the same.
    pub(crate) fn unsupported(&self, cure: &str) {
        self.log.fate(&self.path, || Fate::Refused(cure.to_owned()));
        if self.is_there() {
            self.refuse("it is not supported", cure);
        }
    }

    /// A field that is accepted and has no effect, because of `why`.
    pub(crate) fn ignored(&self, why: &str) {
        self.log.fate(&self.path, || Fate::Reported(why.to_owned()));
        if self.is_there() {
            self.note(format!("it has no effect: {why}"), "remove it, or do not rely on it");
        }
    }

    /// A field that the mesh need not look at to do what it says.
    pub(crate) fn immaterial(&self) {
        self.log.fate(&self.path, || Fate::Enforced(Vec::new()));
    }

    fn expected(&self, what: &str) {
        self.refuse(format!("{what} is expected here"), "correct the value");
    }

    fn enforced(&self) {
        self.log.fate(&self.path, || Fate::Enforced(Vec::new()));
    }

    /// The fields of a map; `None` if it is absent or something else.
    pub(crate) fn fields(&self) -> Option<Fields<'a>> {
        let node = match self.node? {
            Node::Survey => Node::Survey,
            Node::Value(Value::Object(fields)) | Node::Fields(fields) => Node::Fields(fields),
            Node::Value(_) => {
                self.expected("a map of fields");
                return None;
            }
        };
        Some(Fields { node, path: self.path.clone(), log: self.log, asked: Vec::new() })
    }

    /// The items of a list; none if it is absent.
    pub(crate) fn items(&self) -> Vec<Place<'a>> {
        let item = |node, at: &str| Place { node: Some(node), path: format!("{}[{at}]", self.path), log: self.log };
        match self.node {
            None => Vec::new(),
            Some(Node::Survey) => vec![item(Node::Survey, "")],
            Some(Node::Value(Value::Array(values))) => {
                values.iter().enumerate().map(|(at, value)| item(Node::Value(value), &at.to_string())).collect()
            }
            Some(Node::Value(_) | Node::Fields(_)) => {
                self.expected("a list");
                Vec::new()
            }
        }
    }

    /// The entries of a map whose keys the user chooses; none if it is absent.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Place<'a>)> {
        let entry = |node, key: &str| Place { node: Some(node), path: format!("{}.{key}", self.path), log: self.log };
        match self.node {
            None => Vec::new(),
            Some(Node::Survey) => vec![("*", entry(Node::Survey, "*"))],
            Some(Node::Value(Value::Object(fields)) | Node::Fields(fields)) => {
                fields.iter().map(|(key, value)| (key.as_str(), entry(Node::Value(value), key))).collect()
            }
            Some(Node::Value(_)) => {
                self.expected("a map");
                Vec::new()
            }
        }
    }

    /// A text; `None` if it is absent or something else.
    pub(crate) fn text(&self) -> Option<&'a str> {
        self.enforced();
        match self.node? {
            Node::Value(Value::String(text)) => Some(text),
            Node::Survey => Some(""),
            Node::Value(_) | Node::Fields(_) => {
                self.expected("a text");
                None
            }
        }
    }

    /// A text that is one of these words, which the reader sees to.
    pub(crate) fn word(&self, words: &[&str]) -> Option<&'a str> {
        let text = self.text();
        self.log.fate(&self.path, || Fate::Enforced(words.iter().map(|word| (*word).to_owned()).collect()));
        text
    }

    /// A list of texts.
    pub(crate) fn texts(&self) -> Vec<&'a str> {
        self.items().iter().filter_map(Place::text).collect()
    }

    /// A map of texts.
    pub(crate) fn labels(&self) -> Labels {
        let entries = self.entries().into_iter();
        entries.filter_map(|(key, place)| Some((key.to_owned(), place.text()?.to_owned()))).collect()
    }

    /// A text that `read` understands; what it says is wrong with another closes.
    pub(crate) fn parse<T, E: std::fmt::Display>(
        &self,
        cure: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text()?;
        read(text).map_err(|problem| self.refuse(problem.to_string(), cure)).ok()
    }

    /// A number of these; `None` if it is absent or something else.
    pub(crate) fn number(&self, from: u32, to: u32) -> Option<u32> {
        self.enforced();
        match self.node? {
            Node::Survey => return Some(from),
            Node::Value(Value::Number(number)) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                if let Some(number) = number.filter(|number| (from..=to).contains(number)) {
                    return Some(number);
                }
            }
            Node::Value(_) | Node::Fields(_) => {}
        }
        self.expected(&format!("a whole number from {from} to {to}"));
        None
    }

    /// A number or a text.
    pub(crate) fn scalar(&self) -> Option<Scalar<'a>> {
        self.enforced();
        let scalar = match self.node? {
            Node::Survey => Some(Scalar::Number(1)),
            Node::Value(Value::String(text)) => Some(Scalar::Text(text)),
            Node::Value(value) => value.as_u64().map(Scalar::Number),
            Node::Fields(_) => None,
        };
        if scalar.is_none() {
            self.expected("a whole number or a text");
        }
        scalar
    }

    /// A number of any kind.
    pub(crate) fn decimal(&self) -> Option<f64> {
        self.enforced();
        let number = match self.node? {
            Node::Survey => Some(0.0),
            Node::Value(value) => value.as_f64(),
            Node::Fields(_) => None,
        };
        if number.is_none() {
            self.expected("a number");
        }
        number
    }

    /// A port.
    pub(crate) fn port(&self) -> Option<u16> {
        self.number(1, 65_535).and_then(|port| u16::try_from(port).ok())
    }

    /// A percentage, as parts in a million.
    pub(crate) fn percent(&self) -> Option<u32> {
        self.enforced();
        let percent = match self.node? {
            Node::Survey => Some(0.0),
            Node::Value(value) => value.as_f64(),
            Node::Fields(_) => None,
        };
        match percent.filter(|percent| (0.0..=100.0).contains(percent)) {
            Some(percent) => Some(millionths(percent)),
            None => {
                self.expected("a percentage from 0 to 100");
                None
            }
        }
    }

    /// A truth.
    pub(crate) fn bool(&self) -> Option<bool> {
        self.enforced();
        match self.node? {
            Node::Value(Value::Bool(value)) => Some(*value),
            Node::Survey => Some(true),
            Node::Value(_) | Node::Fields(_) => {
                self.expected("true or false");
                None
            }
        }
    }

    /// A time, as in `1h30m`, `7s` or `0.5s`.
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.parse("give a time such as 7s, 250ms or 1h30m", duration::parse)
    }

    /// What one of these words stands for.
    pub(crate) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Option<T> {
        self.choice_except(choices, &[])
    }

    /// The same; other words are known too, but the mesh does not do what they say.
    pub(crate) fn choice_except<T: Clone>(&self, choices: &[(&str, T)], unsupported: &[&str]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let text = self.word(&words)?;
        let found = choices.iter().find(|(word, _)| *word == text || self.log.survey.is_some());
        if found.is_none() {
            let problem = if unsupported.contains(&text) { "is not supported" } else { "is none of its words" };
            self.refuse(format!("`{text}` {problem}"), format!("use {}", words.join(", ")));
        }
        found.map(|(_, value)| value.clone())
    }
}

/// `percent` in parts of a million.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 became 0 to 1,000,000")]
fn millionths(percent: f64) -> u32 {
    (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use serde_json::json;

    fn read(spec: &Value, reader: impl FnOnce(&mut Fields<'_>)) -> Vec<String> {
        let log = Log::new(ObjectRef::new("Thing", Name::new("shop", "a")));
        reader(&mut log.spec(spec.as_object().expect("a map")));
        log.into_issues().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_nobody_asked_for_is_refused_with_its_path() {
        let spec = json!({"list": [{"a": "x", "b": 1}, {"c": null}], "odd": {}});
        let issues = read(&spec, |fields| {
            for item in fields.take("list").items() {
                let mut fields = item.fields().expect("a map");
                fields.take("a").text();
            }
        });
        assert_eq!(
            issues,
            [
                "Thing shop/a, spec.list[0].b: there is no such field; remove it, or correct its name",
                "Thing shop/a, spec.odd: there is no such field; remove it, or correct its name",
            ]
        );
    }

    #[test]
    fn a_value_of_another_type_or_range_is_refused() {
        let spec = json!({"a": 1, "b": "x", "c": 70000, "d": 100.5, "e": "7", "f": [], "g": "odd"});
        let issues = read(&spec, |fields| {
            assert_eq!(fields.take("a").text(), None);
            assert_eq!(fields.take("b").bool(), None);
            assert_eq!(fields.take("c").port(), None);
            assert_eq!(fields.take("d").percent(), None);
            assert_eq!(fields.take("e").duration(), None);
            assert!(fields.take("f").fields().is_none());
            assert_eq!(fields.take("g").choice(&[("even", 2)]), None);
        });
        assert_eq!(issues.len(), 7, "{issues:?}");
        assert!(issues[2].contains("spec.c: a whole number from 1 to 65535 is expected here"), "{issues:?}");
        assert!(issues[6].contains("`odd` is none of its words; use even"), "{issues:?}");
    }

    #[test]
    fn a_survey_finds_every_field_and_its_fate() {
        let (log, none) = (Log::survey(ObjectRef::new("Thing", Name::new("", ""))), Map::new());
        {
            let mut fields = log.spec(&none);
            for (_, place) in fields.take("map").entries() {
                place.number(1, 2);
            }
            fields.take("old").ignored("nobody does");
            fields.take("kind").choice(&[("A", 1), ("B", 2)]);
        }
        let fates = log.into_fates();
        let fates: Vec<_> = fates.iter().map(|(path, fate)| (path.as_str(), fate)).collect();
        assert_eq!(
            fates,
            [
                ("spec.kind", &Fate::Enforced(vec!["A".to_owned(), "B".to_owned()])),
                ("spec.map.*", &Fate::Enforced(Vec::new())),
                ("spec.old", &Fate::Reported("nobody does".to_owned())),
            ]
        );
    }
}
