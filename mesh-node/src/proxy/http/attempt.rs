//! One attempt to have a request answered: a connection, the request, the head of its response.
//!
//! In:  an endpoint of an upstream, a request.
//! Out: the response with the connection it comes by, or why there is none and whether it may be tried again.
//! Invariant: a connection is given back only after its exchange has ended well.

use super::Downstream;
use super::body::Payload;
use super::pool::{self, Bounds, Lease, Peer, Place, Turn};
use super::upstream::{EndpointStanding, Standing};
use crate::model::http::{AppProtocol, UpstreamTls};
use crate::proxy::authorize::{self, Tell};
use crate::proxy::live::OneMore;
use crate::proxy::outbound;
use crate::proxy::refusal::{self, Refusal};
use crate::proxy::tls::outside::Server;
use crate::snapshot::http::Upstream;
use crate::snapshot::{NodeSnapshot, WorkloadEntry};
use crate::telemetry::{self, Security};
use http::uri::Scheme;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// How an attempt failed, as far as it matters for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No connection could be had; nothing was sent.
    Connect,
    /// The upstream broke off before it answered. `reused`: on a connection that had served before, which it may have
    /// been closing already.
    Reset {
        /// Had the connection served before?
        reused: bool,
    },
    /// HTTP/2's REFUSED_STREAM: the upstream did not act on it.
    RefusedStream,
    /// It took too long.
    Timeout,
    /// As much as the user allows is under way already.
    Overflow,
    /// A policy denies it, which is no failure.
    Denied,
}

/// A failed attempt.
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) refusal: Refusal,
    /// The request, if nothing of it was sent.
    pub(crate) unsent: Option<Box<Request<Payload>>>,
}

/// The head of a response, and what must live until its body has passed.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) held: Held,
}

/// What serves an exchange until its end.
pub(crate) struct Held {
    /// The connection.
    pub(crate) lease: Lease,
    /// It counts as a request of its upstream and of its endpoint.
    pub(crate) _under_way: (OneMore<Standing>, OneMore<EndpointStanding>),
}

/// What a request wants of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// In which it goes, unless the port there says another.
    pub(crate) version: Version,
    /// May the connection go over to another protocol?
    pub(crate) may_upgrade: bool,
    /// The host that it is for.
    pub(crate) host: &'a str,
}

/// Where an attempt goes.
pub(crate) struct Aim {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) standing: Rc<Standing>,
    pub(crate) place: Place,
    /// The pod there, if it is one.
    pub(crate) workload: Option<Arc<WorkloadEntry>>,
    /// Is the connection to be this request's alone, because it may go over to another protocol?
    pub(crate) may_upgrade: bool,
}

impl Aim {
    /// The endpoint, as the snapshot knows it, for one of this node's pods.
    ///
    /// **Errors**: a policy does not let the pod go there; nothing names the server that TLS is to prove.
    pub(crate) fn new(
        (upstream, standing): (&Arc<Upstream>, &Rc<Standing>),
        (down, endpoint): (&Downstream, SocketAddr),
        snapshot: &NodeSnapshot,
        Wanted { version, may_upgrade, host }: Wanted<'_>,
    ) -> Result<Self, Refusal> {
        let (worker, pod) = (&down.worker, &down.pod);
        authorize::leaving((worker, pod), snapshot, endpoint, Tell::Everything)?;
        let (workload, identity) = outbound::from(&pod.key, snapshot, endpoint, worker.feed.departure());
        let peer = match (&upstream.tls, identity) {
            (UpstreamTls::Mesh, Some(identity)) => Peer::Mesh(identity),
            (UpstreamTls::Mesh, None) | (UpstreamTls::Disable, _) => Peer::Plain,
            (UpstreamTls::Originate(policy), _) => {
                // Of many hosts under one name the server is the one that the request is for.
                let own = Some(&*upstream.service.host).filter(|own| !own.starts_with('*'));
                Peer::Outside(Arc::new(Server::new(policy, own.unwrap_or(host))?))
            }
        };
        let version = match upstream.protocol {
            AppProtocol::Http2 | AppProtocol::Grpc if !may_upgrade => Version::HTTP_2,
            _ if version == Version::HTTP_2 => Version::HTTP_2,
            AppProtocol::Http
            | AppProtocol::Undeclared
            | AppProtocol::Opaque
            | AppProtocol::Tls
            | AppProtocol::Http2
            | AppProtocol::Grpc => Version::HTTP_11,
        };
        Ok(Self {
            upstream: Arc::clone(upstream),
            standing: Rc::clone(standing),
            place: Place { endpoint, peer, version },
            workload,
            may_upgrade,
        })
    }

    /// The endpoint, as an attempt there is judged.
    pub(crate) fn at(&self) -> (&Standing, &Upstream, SocketAddr) {
        (&self.standing, &self.upstream, self.place.endpoint)
    }

    /// The scheme of a request that goes there.
    pub(crate) fn scheme(&self) -> Scheme {
        match self.place.peer {
            Peer::Outside(_) => Scheme::HTTPS,
            Peer::Plain | Peer::Mesh(_) => Scheme::HTTP,
        }
    }

    /// How connections there are protected.
    pub(crate) fn security(&self) -> Security {
        match self.place.peer {
            Peer::Mesh(_) => Security::MutualTls,
            Peer::Outside(_) => Security::Tls,
            Peer::Plain => Security::Plain,
        }
    }

    /// Sends a request.
    pub(crate) async fn send(&self, down: &Downstream, mut request: Request<Payload>) -> Result<Answer, Failure> {
        loop {
            let mut lease = match self.lease(down).await {
                Ok(lease) => lease,
                Err(failure) => return Err(Failure { unsent: Some(Box::new(request)), ..failure }),
            };
            let under_way = (
                OneMore::new(&self.standing, |standing| &standing.requests),
                OneMore::new(&self.standing.endpoint(self.place.endpoint), |standing| &standing.requests),
            );
            let reused = lease.is_reused();
            let mut error = match lease.send(request).await {
                Ok(response) => {
                    return Ok(Answer { response, held: Held { lease, _under_way: under_way } });
                }
                Err(error) => error,
            };
            let unsent = error.take_message();
            match unsent {
                // The connection was closed while it idled; that is no failure of the endpoint.
                Some(unsent) if reused => request = unsent,
                unsent => {
                    let error = error.into_error();
                    let kind = if unsent.is_some() {
                        Kind::Connect
                    } else if is_refused_stream(&error) {
                        Kind::RefusedStream
                    } else {
                        Kind::Reset { reused }
                    };
                    let refusal = Refusal::new(refusal::UPSTREAM_RESET, telemetry::explain(&error));
                    return Err(Failure { kind, refusal, unsent: unsent.map(Box::new) });
                }
            }
        }
    }

    async fn lease(&self, down: &Downstream) -> Result<Lease, Failure> {
        let _maker = match self.may_upgrade {
            true => None,
            false => match down.pod.http.pool.turn(&down.pod, &self.place).await {
                Turn::Open(lease) => return Ok(lease),
                Turn::Make(maker) => maker,
            },
        };
        let limits = &self.upstream.limits;
        if limits.connections.is_some_and(|most| self.standing.connections.get() >= most) {
            let detail = format!("{} has as many connections as its traffic policy allows", self.upstream.key);
            return Err(Failure {
                kind: Kind::Overflow,
                refusal: Refusal::new(refusal::OVERFLOW, detail),
                unsent: None,
            });
        }
        let bounds = Bounds {
            connect_timeout: limits.connect_timeout,
            idle: limits.idle_timeout,
            requests: limits.requests_per_connection,
        };
        // It is rare, and large while it lasts.
        let opening = pool::open((&down.worker, &down.pod), &self.place, (bounds, &self.standing), self.may_upgrade);
        Box::pin(opening).await.map_err(|refusal| {
            let kind = if refusal.reason == refusal::POLICY_DENIED { Kind::Denied } else { Kind::Connect };
            Failure { kind, refusal, unsent: None }
        })
    }
}

fn is_refused_stream(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        cause = error.source();
    }
    false
}
