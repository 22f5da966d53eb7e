//! How connections to a port are routed that are no HTTP.
//!
//! In:  the rules of the VirtualService that holds for a client.
//! Out: a [`StreamTable`] for each client of this node.
//! Invariant: a rule that leads to nothing that can be used is there, and refuses.
//! Source: Istio `VirtualService.tcp` and `.tls`. On ports that speak TLS a connection that none of the rules for its client
//! matches is refused, as Istio's proxies refuse it; on others it goes to the service's own endpoints.

use super::attach::overruled;
use super::table::{At, applies};
use super::{ANYONE, Client, Place, Port, Traffic};
use crate::model::Issue;
use crate::model::http::{HttpRoute, RuleList, StreamMatch};
use crate::snapshot::http::{RouteOrigin, StreamAction, StreamPort, StreamRoute, StreamTable};
use std::sync::Arc;

impl<'m> Traffic<'m> {
    /// How connections to a port are routed, for everyone and for pods for which other rules hold.
    pub(super) fn streams(&self, port: Port<'_>, place: &Place, issues: &mut Vec<Issue>) -> Option<Arc<StreamPort>> {
        let list = RuleList::of_streams(port.protocol).filter(|_| self.may_have_routes(port))?;
        let default = self.routed_by(port, list, &ANYONE, issues);
        let own: Vec<_> = self.clients.iter().map(|client| self.routed_by(port, list, client, issues)).collect();
        if default.is_none() && own.iter().all(Option::is_none) {
            return None;
        }
        let mut table = |route: Option<&'m HttpRoute>, client| match route {
            None => StreamTable::default(),
            Some(route) => self
                .stream_table(list, At { port, place: Some(place), route, client, list, field: String::new(), issues }),
        };
        let default = table(default, &ANYONE);
        let own = self.clients.iter().zip(own).map(|(client, route)| (client, table(route, client))).collect();
        Some(Arc::new(super::per_client(default, own)))
    }

    /// The route whose rules hold for a client's connections to the port.
    fn routed_by(
        &self,
        port: Port<'_>,
        list: RuleList,
        client: &Client,
        issues: &mut Vec<Issue>,
    ) -> Option<&'m HttpRoute> {
        let routes = self.of_istio(port, client, list);
        let winner = *routes.first()?;
        self.taken.borrow_mut().extend(routes.iter().map(|route| (route.object.clone(), list)));
        issues.extend(routes[1..].iter().map(|route| overruled(route, winner, port)));
        Some(winner)
    }

    fn stream_table(&self, list: RuleList, mut at: At<'_, 'm>) -> StreamTable {
        let (port, client, mut routes) = (at.port, at.client, Vec::new());
        for (index, rule) in at.route.streams(list).iter().enumerate() {
            let everything = [StreamMatch::default()];
            let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
            let mut applying = matches.iter().filter(|found| applies(&found.scope, port, client)).peekable();
            if applying.peek().is_none() {
                continue;
            }
            let place = format!("{}[{index}]", list.name());
            at.field = format!("spec.{place}");
            let backends = rule.backends.iter().map(|of| (of.weight, self.destination(&of.target, &mut at))).collect();
            let origin = Arc::new(RouteOrigin { object: at.route.object.clone(), rule: place });
            let action = Arc::new(StreamAction { origin, backends });
            routes.extend(
                applying.map(|of| StreamRoute { condition: of.connection.clone(), action: Arc::clone(&action) }),
            );
        }
        let is_closed = list == RuleList::Tls && !routes.is_empty();
        StreamTable { routes: routes.into(), is_closed }
    }
}
