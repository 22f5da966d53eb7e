//! How connections that are no HTTP are routed.
//!
//! In:  `tcp` and `tls` of a VirtualService.
//! Out: [`StreamRule`]s.
//! Invariant: a rule that is not understood refuses whatever its matches, as far as they are understood, cover.
//! Source: Istio `TCPRoute`, `TLSRoute`.

use super::http_match::scope;
use super::{host, virtual_service::Reader};
use crate::model::http::{ConnectionMatch, RuleList, StreamBackend, StreamMatch, StreamRule};
use crate::model::policy::{Prefix, Text};
use crate::translate::read::Place;
use crate::translate::text;

/// The rules of a list.
pub(super) fn rules(list: &Place<'_>, of: RuleList, reader: &Reader<'_>) -> Vec<StreamRule> {
    list.items().iter().map(|place| rule(place, of, reader)).collect()
}

fn rule(place: &Place<'_>, of: RuleList, reader: &Reader<'_>) -> StreamRule {
    let (rule, is_clear) = place.log().part(|| {
        let mut fields = place.fields()?;
        let list = fields.take("match");
        let matches: Vec<_> = list.items().iter().map(|place| stream_match(place, of, reader)).collect();
        if of == RuleList::Tls && matches.is_empty() {
            list.refuse("nothing says which server names are meant", "give `sniHosts`");
        }
        let list = fields.take("route");
        let backends = backends(&list, reader);
        if backends.is_empty() {
            list.refuse("nothing says where connections go", "give a destination");
        }
        Some(StreamRule { matches, backends })
    });
    let mut rule = rule.unwrap_or_else(|| StreamRule { matches: Vec::new(), backends: Vec::new() });
    if !is_clear {
        rule.backends.clear();
    }
    rule
}

/// A condition that is not understood is left out, and the rule is closed by whoever asks.
fn stream_match(place: &Place<'_>, of: RuleList, reader: &Reader<'_>) -> StreamMatch {
    let Some(mut fields) = place.fields() else { return StreamMatch::default() };
    let mut connection = ConnectionMatch::default();
    if of == RuleList::Tls {
        let list = fields.take("sniHosts");
        let names = list.items();
        if names.is_empty() {
            list.refuse("no server name is given", "give one; `*` is every one");
        }
        let cure = "give a host name, with `*.` or nothing before it, or `*`";
        let asked: Option<Vec<Text>> = condition(&names, |place| place.parse(cure, server_name));
        // All names are none that must be given, as in Istio.
        connection.sni = asked.filter(|asked| !asked.contains(&Text::Present)).map(|asked| asked.into_iter().collect());
    }
    let subnets = fields.take("destinationSubnets").items();
    let subnet = |place: &Place<'_>| place.parse("write it like 10.0.0.0/8 or fd00::/64", str::parse::<Prefix>);
    connection.destinations = condition(&subnets, subnet);
    if of == RuleList::Tcp {
        fields.take("sourceSubnet").unsupported("tell clients apart by `sourceLabels`");
    }
    StreamMatch { connection, scope: scope(&mut fields, reader) }
}

/// What a list asks for, if anything is in it and all of that is understood.
fn condition<T, C: FromIterator<T>>(list: &[Place<'_>], read: impl Fn(&Place<'_>) -> Option<T>) -> Option<C> {
    // All of it is read, so that whatever is wrong is told.
    let values: Vec<Option<T>> = list.iter().map(read).collect();
    values.into_iter().collect::<Option<C>>().filter(|_| !list.is_empty())
}

/// A name, all names below one, or all.
fn server_name(name: &str) -> Result<Text, String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if name != "*" && !text::is_host(&name) {
        return Err(format!("`{name}` is no host name"));
    }
    Ok(match name.strip_prefix('*') {
        Some("") => Text::Present,
        Some(end) => Text::Suffix(end.into()),
        None => Text::Exact(name.into()),
    })
}

fn backends(list: &Place<'_>, reader: &Reader<'_>) -> Vec<StreamBackend> {
    let items = list.items();
    let backend = |place: &Place<'_>| {
        let mut fields = place.fields()?;
        let weight = host::weight(&fields.take("weight"), items.len());
        let target = host::destination(&fields.take("destination"), reader.namespace, reader.domain);
        Some(StreamBackend { weight, target })
    };
    items.iter().filter_map(backend).collect()
}
