use super::*;
use crate::model::{Labels, Subject};

fn labels(pairs: &[(&str, &str)]) -> Arc<Labels> {
    Arc::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn pod() -> Subject {
    Subject {
        namespace: Some("shop".into()),
        account: Some("web".into()),
        labels: (&*labels(&[("app", "web"), ("in", "x"), ("has", "y"), ("empty", "")])).into(),
        namespace_labels: labels(&[("team", "red")]),
        account_labels: labels(&[("rank", "high")]),
        ports: Box::default(),
    }
}

#[track_caller]
fn check(whose: Whose, met: bool, texts: &[&str]) {
    for text in texts {
        let selector = parse(text, whose).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.matches(&pod()), met, "{text} is {selector:?}");
    }
}

#[test]
fn expressions_mean_what_calico_says() {
    check(
        Whose::Endpoint,
        true,
        &[
            "",
            " \t",
            "all()",
            "all( )",
            "app == 'web'",
            "app==\"web\"",
            "app != 'db'",
            "none != 'db'",
            "app in {'db', 'web'}",
            "app in{'web',}",
            "app not in {'db'}",
            "app notin {}",
            "none not  in {'db'}",
            "app contains 'e'",
            "app starts with 'we'",
            "app startswith'w'",
            "app ends\twith 'eb'",
            "has(app)",
            "has( app )",
            "has(\n app\r\n)",
            "app starts\nwith 'w'",
            "!has(none)",
            "!!has(app)",
            "! ! has(app) && ! has(none)",
            "has(none) || has(app) && app == 'web'",
            "(has(app) || has(none)) && (app == 'web')",
            "in in {'x'}",
            "has == 'y'",
            "empty == ''",
            "app != 'it\"s'",
        ],
    );
    check(
        Whose::Endpoint,
        false,
        &[
            "!all()",
            "none == ''",
            "app in {}",
            "app in {'we'}",
            "none contains ''",
            "none starts with ''",
            "none ends with ''",
            "has(none)",
            "(has(app) || has(none)) && has(none)",
            "!(app == 'web')",
        ],
    );
}

#[test]
fn what_calico_adds_to_pods_is_looked_up_where_it_comes_from() {
    check(
        Whose::Endpoint,
        true,
        &[
            "projectcalico.org/namespace == 'shop'",
            "projectcalico.org/serviceaccount in {'web'}",
            "projectcalico.org/orchestrator == 'k8s'",
            "projectcalico.org/orchestrator starts with 'k'",
            "has(projectcalico.org/orchestrator)",
            "projectcalico.org/orchestrator != 'openstack'",
            "pcns.team == 'red'",
            "pcns.projectcalico.org/name == 'shop'",
            "pcsa.rank == 'high'",
            "pcsa.projectcalico.org/name == 'web'",
        ],
    );
    check(Whose::Endpoint, false, &["projectcalico.org/orchestrator == 'openstack'", "team == 'red'"]);
    check(
        Whose::Namespace,
        true,
        &["all()", "team == 'red'", "projectcalico.org/name == 'shop'", "kubernetes.io/metadata.name != 'bank'"],
    );
    check(Whose::Namespace, false, &["global()", "has(app)", "!all()"]);
    check(Whose::Account, true, &["all()", "rank == 'high'", "projectcalico.org/name == 'web'"]);
}

#[test]
fn what_is_in_no_namespace_is_no_pod() {
    let set = Subject { labels: (&*labels(&[("app", "web")])).into(), ..Subject::default() };
    for (text, whose, met) in [
        ("app == 'web'", Whose::Endpoint, true),
        ("all()", Whose::Endpoint, true),
        ("projectcalico.org/orchestrator == 'k8s'", Whose::Endpoint, false),
        ("projectcalico.org/orchestrator != 'k8s'", Whose::Endpoint, true),
        ("all()", Whose::Namespace, false),
        ("global()", Whose::Namespace, true),
        ("!global()", Whose::Namespace, false),
    ] {
        assert_eq!(parse(text, whose).expect("a selector").matches(&set), met, "{text}");
    }
}

#[test]
fn and_binds_tighter_than_or() {
    let has = |name: &str| Selector::Has(Key::Label(name.into()));
    let parsed = parse("has(a) || has(b) && !has(c) || has(d)", Whose::Endpoint);
    let both = Selector::All(vec![has("b"), Selector::Not(Box::new(has("c")))]);
    assert_eq!(parsed, Ok(Selector::Any(vec![has("a"), both, has("d")])));
}

#[test]
fn an_error_says_where_it_is_and_what_to_write() {
    let long = format!("{} == 'x'", "a".repeat(513));
    let deep = "(".repeat(65) + "all()" + &")".repeat(65);
    for (text, at, problem) in [
        ("app", 4, "it ends where =="),
        ("app = 'x'", 5, "there is `=` where =="),
        ("app == x", 8, "there is `x` where a text in quotes"),
        ("app == 'x", 8, "a text has no end"),
        ("app in 'x'", 8, "where a set such as {'a', 'b'}"),
        ("app in {,}", 9, "where a text in quotes or }"),
        ("app in {'x' 'y'}", 13, "there is `'` where a text in quotes or }"),
        ("app == 'x' has(b)", 12, "there is `h` where the end, && or ||"),
        ("app == 'x' && ", 15, "it ends where a label"),
        ("app == 'x' & b == 'y'", 12, "there is `&`"),
        ("(app == 'x'", 12, "it ends where ) is expected"),
        ("app == 'x')", 11, "there is `)`"),
        ("has()", 5, "there is `)` where a label"),
        ("has(a b)", 7, "there is `b` where )"),
        ("ALL()", 4, "there is `(` where =="),
        ("all ()", 5, "there is `(`"),
        ("a\n== 'x'", 2, "where =="),
        ("a starts 'x'", 3, "there is `s` where =="),
        ("'é' == 'x'", 1, "there is `'` where a label"),
        ("a == 'é' b", 10, "there is `b` where the end"),
        ("global()", 1, "global() stands where it means nothing"),
        (&long, 1, "a label is longer than 512 characters"),
        (&deep, 65, "parentheses are nested more than 64 deep"),
    ] {
        let error = parse(text, Whose::Endpoint).expect_err(text);
        assert!(error.at == at && error.problem.contains(problem), "{text}: {error}");
        assert!(!error.cure.is_empty());
    }
}
