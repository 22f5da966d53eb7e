//! Sets of addresses.
//!
//! In:  a NetworkSet or GlobalNetworkSet as written, with the labels that its user gave it.
//! Out: an [`AddressSet`] of the addresses that are understood.
//! Source: Calico `NetworkSet`, `GlobalNetworkSet`.

use crate::api::custom::Custom;
use crate::model::Labels;
use crate::model::policy::AddressSet;
use crate::translate::kube::network_policy::prefixes;
use crate::translate::read::Log;
use std::sync::Arc;

/// The set that an object is.
pub(super) fn set(log: &Log, object: &Custom, labels: Arc<Labels>) -> AddressSet {
    let mut fields = log.spec(&object.spec);
    let addresses = prefixes(&fields.take("nets").items());
    let namespace = &log.object().name.namespace;
    AddressSet { namespace: (!namespace.is_empty()).then(|| Arc::from(&**namespace)), labels, addresses }
}
