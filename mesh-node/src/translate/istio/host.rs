//! Host names as Istio writes them, and for whom an object holds.
//!
//! In:  names that may be short, `exportTo`.
//! Out: full names; the service that one is; a [`Visibility`].
//! Source: Istio `VirtualService.hosts`, `Destination.host`: a name without a dot is a service of the object's own
//! namespace. `exportTo`: `.` is that namespace, `*` all, `~` none.

use crate::model::http::BackendTarget;
use crate::model::{Name, Text, Visibility};
use crate::translate::read::{Fields, Place};
use crate::translate::text;
use std::collections::BTreeSet;

/// The full name of a host, in small letters.
pub(super) fn full(host: &str, namespace: &str, domain: &str) -> Result<String, String> {
    if !text::is_host(host) {
        return Err(format!("`{host}` is no host name"));
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    Ok(if host == "*" || host.contains('.') { host } else { format!("{host}.{namespace}.svc.{domain}") })
}

/// The service of the cluster that a full host name is.
pub(super) fn service(host: &str, domain: &str) -> Option<Name> {
    let (name, namespace) = host.strip_suffix(domain)?.strip_suffix(".svc.")?.split_once('.')?;
    let is_service = name != "*" && !namespace.contains('.');
    is_service.then(|| Name::new(namespace, name))
}

/// Where requests go that are sent to a full host name.
pub(super) fn target(host: String, port: Option<u16>, subset: Option<String>, domain: &str) -> BackendTarget {
    match service(&host, domain) {
        Some(name) => BackendTarget::Service { name, port, subset },
        None => BackendTarget::Host { host, port, subset },
    }
}

/// The backend that a `destination` is; 503 for one that is not understood, as for a host that nobody knows.
pub(super) fn destination(place: &Place<'_>, namespace: &str, domain: &str) -> BackendTarget {
    const INVALID: BackendTarget = BackendTarget::Invalid { status: 503 };
    let Some(mut fields) = place.fields() else {
        place.refuse("there is no destination", "give one");
        return INVALID;
    };
    let host = fields.take("host");
    let full = host.parse("give the name of a host", |text| full(text, namespace, domain));
    let subset = fields.take("subset").text().filter(|subset| !subset.is_empty()).map(str::to_owned);
    let port = port_number(&mut fields);
    match full {
        Some(host) if !host.starts_with('*') => target(host, port, subset, domain),
        Some(_) | None => {
            host.refuse("requests go to one host", "give its name");
            INVALID
        }
    }
}

/// The share of one of so many destinations. That of the only one is not asked for.
pub(super) fn weight(place: &Place<'_>, of: usize) -> u32 {
    let weight = place.number(0, i32::MAX.unsigned_abs()).filter(|weight| *weight > 0);
    weight.unwrap_or(u32::from(of == 1))
}

/// `port: {number: ...}`.
pub(super) fn port_number(fields: &mut Fields<'_>) -> Option<u16> {
    fields.take("port").fields()?.take("number").port()
}

/// For whom an object of `namespace` holds. Without `exportTo` it holds for everyone.
pub(super) fn visibility(list: &Place<'_>, namespace: &Text) -> Visibility {
    let names = list.texts();
    if !list.is_there() || names.contains(&"*") {
        return Visibility::Everyone;
    }
    let namespaces: BTreeSet<Text> = names
        .into_iter()
        .filter(|name| *name != "~")
        .map(|name| if name == "." { namespace.clone() } else { Text::from(name) })
        .collect();
    Visibility::Namespaces(namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_dot_is_of_the_objects_namespace() {
        let full = |host| full(host, "shop", "cluster.local");
        assert_eq!(full("reviews"), Ok("reviews.shop.svc.cluster.local".to_owned()));
        assert_eq!(full("Reviews.bank.svc.cluster.local."), Ok("reviews.bank.svc.cluster.local".to_owned()));
        assert_eq!(full("*"), Ok("*".to_owned()));
        assert_eq!(full("*.com"), Ok("*.com".to_owned()));
        assert!(full("a b").is_err());
    }

    #[test]
    fn only_two_labels_before_the_suffix_are_a_service() {
        let service = |host| service(host, "cluster.local");
        assert_eq!(service("reviews.shop.svc.cluster.local"), Some(Name::new("shop", "reviews")));
        for host in
            ["*.shop.svc.cluster.local", "a.reviews.shop.svc.cluster.local", "reviews.shop", "svc.cluster.local"]
        {
            assert_eq!(service(host), None, "{host}");
        }
    }
}
