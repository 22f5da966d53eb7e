//! Tiers.
//!
//! In:  a Tier as written.
//! Out: a [`Tier`] of the network's chain; one whose end is not understood denies, and one whose order is not denies everything.
//! Source: Calico `Tier`.

use crate::api::custom::Custom;
use crate::model::policy::{End, Order, Tier};
use crate::translate::draft::understood;
use crate::translate::read::Log;

/// The tier that an object is.
pub(super) fn tier(log: &Log, object: &Custom) -> Tier {
    let mut fields = log.spec(&object.spec);
    let order = fields.take("order");
    let order = understood(log, || order.decimal());
    if order.is_none() {
        let problem = "it is not understood when it is asked, so what its policies are about is denied";
        log.note("spec", problem, "correct its order");
    }
    let action = fields.take("defaultAction");
    let words = [("Deny", End::Deny), ("Pass", End::Pass)];
    let end = understood(log, || action.choice(&words)).flatten();
    let (_, is_clear) = log.part(|| drop(fields));
    Tier {
        order: order.map(|order| order.map_or(Order::LAST, Order::at)),
        end: end.filter(|_| is_clear).unwrap_or(End::Deny),
    }
}
