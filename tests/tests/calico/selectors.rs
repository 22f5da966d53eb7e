//! Random expressions, some of them broken, and random pods: Calico's parser and ours accept the same, and it means the same.

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use mesh_node::model::{Labels, Subject};
use mesh_node::translate::calico::{Whose, selector};
use mesh_tests::{env, feed};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SEED: u64 = 20_280_505;
const EXPRESSIONS: usize = 12_000;
const ENDPOINTS: usize = 12;

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// Names of labels, some of which are words of the language, or are Calico's own.
const NAMES: [&str; 16] = [
    "a",
    "b",
    "in",
    "has",
    "all",
    "contains",
    "not",
    "k8s.io/x-y_z",
    "projectcalico.org/name",
    "projectcalico.org/namespace",
    "projectcalico.org/serviceaccount",
    "projectcalico.org/orchestrator",
    "pcns.a",
    "pcns.projectcalico.org/name",
    "pcsa.a",
    "pcsa.projectcalico.org/name",
];
const VALUES: [&str; 10] = ["", "x", "y", "xy", "yx", "shop", "web", "k8s", "x && y", "it\"s"];

fn space(rng: &mut Rng) -> &'static str {
    pick(rng, &["", "", " ", "  ", "\t"])
}

fn quoted(rng: &mut Rng) -> String {
    let value = pick(rng, &VALUES);
    if rng.bool() || value.contains('"') { format!("'{value}'") } else { format!("\"{value}\"") }
}

fn term(rng: &mut Rng, whose: Whose, depth: usize) -> String {
    let name = pick(rng, &NAMES);
    let (before, behind) = (space(rng), space(rng));
    match rng.u8(..14) {
        0 => format!("has({before}{name}{behind})"),
        1 => format!("all({before})"),
        2 if whose == Whose::Namespace => format!("global({before})"),
        2..=4 if depth > 0 => format!("({before}{}{behind})", expression(rng, whose, depth - 1)),
        5 | 6 => {
            let count = rng.usize(..4);
            let mut set: Vec<String> = (0..count).map(|_| quoted(rng)).collect();
            if count > 0 && rng.u8(..4) == 0 {
                set.push(space(rng).to_owned());
            }
            let operator = pick(rng, &["in", "not in", "notin", "not \t in"]);
            format!("{name} {operator}{before}{{{behind}{}{before}}}", set.join(&format!("{behind},{before}")))
        }
        7 | 8 => {
            let operator = pick(rng, &["contains", "starts with", "startswith", "ends with", "endswith", "ends\twith"]);
            format!("{name} {operator}{before}{}", quoted(rng))
        }
        _ => format!("{name}{before}{}{behind}{}", pick(rng, &["==", "!="]), quoted(rng)),
    }
}

fn expression(rng: &mut Rng, whose: Whose, depth: usize) -> String {
    let mut text = String::new();
    for at in 0..=rng.usize(..3) {
        if at > 0 {
            text += space(rng);
            text += pick(rng, &["&&", "||"]);
            text += space(rng);
        }
        for _ in 0..rng.usize(..3) {
            text += pick(rng, &["!", "", "! "]);
        }
        text += &term(rng, whose, depth);
    }
    text
}

/// Breaks an expression, or does not: some parts can be left out.
fn damage(rng: &mut Rng, text: &str) -> String {
    let parts = [
        "&", "|", "&&", "||", "!", "=", "==", "!=", "(", ")", "{", "}", ",", "'", "\"", "in", "not", "starts", "with",
        "has(", "all(", "a", " ", "\n", "é", "()", "{}", "\\", "$",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=rng.usize(..2) {
        let at = rng.usize(..=chars.len());
        match rng.u8(..4) {
            0 => chars.truncate(at),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ => drop(chars.splice(at..at, pick(rng, &parts).chars()).collect::<Vec<_>>()),
        }
    }
    chars.into_iter().collect()
}

fn labels(rng: &mut Rng) -> Labels {
    let names = NAMES.iter().filter(|name| !name.starts_with("pc") && !name.starts_with("projectcalico.org"));
    let chosen = names.filter(|_| rng.bool()).copied().collect::<Vec<_>>();
    chosen.into_iter().map(|name| (name.to_owned(), pick(rng, &VALUES).to_owned())).collect()
}

/// A pod, a set of addresses in a namespace, or one in none; and its labels as Calico sees them.
fn endpoint(rng: &mut Rng) -> (Subject, Labels) {
    let namespace = (rng.u8(..4) > 0).then(|| pick(rng, &["shop", "bank", "x"]).into());
    let account = (namespace.is_some() && rng.u8(..4) > 0).then(|| pick(rng, &["web", "x", "y"]).into());
    let around = |rng: &mut Rng, is_there: bool| if is_there { labels(rng) } else { Labels::new() }.into();
    let own = labels(rng);
    let subject = Subject {
        labels: (&own).into(),
        namespace_labels: around(rng, namespace.is_some()),
        account_labels: around(rng, account.is_some()),
        namespace,
        account,
        ports: Box::default(),
    };
    let as_calico = as_calico(&subject, own);
    (subject, as_calico)
}

/// The labels that an endpoint has for Calico beside its own.
fn as_calico(endpoint: &Subject, own: Labels) -> Labels {
    let mut all = own;
    let mut add = |prefix: &str, labels: &Labels| {
        all.extend(labels.iter().map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
    };
    add("pcns.", &endpoint.namespace_labels);
    add("pcsa.", &endpoint.account_labels);
    let mut name = |key: &str, value: &str| all.insert(key.to_owned(), value.to_owned());
    if let Some(namespace) = &endpoint.namespace {
        name("projectcalico.org/namespace", namespace);
        name("pcns.projectcalico.org/name", namespace);
    }
    if let Some(account) = &endpoint.account {
        name("projectcalico.org/orchestrator", "k8s");
        name("projectcalico.org/serviceaccount", account);
        name("pcsa.projectcalico.org/name", account);
    }
    all
}

struct Question {
    text: String,
    whose: Whose,
    endpoints: Vec<(Subject, Labels)>,
}

impl Question {
    fn new(rng: &mut Rng) -> Self {
        let whose = pick(rng, &[Whose::Endpoint, Whose::Endpoint, Whose::Namespace, Whose::Account]);
        let text = expression(rng, whose, 3);
        let text = if rng.u8(..3) == 0 { damage(rng, &text) } else { text };
        Self { text, whose, endpoints: (0..ENDPOINTS).map(|_| endpoint(rng)).collect() }
    }

    fn for_calico(&self) -> Value {
        let whose = match self.whose {
            Whose::Endpoint => "endpoint",
            Whose::Namespace | Whose::PolicyNamespace => "namespace",
            Whose::Account => "account",
        };
        let endpoints: Vec<&Labels> = self.endpoints.iter().map(|(_, labels)| labels).collect();
        json!({"selector": self.text, "whose": whose, "endpoints": endpoints})
    }
}

#[test]
fn calicos_parser_and_ours_agree_on_every_expression_and_pod() -> Result<()> {
    let mut rng = Rng::with_seed(SEED);
    let questions: Vec<Question> = (0..EXPRESSIONS).map(|_| Question::new(&mut rng)).collect();
    let asked: String = questions.iter().map(|question| format!("{}\n", question.for_calico())).collect();
    let mut oracle = Command::new(env::tool("calico-oracle")?);
    let said = feed(&mut oracle, asked.as_bytes(), Duration::from_secs(120))?.success()?;
    let answers: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(answers.len() == questions.len(), "{} answers to {} questions", answers.len(), questions.len());

    let (mut refused, mut met, mut unmet) = (0, 0, 0);
    for (question, answer) in questions.iter().zip(&answers) {
        let context = || format!("seed {SEED}, {:?} {:?}: Calico says {answer}", question.whose, question.text);
        let ours = selector(&question.text, question.whose);
        if answer["error"].is_string() {
            ensure!(ours.is_err(), "{}, and we accept it as {ours:?}", context());
            refused += 1;
            continue;
        }
        let ours = ours.with_context(context)?;
        let verdicts = answer["verdicts"].as_array().with_context(context)?;
        for ((endpoint, _), verdict) in question.endpoints.iter().zip(verdicts) {
            let is_met = ours.matches(endpoint);
            ensure!(*verdict == is_met, "{}, and we say {is_met} of {endpoint:?}", context());
            if is_met { met += 1 } else { unmet += 1 }
        }
    }
    // The questions are about something.
    let told = format!("{refused} refused, {met} met, {unmet} not met");
    ensure!(refused > EXPRESSIONS / 10 && met > EXPRESSIONS && unmet > EXPRESSIONS, "{told}");
    Ok(())
}
