//! How connections that are no HTTP are routed, by what is seen of them before anything is carried.
//!
//! Out: [`StreamRule`] and its parts.
//! Source: Istio `TCPRoute`, `TLSRoute`, `L4MatchAttributes`, `TLSMatchAttributes`, of which the first rule that matches is used.

use super::{AppProtocol, BackendTarget, MatchScope};
use crate::model::policy::{Prefixes, Texts};
use std::net::IpAddr;

/// A list of rules that a route may have. Ports that speak different things are routed by different lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleList {
    /// For requests.
    Http,
    /// For connections of which nothing is read.
    Tcp,
    /// For connections on which applications speak TLS.
    Tls,
}

impl RuleList {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Tcp, Self::Tls];

    /// By which list connections to a port are routed that are no HTTP; `None` where there are none.
    #[must_use]
    pub const fn of_streams(protocol: AppProtocol) -> Option<Self> {
        match protocol {
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => None,
            AppProtocol::Undeclared | AppProtocol::Opaque => Some(Self::Tcp),
            AppProtocol::Tls => Some(Self::Tls),
        }
    }

    /// As Istio names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// One rule: which connections it matches and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRule {
    /// Any of these; empty matches every connection.
    pub matches: Vec<StreamMatch>,
    /// Connections go to one of these, by weight. Without any, or with weights of 0 alone, they are refused.
    pub backends: Vec<StreamBackend>,
}

/// One of several places that connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamBackend {
    /// Its share, relative to the sum of all.
    pub weight: u32,
    /// What it is.
    pub target: BackendTarget,
}

/// Conditions that must all be met. The default matches every connection of everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamMatch {
    /// What the connection must be.
    pub connection: ConnectionMatch,
    /// Where and for whom it holds.
    pub scope: MatchScope,
}

/// What a connection must be, all of it. The default matches every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionMatch {
    /// The server name that the client asks for in TLS, in small letters; `None` for any, and for none.
    pub sni: Option<Texts>,
    /// The address that was dialled; `None` for any.
    pub destinations: Option<Prefixes>,
}

impl ConnectionMatch {
    /// Is a connection to `destination` like this, whose client asks for the server `sni` in TLS, if for any?
    #[must_use]
    pub fn is_met(&self, sni: Option<&str>, destination: IpAddr) -> bool {
        self.sni.as_ref().is_none_or(|names| sni.is_some_and(|sni| names.matches(sni)))
            && self.destinations.as_ref().is_none_or(|prefixes| prefixes.contains(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{Prefix, Text};

    #[test]
    fn a_connection_meets_all_that_is_asked() {
        let here: Prefix = "10.0.0.0/24".parse().expect("a prefix");
        let names = [Text::Exact("a.example".into()), Text::Suffix(".b.example".into())];
        let found = ConnectionMatch {
            sni: Some(names.into_iter().collect()),
            destinations: Some([here].into_iter().collect()),
        };
        let address = |last: u8, third: u8| IpAddr::from([10, 0, third, last]);
        for (sni, to, is_met) in [
            (Some("a.example"), address(1, 0), true),
            (Some("x.b.example"), address(1, 0), true),
            (Some("b.example"), address(1, 0), false),
            (Some("a.example"), address(1, 1), false),
            (None, address(1, 0), false),
        ] {
            assert_eq!(found.is_met(sni, to), is_met, "{sni:?} {to}");
        }
        assert!(ConnectionMatch::default().is_met(None, address(1, 0)));
    }
}
