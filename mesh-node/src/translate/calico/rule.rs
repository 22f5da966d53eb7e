//! One rule of a policy.
//!
//! In:  an item of `ingress` or `egress`.
//! Out: a [`Rule`]: a clause with one alternative, and clauses of ports that have names.
//! Source: Calico `Rule`.

use super::{entity, http};
use crate::model::policy::{Action, Atom, Condition, Rule, Side, Test};
use crate::translate::draft::{SCTP, TCP, UDP, all_or_unknown, atom, closed, unclear, understood};
use crate::translate::read::{Fields, Place, Scalar};
use std::collections::BTreeSet;

const ACTIONS: [(&str, Action); 4] =
    [("Allow", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass), ("Log", Action::Log)];
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const UDP_LITE: u8 = 136;
/// Protocols by name.
const PROTOCOLS: [(&str, u8); 6] =
    [("TCP", TCP), ("UDP", UDP), ("ICMP", ICMP), ("ICMPv6", ICMP_V6), ("SCTP", SCTP), ("UDPLite", UDP_LITE)];

/// What a rule is read in the sense of.
pub(super) struct Reader<'a> {
    /// The namespace of its policy.
    pub(super) namespace: Option<&'a str>,
    /// Does its protocol have ports?
    pub(super) has_ports: bool,
}

/// The rule at a place.
pub(super) fn rule(place: &Place<'_>, name: String, namespace: Option<&str>) -> Rule {
    let mut rule = Rule { name, action: Action::Deny, condition: Condition::default() };
    let read = || {
        let Some(mut fields) = place.fields() else { return };
        let action = fields.take("action");
        if !action.is_there() {
            action.refuse("a rule does nothing without it", "give Allow, Deny, Pass or Log");
        }
        rule.action = action.choice(&ACTIONS).unwrap_or(Action::Deny);
        rule.condition = condition(&mut fields, rule.action, namespace);
        if let Some(mut fields) = fields.take("metadata").fields() {
            fields.take("annotations").entries().iter().for_each(|(_, place)| place.immaterial());
        }
    };
    let (_, is_clear) = place.log().part(read);
    if is_clear { closed(rule) } else { unclear(rule) }
}

fn condition(fields: &mut Fields<'_>, action: Action, namespace: Option<&str>) -> Condition {
    let (included, excluded) = (fields.take("protocol"), fields.take("notProtocol"));
    let numbers = atom(&included, protocol);
    let of = |has: fn(u8) -> bool| match &numbers {
        Some(Atom { test: Test::Protocol(numbers), .. }) => numbers.iter().any(|number| has(*number)),
        _ => false,
    };
    let reader = Reader { namespace, has_ports: of(|number| matches!(number, TCP | UDP | SCTP | UDP_LITE)) };
    let is_icmp = of(|number| matches!(number, ICMP | ICMP_V6));
    let mut atoms: Vec<Atom> = numbers.into_iter().collect();
    atoms.extend(atom(&excluded, protocol).map(Atom::negated));
    for name in ["icmp", "notICMP"] {
        atoms.extend(atom(&fields.take(name), |place| icmp(place, is_icmp)));
    }
    atoms.extend(family(&fields.take("ipVersion")));
    let mut clauses = Vec::new();
    for (name, side) in [("source", Side::Source), ("destination", Side::Destination)] {
        let place = fields.take(name);
        let (end, is_clear) = place.log().part(|| entity::tests(&place, side, &reader));
        atoms.extend(end.atoms);
        clauses.extend(end.clauses);
        if !is_clear {
            atoms.push(Atom::is(Test::Unknown));
        }
    }
    let of_http = fields.take("http");
    if of_http.is_there() {
        if action != Action::Allow {
            of_http.refuse("requests are looked at in rules that allow only", "allow the others, and deny the rest");
        }
        atoms.extend(all_or_unknown(of_http.log(), || Some(http::tests(&of_http))));
    }
    let mut condition = Condition::all(atoms);
    condition.clauses.extend(clauses);
    condition
}

/// A protocol by name or number.
fn protocol(place: &Place<'_>) -> Option<Test> {
    let number = match place.scalar()? {
        Scalar::Number(number) => u8::try_from(number).ok(),
        Scalar::Text(text) => {
            let named = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            named.map(|(_, number)| *number).or_else(|| text.parse().ok())
        }
    };
    if number.is_none_or(|number| number == 0) {
        let names = PROTOCOLS.map(|(name, _)| name).join(", ");
        place.refuse("it is no protocol", format!("give {names}, or a number from 1 to 255"));
    }
    Some(Test::Protocol(BTreeSet::from([number?])))
}

/// What is asked of ICMP is met by none of what the mesh carries: that it is ICMP says it all.
fn icmp(place: &Place<'_>, is_icmp: bool) -> Option<Test> {
    let mut fields = place.fields()?;
    fields.take("type").number(0, 254);
    fields.take("code").number(0, 255);
    if !is_icmp {
        place.refuse("it is for ICMP only", "give `protocol: ICMP` or ICMPv6");
    }
    Some(Test::Protocol(BTreeSet::from([ICMP, ICMP_V6])))
}

/// A version of IP, which both ends have.
fn family(place: &Place<'_>) -> Option<Atom> {
    if !place.is_there() {
        return None;
    }
    let version = understood(place.log(), || {
        let version = place.number(4, 6);
        if version == Some(5) {
            place.refuse("it is no version of IP", "give 4 or 6");
        }
        version
    });
    let v4 = entity::of_v4(Side::Destination);
    Some(match version.flatten() {
        Some(4) => v4,
        Some(_) => v4.negated(),
        None => Atom::is(Test::Unknown),
    })
}
