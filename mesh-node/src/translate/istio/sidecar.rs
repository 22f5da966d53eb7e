//! Sidecars: what a proxy of one pod would be told.
//!
//! In:  a Sidecar as written.
//! Out: issues alone: a node knows every service, so that there is nothing to leave out.
//! Source: Istio `Sidecar`.

use crate::api::custom::Custom;
use crate::translate::read::Log;

const HINT: &str = "every pod knows every service";

/// Reads a Sidecar.
pub(in crate::translate) fn sidecar(log: &Log, object: &Custom) {
    let mut fields = log.spec(&object.spec);
    if let Some(mut selector) = fields.take("workloadSelector").fields() {
        selector.take("labels").ignored(HINT);
    }
    for place in fields.take("egress").items() {
        let Some(mut fields) = place.fields() else { continue };
        fields.take("hosts").ignored(HINT);
        for name in ["port", "bind", "captureMode"] {
            fields.take(name).ignored("traffic is taken wherever a pod sends it");
        }
    }
    fields.take("ingress").ignored("a pod is reached on its own ports");
    fields.take("inboundConnectionPool").ignored("connections are bounded by the DestinationRule of their service");
    fields.take("outboundTrafficPolicy").ignored("where a pod may connect to is said by policy");
}
