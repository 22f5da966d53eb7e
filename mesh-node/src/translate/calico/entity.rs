//! One end of a rule.
//!
//! In:  `source` or `destination` of a rule, the namespace of its policy.
//! Out: an [`End`]: the tests of that end, which must all be met.
//! Invariant: as soon as a policy of a namespace selects peers in any way, they are those of its namespace, unless it says which
//! namespaces it means.
//! Source: Calico `EntityRule`; felix renders a rule whose ranges of addresses are all of one family for that family alone.

use super::label::Whose;
use super::{rule::Reader, selector};
use crate::model::policy::{Atom, Clause, Ports, Prefix, Prefixes, Side, Test};
use crate::model::{Key, Name, Selector};
use crate::translate::draft::{atom, understood};
use crate::translate::kube::label_selector::pods;
use crate::translate::kube::network_policy::prefixes;
use crate::translate::read::{Fields, Place, Scalar};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What one end must be.
#[derive(Debug, Default)]
pub(super) struct End {
    /// All must be met.
    pub(super) atoms: Vec<Atom>,
    /// And of each of these one alternative.
    pub(super) clauses: Vec<Clause>,
}

/// The tests of one end.
pub(super) fn tests(place: &Place<'_>, side: Side, reader: &Reader<'_>) -> End {
    let Some(mut fields) = place.fields() else { return End::default() };
    let mut end = End { atoms: peers(&mut fields, side, reader), clauses: Vec::new() };
    let selected = end.atoms.iter().find_map(|atom| {
        let Test::Selected(_, selector) = &atom.test else { return None };
        (!atom.negated).then(|| selector.clone())
    });
    end.atoms.extend(atom(&fields.take("services"), |place| service(place, side, reader)));
    end.atoms.extend(nets(&fields.take("nets"), side, false));
    end.atoms.extend(nets(&fields.take("notNets"), side, true));
    for (name, negated) in [("ports", false), ("notPorts", true)] {
        let ports = atom(&fields.take(name), |place| ports(place, side, reader));
        match (ports.map(|ports| ports.test), &selected) {
            (Some(Test::Port(_, ports)), Some(selected)) if !ports.names.is_empty() => {
                end.clauses.extend(named(ports, side, selected, negated));
            }
            (ports, _) => end.atoms.extend(ports.map(|test| Atom { negated, test })),
        }
    }
    end
}

/// Ports of which some have names, where the end is selected. Felix looks for one pod that is selected and has the name: that the
/// address of another pod is in a set which is selected too makes it no such pod.
fn named(ports: Ports, side: Side, selected: &Selector, negated: bool) -> Vec<Clause> {
    let Ports { ranges, names } = ports;
    let is = |test| Atom { negated, test };
    let pod = is(Test::Selected(side, selected.clone().and(pods())));
    let name = is(Test::Port(side, Ports { ranges: Vec::new(), names }));
    let number = (!ranges.is_empty()).then(|| is(Test::Port(side, Ports { ranges, names: BTreeSet::new() })));
    if negated {
        let number = number.map(|number| Clause { alternatives: vec![vec![number]] });
        number.into_iter().chain([Clause { alternatives: vec![vec![name], vec![pod]] }]).collect()
    } else {
        let number = number.map(|number| vec![number]);
        vec![Clause { alternatives: number.into_iter().chain([vec![name, pod]]).collect() }]
    }
}

/// The selectors of one end.
fn peers(fields: &mut Fields<'_>, side: Side, reader: &Reader<'_>) -> Vec<Atom> {
    let places = ["selector", "namespaceSelector", "notSelector"].map(|name| fields.take(name));
    let [own, namespaces, excluded] = &places;
    let accounts = fields.take("serviceAccounts");
    let said = |place: &Place<'_>| place.text().is_some_and(|text| !text.is_empty());
    let selected = understood(fields.log(), || {
        let mut all = Vec::new();
        all.extend(said(own).then(|| parse(own, Whose::Endpoint)));
        all.extend(account(&accounts));
        if said(namespaces) {
            all.push(parse(namespaces, Whose::Namespace));
        } else if let Some(namespace) = reader.namespace
            && (!all.is_empty() || said(excluded))
        {
            all.push(Selector::in_namespace(Arc::from(namespace)));
        }
        all
    });
    let excluded = understood(fields.log(), || said(excluded).then(|| parse(excluded, Whose::Endpoint)));
    let unknown = Atom::is(Test::Unknown);
    let of = |selector| Test::Selected(side, selector);
    let all = |all: Vec<Selector>| all.into_iter().fold(Selector::everything(), Selector::and);
    match (selected, excluded) {
        (Some(selected), Some(None)) if selected.is_empty() => Vec::new(),
        (Some(selected), Some(Some(excluded))) if selected.is_empty() => vec![Atom::is_not(of(excluded))],
        // Felix looks for one endpoint or set that is selected and not excluded: several may have an address.
        (Some(mut selected), Some(excluded)) => {
            selected.extend(excluded.map(|excluded| Selector::Not(Box::new(excluded))));
            vec![Atom::is(of(all(selected)))]
        }
        (Some(selected), None) if !selected.is_empty() => vec![Atom::is(of(all(selected))), unknown],
        (Some(_) | None, None) | (None, Some(_)) => vec![unknown],
    }
}

/// The selector that a text is; one that is none is refused, with the place where it stops making sense.
pub(super) fn parse(place: &Place<'_>, whose: Whose) -> Selector {
    let text = place.text().unwrap_or_default();
    selector::parse(text, whose).unwrap_or_else(|error| {
        place.refuse(error.to_string(), error.cure);
        Selector::nothing()
    })
}

/// The pods of service accounts, by name and by label; `None` if it says nothing.
fn account(place: &Place<'_>) -> Option<Selector> {
    let mut fields = place.fields()?;
    let (names, labels) = (fields.take("names").texts(), fields.take("selector"));
    let is_labelled = labels.text().is_some_and(|text| !text.is_empty());
    let labelled = is_labelled.then(|| parse(&labels, Whose::Account));
    let named = || Selector::In(Key::Account, names.iter().map(|name| Arc::from(*name)).collect());
    let named = (!names.is_empty()).then(named);
    match (labelled, named) {
        (Some(labelled), Some(named)) => Some(labelled.and(named)),
        (labelled, named) => labelled.or(named),
    }
}

fn service(place: &Place<'_>, side: Side, reader: &Reader<'_>) -> Option<Test> {
    let mut fields = place.fields()?;
    let (name, namespace) = (fields.take("name"), fields.take("namespace"));
    let name = name.text().filter(|text| !text.is_empty());
    let namespace = namespace.text().filter(|text| !text.is_empty()).or(reader.namespace);
    if name.is_none() || namespace.is_none() {
        place.refuse("a service needs a name and a namespace", "give both; a policy of a namespace may leave it out");
    }
    Some(Test::Service(side, Name::new(namespace?, name?)))
}

/// The test of ranges of addresses; an empty list is none.
fn nets(list: &Place<'_>, side: Side, negated: bool) -> Vec<Atom> {
    if !list.is_there() {
        return Vec::new();
    }
    let read = || {
        let items = list.items();
        let is_v4 = |place: &Place<'_>| place.text().is_some_and(|text| !text.contains(':'));
        let families = (items.iter().any(is_v4), items.iter().any(|item| !is_v4(item)));
        (!items.is_empty()).then(|| (prefixes(&items), families))
    };
    match understood(list.log(), read) {
        None => vec![Atom::is(Test::Unknown)],
        Some(None) => Vec::new(),
        Some(Some((ranges, families))) => {
            let mut atoms = vec![Atom { negated, test: Test::Address(side, ranges) }];
            // What is not in any of them is in their family all the same.
            match families {
                (true, false) if negated => atoms.push(of_v4(side)),
                (false, true) if negated => atoms.push(of_v4(side).negated()),
                _ => {}
            }
            atoms
        }
    }
}

/// That end has an address of IPv4.
pub(super) fn of_v4(side: Side) -> Atom {
    let every = "0.0.0.0/0".parse::<Prefix>().into_iter().collect::<Prefixes>();
    Atom::is(Test::Address(side, every))
}

/// Ports by number, as in `80`; from one to another, as in `8080:8090`; and by name. An empty list is none.
fn ports(list: &Place<'_>, side: Side, reader: &Reader<'_>) -> Option<Test> {
    let mut ports = Ports::default();
    let items = list.items();
    for place in &items {
        match place.scalar() {
            None => {}
            Some(Scalar::Number(number)) => match u16::try_from(number) {
                Ok(port) => ports.ranges.push(port..=port),
                Err(_) => place.refuse("it is no port", "give a number up to 65535"),
            },
            Some(Scalar::Text(text)) => port(place, text, side, &mut ports),
        }
    }
    if !ports.ranges.is_empty() && !reader.has_ports {
        list.refuse("ports by number need a protocol that has ports", "give `protocol: TCP`");
    }
    (!items.is_empty()).then_some(Test::Port(side, ports))
}

fn port(place: &Place<'_>, text: &str, side: Side, ports: &mut Ports) {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => ports.ranges.push(first..=last),
        _ if text.is_empty() || !text.bytes().all(is_of_name) || text.bytes().all(|byte| byte.is_ascii_digit()) => {
            place.refuse(format!("`{text}` is no port"), "give a number, a range such as 8080:8090, or a name");
        }
        _ if side == Side::Source => {
            place.refuse("a name is that of a destination's port", "give the source's port by number");
        }
        _ => {
            ports.names.insert(text.to_owned());
        }
    }
}
