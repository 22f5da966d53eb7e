//! What readers of network policies have in common: how what is not understood closes.
//!
//! In:  places that are read, and what a policy says as far as it is understood.
//! Out: tests, rules, and the scope and rules that hold.
//! Invariant: what is not understood is met in rules that deny and in no other; a rule that would pass it on denies it. A policy
//! whose scope is not understood holds for all that it could be about, and allows nothing.
//! Source: `ClusterNetworkPolicy`, "fail closed"; the head of `model::policy`.

use super::read::{Fields, Log, Place};
use crate::model::Selector;
pub(super) use crate::model::policy::TCP;
use crate::model::policy::{Action, Atom, Clause, Condition, PolicyScope, Rule, Side, Test};
use std::collections::BTreeSet;

/// UDP's.
pub(super) const UDP: u8 = 17;
/// SCTP's.
pub(super) const SCTP: u8 = 132;

/// What `read` makes of a part, if all of it is understood.
pub(super) fn understood<T>(log: &Log, read: impl FnOnce() -> T) -> Option<T> {
    let (value, is_clear) = log.part(read);
    is_clear.then_some(value)
}

/// The tests that `read` makes of a part, and one that nobody understands if not all of it is understood.
pub(super) fn all_or_unknown(log: &Log, read: impl FnOnce() -> Option<Vec<Atom>>) -> Vec<Atom> {
    let (atoms, is_clear) = log.part(read);
    let unclear = (!is_clear).then(|| Atom::is(Test::Unknown));
    atoms.into_iter().flatten().chain(unclear).collect()
}

/// The test that a field is; none without it.
pub(super) fn atom<'a>(place: &Place<'a>, read: impl FnOnce(&Place<'a>) -> Option<Test>) -> Option<Atom> {
    if !place.is_there() {
        return None;
    }
    match understood(place.log(), || read(place)) {
        Some(test) => test.map(Atom::is),
        None => Some(Atom::is(Test::Unknown)),
    }
}

/// The alternatives that a list is, of which one must be met; none without it.
pub(super) fn clause<'a>(list: &Place<'a>, read: impl Fn(&Place<'a>) -> Vec<Atom>) -> Option<Clause> {
    if !list.is_there() {
        return None;
    }
    let one =
        |place: &Place<'a>| understood(place.log(), || read(place)).unwrap_or_else(|| vec![Atom::is(Test::Unknown)]);
    let alternatives = understood(list.log(), || list.items().iter().map(one).collect());
    Some(Clause { alternatives: alternatives.unwrap_or_else(|| vec![vec![Atom::is(Test::Unknown)]]) })
}

/// The rules of a direction. A list that is none is a rule that denies everything.
pub(super) fn rules<'a>(
    list: &Place<'a>,
    direction: &'static str,
    read: impl Fn(&Place<'a>, String) -> Rule,
) -> Vec<Rule> {
    let rules: Option<Vec<Rule>> = understood(list.log(), || {
        let items = list.items();
        items.iter().enumerate().map(|(at, place)| read(place, format!("{direction}[{at}]"))).collect()
    });
    rules.unwrap_or_else(|| {
        let condition = Condition::default();
        vec![unclear(Rule { name: direction.to_owned(), action: Action::Deny, condition })]
    })
}

/// What a policy says of what arrives and of what leaves; `None` where it does not speak of that. The field `types` says of which it
/// does; without it, of what leaves if there are rules, and of what arrives as `arrives` says of the rules for both.
pub(super) fn directions<'a>(
    fields: &mut Fields<'a>,
    types: &'static str,
    read: impl Fn(&Place<'a>, String, Side) -> Rule,
    arrives: impl FnOnce(&[Rule], &[Rule]) -> bool,
) -> (Option<Vec<Rule>>, Option<Vec<Rule>>) {
    let (arriving, leaving) = (fields.take("ingress"), fields.take("egress"));
    let ingress = rules(&arriving, "ingress", |place, name| read(place, name, Side::Source));
    let egress = rules(&leaving, "egress", |place, name| read(place, name, Side::Destination));
    let named = fields.take(types);
    let words = [("Ingress", Side::Source), ("Egress", Side::Destination)];
    let named = understood(named.log(), || {
        named.items().iter().filter_map(|place| place.choice(&words)).collect::<BTreeSet<Side>>()
    });
    let (of_ingress, of_egress) = match named {
        None => (true, true),
        Some(named) if named.is_empty() => (arrives(&ingress, &egress), !egress.is_empty()),
        Some(named) => (named.contains(&Side::Source), named.contains(&Side::Destination)),
    };
    for (list, rules, is_of_it) in [(&arriving, &ingress, of_ingress), (&leaving, &egress, of_egress)] {
        if !rules.is_empty() && !is_of_it {
            list.note(format!("it has no effect, since {types} do not name it"), "name it there, or remove it");
        }
    }
    (of_ingress.then_some(ingress), of_egress.then_some(egress))
}

/// A rule of which something was not understood beside its tests: it is met by everything where it denies, and by nothing elsewhere.
pub(super) fn unclear(rule: Rule) -> Rule {
    let action = match rule.action {
        Action::Pass | Action::Deny => Action::Deny,
        action @ (Action::Allow | Action::Log) => action,
    };
    Rule { action, condition: Condition::all(vec![Atom::is(Test::Unknown)]), ..rule }
}

/// A rule that passes on what it does not understand would leave it to rules behind it: it denies.
pub(super) fn closed(rule: Rule) -> Rule {
    let is_unknown = |atom: &Atom| atom.test == Test::Unknown;
    let alternatives = rule.condition.clauses.iter().flat_map(|clause| &clause.alternatives);
    let passes_unknown = rule.action == Action::Pass && alternatives.flatten().any(is_unknown);
    Rule { action: if passes_unknown { Action::Deny } else { rule.action }, ..rule }
}

/// What a policy says.
pub(super) struct Draft {
    /// What it is about; `None` if that is not understood.
    pub(super) scope: Option<Selector>,
    /// What it could be about at most.
    pub(super) widest: Selector,
    /// What arrives, if it speaks of that.
    pub(super) ingress: Option<Vec<Rule>>,
    /// What leaves.
    pub(super) egress: Option<Vec<Rule>>,
    /// Is it understood where it stands among others?
    pub(super) is_placed: bool,
}

impl Draft {
    /// What holds, once nothing else is asked of the object: a field that nobody knows may say whom it is about.
    pub(super) fn closed(mut self, fields: Fields<'_>) -> Self {
        let log = fields.log();
        if understood(log, || drop(fields)).is_none() {
            self.scope = None;
        }
        let problem = match (&self.scope, self.is_placed) {
            (Some(_), true) => return self,
            (Some(_), false) => "it is not understood as a whole, so it allows nothing",
            (None, _) => {
                "it is not understood as a whole, so it holds for every pod that it could be about, and allows nothing"
            }
        };
        log.note("spec", problem, "correct the fields that other issues name");
        self.ingress = self.ingress.map(denials);
        self.egress = self.egress.map(denials);
        self
    }

    /// What it is about.
    pub(super) fn scope(&self) -> PolicyScope {
        PolicyScope::Selected(self.scope.as_ref().unwrap_or(&self.widest).clone())
    }
}

/// What of these rules denies.
fn denials(rules: Vec<Rule>) -> Vec<Rule> {
    let denial = |rule: Rule| match rule.action {
        Action::Allow => None,
        Action::Pass => Some(Rule { action: Action::Deny, ..rule }),
        Action::Deny | Action::Log => Some(rule),
    };
    rules.into_iter().filter_map(denial).collect()
}
