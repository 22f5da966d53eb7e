//! How connections are balanced, bounded and protected.
//!
//! In:  `trafficPolicy` of a DestinationRule or of one of its subsets.
//! Out: [`TrafficPolicy`]s, for all ports and for single ones.
//! Source: Istio `TrafficPolicy` and its parts, with their defaults.

use super::{host, tls_settings};
use crate::model::http::{Balance, ConnectionLimits, HashKey, LocalityPreference, OutlierDetection, TrafficPolicy};
use crate::translate::read::{Fields, Place};
use crate::translate::text;
use std::collections::BTreeMap;
use std::time::Duration;

const MAGLEV: u32 = 65_537;

/// What holds for all ports, and for each that has a policy of its own.
pub(super) fn policy(place: &Place<'_>) -> (TrafficPolicy, BTreeMap<u16, TrafficPolicy>) {
    let mut ports = BTreeMap::new();
    let Some(mut fields) = place.fields() else { return (TrafficPolicy::default(), ports) };
    let all = settings(&mut fields);
    fields.take("tunnel").unsupported("there is no tunnel through a proxy; remove it");
    fields.take("proxyProtocol").unsupported("connections begin with what the application sends; remove it");
    fields.take("retryBudget").ignored("maxRetries bounds repetitions");
    for place in fields.take("portLevelSettings").items() {
        let Some(mut fields) = place.fields() else { continue };
        let policy = settings(&mut fields);
        match host::port_number(&mut fields) {
            Some(port) => drop(ports.insert(port, policy)),
            None => place.refuse("settings of a port need its number", "give `port.number`"),
        }
    }
    (all, ports)
}

fn settings(fields: &mut Fields<'_>) -> TrafficPolicy {
    let (balance, locality) = load_balancer(&fields.take("loadBalancer"));
    TrafficPolicy {
        balance,
        locality,
        limits: connection_pool(&fields.take("connectionPool")),
        outliers: outlier_detection(&fields.take("outlierDetection")),
        tls: tls_settings::tls(&fields.take("tls")),
    }
}

fn load_balancer(place: &Place<'_>) -> (Option<Balance>, Option<LocalityPreference>) {
    let Some(mut fields) = place.fields() else { return (None, None) };
    let simple = fields.take("simple").choice(&[
        ("ROUND_ROBIN", Some(Balance::RoundRobin)),
        ("LEAST_REQUEST", Some(Balance::LeastRequest)),
        ("LEAST_CONN", Some(Balance::LeastRequest)),
        ("RANDOM", Some(Balance::Random)),
        ("PASSTHROUGH", Some(Balance::Passthrough)),
        ("UNSPECIFIED", None),
    ]);
    let hash = fields.take("consistentHash");
    let hashed = consistent_hash(&hash);
    if simple.is_some() && hash.is_there() {
        fields.refuse("`simple` and `consistentHash` exclude each other", "keep one");
    }
    let mut locality = None;
    if let Some(mut fields) = fields.take("localityLbSetting").fields() {
        let preference = |enabled| if enabled { LocalityPreference::SameZone } else { LocalityPreference::None };
        locality = fields.take("enabled").bool().map(preference);
        for name in ["distribute", "failover", "failoverPriority"] {
            fields.take(name).ignored("endpoints of the client's zone come first, then all others alike");
        }
    }
    let warmup = "a new endpoint takes its full share at once";
    fields.take("warmup").ignored(warmup);
    fields.take("warmupDurationSecs").ignored(warmup);
    fields.take("zoneAwareLbSetting").ignored("localityLbSetting prefers the client's zone");
    (simple.flatten().or(hashed), locality)
}

fn consistent_hash(place: &Place<'_>) -> Option<Balance> {
    let mut fields = place.fields()?;
    let header = fields.take("httpHeaderName").parse("give the name of a header", text::header_name);
    let cookie = fields.take("httpCookie").fields().map(|mut fields| {
        fields.take("attributes").ignored("the cookie has its path and life, and no other attributes");
        HashKey::Cookie {
            name: fields.take("name").text().unwrap_or_default().to_owned(),
            path: fields.take("path").text().unwrap_or_default().to_owned(),
            life: fields.take("ttl").duration(),
        }
    });
    let source = fields.take("useSourceIp").bool().filter(|used| *used).map(|_| HashKey::Source);
    let query = fields.take("httpQueryParameterName").text().map(|name| HashKey::Query(name.to_owned()));
    let mut minimum = fields.take("minimumRingSize").number(0, 8 * 1_024 * 1_024).filter(|size| *size > 0);
    if let Some(mut fields) = fields.take("ringHash").fields() {
        minimum = fields.take("minimumRingSize").number(1, 8 * 1_024 * 1_024).or(minimum);
    }
    let maglev = fields.take("maglev").fields().map(|mut fields| {
        let size = fields.take("tableSize");
        let number = size.number(2, 5_000_011).unwrap_or(MAGLEV);
        if !is_prime(number) {
            size.refuse(format!("{number} is no prime"), "give a prime such as 65537");
        }
        number
    });
    let mut keys = [header.map(HashKey::Header), cookie, source, query].into_iter().flatten();
    let Some(key) = keys.next() else {
        fields.refuse("nothing says what is hashed", "give a header, a cookie, a parameter or useSourceIp");
        return None;
    };
    if keys.next().is_some() {
        fields.refuse("there is more than one thing to hash", "keep one");
    }
    Some(match maglev {
        Some(size) => Balance::Maglev { key, size },
        None => Balance::RingHash { key, minimum: minimum.unwrap_or(Balance::RING) },
    })
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..).take_while(|n| n * n <= number).all(|n| !number.is_multiple_of(n))
}

fn connection_pool(place: &Place<'_>) -> Option<ConnectionLimits> {
    let mut fields = place.fields()?;
    let mut limits = ConnectionLimits::default();
    // Zero is the default of every bound, and means that there is none.
    let number = |place: Place<'_>| place.number(0, i32::MAX.unsigned_abs()).filter(|number| *number > 0);
    if let Some(mut fields) = fields.take("tcp").fields() {
        limits.connections = number(fields.take("maxConnections"));
        limits.connect_timeout = fields.take("connectTimeout").duration().filter(|time| !time.is_zero());
        limits.idle_timeout = fields.take("idleTimeout").duration().filter(|time| !time.is_zero());
        fields.take("tcpKeepalive").ignored("a peer that is gone is found by the node's settings");
        fields.take("maxConnectionDuration").ignored("connections may last");
    }
    if let Some(mut fields) = fields.take("http").fields() {
        limits.pending = number(fields.take("http1MaxPendingRequests"));
        limits.requests = number(fields.take("http2MaxRequests"));
        limits.requests_per_connection = number(fields.take("maxRequestsPerConnection"));
        limits.retries = number(fields.take("maxRetries"));
        let idle = fields.take("idleTimeout").duration().filter(|time| !time.is_zero());
        limits.idle_timeout = idle.or(limits.idle_timeout);
        fields.take("h2UpgradePolicy").ignored("what is spoken is said by the service's port");
        fields.take("useClientProtocol").ignored("what is spoken is said by the service's port");
        fields.take("maxConcurrentStreams").ignored("the server says how many streams a connection takes");
        fields.take("http2KeepAlive").ignored("a peer that is gone is found by the node's settings");
    }
    Some(limits)
}

fn outlier_detection(place: &Place<'_>) -> Option<OutlierDetection> {
    let mut fields = place.fields()?;
    let mut errors = |name| fields.take(name).number(0, i32::MAX.unsigned_abs());
    let gateway = errors("consecutiveGatewayErrors");
    // The older name of the same.
    let gateway = errors("consecutiveErrors").filter(|_| gateway.is_none()).or(gateway);
    let server = errors("consecutive5xxErrors").unwrap_or(5);
    let local = "whatever fails is counted as an answer of 5xx";
    fields.take("splitExternalLocalOriginErrors").ignored(local);
    fields.take("consecutiveLocalOriginFailures").ignored(local);
    fields.take("outlierDetectionHttpErrorCodes").ignored("answers of 5xx are counted");
    let time = |place: Place<'_>, default| {
        place.duration().filter(|time| !time.is_zero()).unwrap_or(Duration::from_secs(default))
    };
    Some(OutlierDetection {
        consecutive_errors: (server > 0).then_some(server),
        consecutive_gateway_errors: gateway.filter(|errors| *errors > 0),
        interval: time(fields.take("interval"), 10),
        ejection: time(fields.take("baseEjectionTime"), 30),
        max_ejection_percent: fields.take("maxEjectionPercent").number(0, 100).unwrap_or(10),
        min_health_percent: fields.take("minHealthPercent").number(0, 100).unwrap_or(0),
    })
}
