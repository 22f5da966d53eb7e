//! AuthorizationPolicies: who may ask what of a workload.
//!
//! In:  an AuthorizationPolicy as written.
//! Out: a [`Policy`] of one of the mesh's tiers.
//! Invariant: what is not understood is met in rules that deny and in no other; if it is the action, all is denied.
//! Invariant: `CUSTOM` asks somebody who is not there: what would have been asked is denied.
//! Source: Istio `security.istio.io/v1.AuthorizationPolicy`: matching, "conditions", path templates, dry run.

use super::policy_scope::scope;
use crate::api::custom::Custom;
use crate::model::Name;
use crate::model::http::Pattern;
use crate::model::policy::{
    Action, Atom, Clause, Condition, Order, Policy, Ports, Rule, Side, Stage, Test, Text, Texts, TierKey,
};
use crate::translate::draft::all_or_unknown;
use crate::translate::kube::network_policy::prefixes;
use crate::translate::read::{Fields, Log, Place};
use crate::translate::text;
use std::collections::BTreeSet;

/// The annotation by which a policy is tried.
const DRY_RUN: &str = "istio.io/dry-run";

/// The policy that an object is.
pub(in crate::translate) fn policy(log: &Log, object: &Custom, root_namespace: &str) -> Policy {
    let mut fields = log.spec(&object.spec);
    let (scope, is_scope_clear) = log.part(|| scope(&mut fields, root_namespace));
    let (tier, mut action, mut is_clear) = action(&mut fields);
    let reader = Reader { namespace: &log.object().name.namespace };
    let list = fields.take("rules");
    let places = list.items().into_iter().enumerate();
    let mut rules: Vec<Rule> = places
        .map(|(at, place)| Rule { name: format!("rules[{at}]"), action, condition: reader.rule(&place) })
        .collect();
    is_clear &= log.part(|| drop(fields)).1;
    if action == Action::Allow && !(is_clear && is_scope_clear) {
        rules.clear();
    } else if !is_clear {
        action = Action::Deny;
        rules = vec![Rule { name: "spec".to_owned(), action, condition: Condition::default() }];
    }
    Policy {
        object: log.object().clone(),
        tier: TierKey::mesh(tier),
        order: Order::LAST,
        scope,
        ingress: Some(rules),
        egress: None,
        stage: stage(log, object),
    }
}

/// The tier, what follows from rules, and whether that is clear.
fn action(fields: &mut Fields<'_>) -> (&'static str, Action, bool) {
    let log = fields.log();
    let place = fields.take("action");
    let words = [
        ("ALLOW", (TierKey::ALLOW, Action::Allow)),
        ("DENY", (TierKey::DENY, Action::Deny)),
        ("AUDIT", (TierKey::AUDIT, Action::Log)),
    ];
    let (found, _) = log.part(|| place.choice_except(&words, &["CUSTOM"]));
    // Whoever would be asked says nothing, so it is denied; that says so.
    let (provider, _) = log.part(|| {
        let provider = fields.take("provider");
        provider.unsupported("decide by ALLOW and DENY");
        provider.is_there()
    });
    match found {
        Some((tier, action)) => (tier, action, !provider),
        None if !place.is_there() => (TierKey::ALLOW, Action::Allow, !provider),
        None => (TierKey::DENY, Action::Deny, log.part(|| place.text()).0 == Some("CUSTOM")),
    }
}

fn stage(log: &Log, object: &Custom) -> Stage {
    let Some(text) = object.metadata.annotations.get(DRY_RUN) else { return Stage::Enforced };
    match text.as_str() {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Stage::DryRun { replaces: None },
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Stage::Enforced,
        other => {
            let path = format!("metadata.annotations[{DRY_RUN}]");
            log.note(&path, format!("`{other}` is no truth; the policy is in force"), "use `true` or `false`");
            Stage::Enforced
        }
    }
}

struct Reader<'a> {
    namespace: &'a str,
}

/// What a list of values becomes.
type Make = fn(&Place<'_>, &Reader<'_>) -> Test;

/// The fields of `source`, each with its contrary.
const SOURCE: [(&str, &str, Make); 6] = [
    ("principals", "notPrincipals", |list, _| Test::Principal(texts(list))),
    ("trustDomains", "notTrustDomains", |list, _| Test::Principal(trust_domains(list))),
    ("namespaces", "notNamespaces", |list, _| Test::PrincipalNamespace(texts(list))),
    ("serviceAccounts", "notServiceAccounts", accounts),
    ("ipBlocks", "notIpBlocks", |list, _| Test::Address(Side::Source, prefixes(&list.items()))),
    ("remoteIpBlocks", "notRemoteIpBlocks", |list, _| Test::ForwardedFor(prefixes(&list.items()))),
];

/// The fields of `operation`, each with its contrary.
const OPERATION: [(&str, &str, Make); 4] = [
    ("hosts", "notHosts", |list, _| Test::Host(hosts(list))),
    ("ports", "notPorts", |list, _| Test::Port(Side::Destination, ports(list))),
    ("methods", "notMethods", |list, _| Test::Method(texts(list))),
    ("paths", "notPaths", |list, _| Test::Path(paths(list))),
];

/// The keys of conditions, but for headers.
const KEYS: [(&str, Make); 8] = [
    ("source.ip", |list, _| Test::Address(Side::Source, prefixes(&list.items()))),
    ("remote.ip", |list, _| Test::ForwardedFor(prefixes(&list.items()))),
    ("source.namespace", |list, _| Test::PrincipalNamespace(texts(list))),
    ("source.principal", |list, _| Test::Principal(texts(list))),
    ("source.serviceAccount", accounts),
    ("destination.ip", |list, _| Test::Address(Side::Destination, prefixes(&list.items()))),
    ("destination.port", |list, _| Test::Port(Side::Destination, ports(list))),
    ("connection.sni", |list, _| Test::Sni(hosts(list))),
];

impl Reader<'_> {
    fn rule(&self, place: &Place<'_>) -> Condition {
        let (clauses, is_clear) = place.log().part(|| {
            let Some(mut fields) = place.fields() else { return Vec::new() };
            let mut clauses = Vec::new();
            clauses.extend(self.clause(&fields.take("from"), "source", |fields| {
                let mut atoms = self.atoms(fields, &SOURCE);
                for name in ["requestPrincipals", "notRequestPrincipals"] {
                    let token = fields.take(name);
                    token.unsupported("tokens are not read; use `principals`, which certificates prove");
                    atoms.extend(token.is_there().then(|| Atom::is(Test::Unknown)));
                }
                atoms
            }));
            clauses.extend(self.clause(&fields.take("to"), "operation", |fields| self.atoms(fields, &OPERATION)));
            clauses.extend(fields.take("when").items().iter().map(|place| one(self.when(place))));
            clauses
        });
        let unclear = (!is_clear).then(|| one(vec![Atom::is(Test::Unknown)]));
        Condition { clauses: clauses.into_iter().chain(unclear).collect() }
    }

    /// `from` or `to`: any of its entries, of each all fields of `name`.
    fn clause(
        &self,
        list: &Place<'_>,
        name: &'static str,
        read: impl Fn(&mut Fields<'_>) -> Vec<Atom>,
    ) -> Option<Clause> {
        if !list.is_there() {
            return None;
        }
        let items = list.items();
        if items.is_empty() {
            list.refuse("there is none", "give one, or remove the field");
        }
        let alternative = |place: &Place<'_>| {
            all_or_unknown(place.log(), || {
                let mut fields = place.fields()?;
                let inner = fields.take(name);
                let Some(mut inner) = inner.fields() else {
                    inner.refuse("it says nothing", "give a field");
                    return None;
                };
                let atoms = read(&mut inner);
                if atoms.is_empty() {
                    inner.refuse("it says nothing", "give a field");
                }
                Some(atoms)
            })
        };
        Some(Clause { alternatives: items.iter().map(alternative).collect() })
    }

    fn atoms(&self, fields: &mut Fields<'_>, of: &[(&'static str, &'static str, Make)]) -> Vec<Atom> {
        let mut atoms = Vec::new();
        for (name, contrary, make) in of {
            atoms.extend(self.test(&fields.take(name), *make).map(Atom::is));
            atoms.extend(self.test(&fields.take(contrary), *make).map(Atom::is_not));
        }
        atoms
    }

    fn when(&self, place: &Place<'_>) -> Vec<Atom> {
        all_or_unknown(place.log(), || {
            let mut fields = place.fields()?;
            let key = fields.take("key");
            let (values, contrary) = (fields.take("values"), fields.take("notValues"));
            if !values.is_there() && !contrary.is_there() {
                fields.refuse("it has no values", "give `values` or `notValues`");
            }
            let words: Vec<_> = KEYS.iter().map(|(word, _)| *word).chain(["request.headers[NAME]"]).collect();
            let text = key.word(&words).unwrap_or_default();
            if let Some(name) = text.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
                let name = text::header_name(name).map_err(|problem| key.refuse(problem, "give the name of a header"));
                let name = name.ok()?;
                let make = |list: &Place<'_>, _: &Reader<'_>| Test::Header(name.clone(), texts(list));
                return Some(self.both(&values, &contrary, make));
            }
            let Some((_, make)) = KEYS.iter().find(|(known, _)| *known == text) else {
                key.refuse(format!("`{text}` is not supported"), format!("use {}", words.join(", ")));
                // What stands there need not be understood.
                let _read = self.both(&values, &contrary, |list, _| Test::Principal(texts(list)));
                return None;
            };
            Some(self.both(&values, &contrary, *make))
        })
    }

    fn both(
        &self,
        values: &Place<'_>,
        contrary: &Place<'_>,
        make: impl Fn(&Place<'_>, &Reader<'_>) -> Test,
    ) -> Vec<Atom> {
        let is = self.test(values, &make).map(Atom::is);
        is.into_iter().chain(self.test(contrary, &make).map(Atom::is_not)).collect()
    }

    /// What a list asks for, if it is there. One of which something is not understood could ask for anything.
    fn test(&self, list: &Place<'_>, make: impl Fn(&Place<'_>, &Reader<'_>) -> Test) -> Option<Test> {
        if !list.is_there() {
            return None;
        }
        let (test, is_clear) = list.log().part(|| {
            if list.items().is_empty() {
                list.refuse("there is none", "give one, or remove the field");
            }
            make(list, self)
        });
        Some(if is_clear { test } else { Test::Unknown })
    }
}

fn one(atoms: Vec<Atom>) -> Clause {
    Clause { alternatives: vec![atoms] }
}

/// The values that `read` understands.
fn values<T>(list: &Place<'_>, cure: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    list.items().iter().filter_map(|place| place.parse(cure, &read)).collect()
}

fn texts(list: &Place<'_>) -> Texts {
    values(list, "give a text, with a star at one of its ends at most", like).into_iter().collect()
}

/// A text, a prefix, a suffix, or that there is any.
fn like(text: &str) -> Result<Text, String> {
    match (text.strip_prefix('*'), text.strip_suffix('*')) {
        _ if text.is_empty() => Err("an empty text is like nothing".to_owned()),
        _ if text == "*" => Ok(Text::Present),
        (Some(end), _) => Ok(Text::Suffix(end.into())),
        (None, Some(start)) => Ok(Text::Prefix(start.into())),
        (None, None) => Ok(Text::Exact(text.into())),
    }
}

/// Principals of these trust domains, with which each begins.
fn trust_domains(list: &Place<'_>) -> Texts {
    let read = |text: &str| {
        Ok(match like(text)? {
            Text::Exact(domain) => Text::Prefix(format!("{domain}/").into()),
            Text::Suffix(end) => {
                let pattern = Pattern::new(&format!("[^/]*{}/.*", regex::escape(&end)));
                Text::Regex(pattern.map_err(|error| error.to_string())?)
            }
            other @ (Text::Prefix(_) | Text::Elements(_) | Text::Regex(_) | Text::Present) => other,
        })
    };
    values(list, "give a trust domain, with a star at one of its ends at most", read).into_iter().collect()
}

fn hosts(list: &Place<'_>) -> Texts {
    let read = |text: &str| like(&text.to_ascii_lowercase());
    values(list, "give a host, with a star at one of its ends at most", read).into_iter().collect()
}

fn paths(list: &Place<'_>) -> Texts {
    let cure =
        "use `{*}` for one element of a path and `{**}`, once and last, for any number, each alone between slashes";
    values(list, cure, |text| if is_template(text) { template(text) } else { like(text) }).into_iter().collect()
}

fn is_template(path: &str) -> bool {
    path.contains("{*}") || path.contains("{**}")
}

/// A path with `{*}` and `{**}` among its elements.
fn template(path: &str) -> Result<Text, String> {
    let mut pattern = String::new();
    let mut is_over = false;
    for (at, element) in path.split('/').enumerate() {
        if at > 0 {
            pattern.push('/');
        }
        match element {
            "{*}" | "{**}" if is_over => return Err(format!("`{path}` goes on after `{{**}}`")),
            "{*}" => pattern.push_str("[^/]+"),
            "{**}" => {
                is_over = true;
                pattern.push_str("(?s:.*)");
            }
            element if element.contains(['*', '{', '}']) => {
                return Err(format!("`{element}` in `{path}` is no element of a template"));
            }
            element => pattern.push_str(&regex::escape(element)),
        }
    }
    Pattern::new(&pattern).map(Text::Regex).map_err(|error| error.to_string())
}

fn ports(list: &Place<'_>) -> Ports {
    let read = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.map(|port| port..=port).ok_or_else(|| format!("`{text}` is no port"))
    };
    Ports { ranges: values(list, "give the number of a port as a text", read), names: BTreeSet::new() }
}

/// Service accounts, of the policy's own namespace where none is said.
fn accounts(list: &Place<'_>, reader: &Reader<'_>) -> Test {
    let read = |text: &str| match text.split_once('/') {
        None if !text.is_empty() => Ok(Name::new(reader.namespace, text)),
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Name::new(namespace, name))
        }
        Some(_) | None => Err(format!("`{text}` is no service account")),
    };
    Test::PrincipalAccount(values(list, "give `namespace/name` or a name", read).into_iter().collect())
}
