//! How each measure is shown and judged.
//!
//! In:  a [`Measure`].
//! Out: its title, its columns, and the figures that the mesh must not exceed.

use super::Measure;

/// One figure of a measure: its key and its title.
pub(crate) type Column = (&'static str, &'static str);

/// A figure that the mesh must not exceed.
pub(crate) struct Target {
    pub(crate) key: &'static str,
    pub(crate) at_most: f64,
    pub(crate) text: &'static str,
}

/// How a measure is shown and judged.
pub(crate) struct Sheet {
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
    /// The figure compared with `direct`, and the one compared with `haproxy`.
    pub(crate) against: [Option<&'static str>; 2],
    pub(crate) targets: &'static [Target],
}

const REQUESTS: &[Column] = &[
    ("per_second", "per s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("errors", "errors"),
    ("proxy_cpu", "proxies CPU s/100k"),
    ("all_cpu", "all CPU s/100k"),
];

const LATENCIES: &[Column] = &[
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("p999_ms", "p99.9 ms"),
    ("p99_added_ms", "p99 added ms"),
    ("errors", "errors"),
    ("proxy_cpu", "proxies CPU s/100k"),
];

const SCALE: Sheet = Sheet {
    title: "Scale: one daemon with 30 pods of its own beside those of a large cluster (API server, etcd)",
    columns: &[
        ("pods", "pods"),
        ("rss_mb", "MB"),
        ("full_rss_mb", "MB at 100,000"),
        ("peak_mb", "at most MB"),
        ("ready_s", "ready s"),
        ("per_second", "changes/s"),
        ("cpu_cores", "cores"),
        ("snapshots", "snapshots"),
        ("after_mb", "MB after"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99 ms"),
        ("compile_us", "compile us"),
        ("requests", "requests"),
    ],
    against: [None, None],
    targets: &[
        Target { key: "full_rss_mb", at_most: 60.0, text: "at most 60 MB in a cluster of 100,000 pods" },
        Target { key: "cpu_cores", at_most: 0.2, text: "at most 0.2 cores at 100 changes a second" },
    ],
};

const HTTP2: Sheet = Sheet {
    title: "HTTP/2 understood and routed: 8 connections of 8 streams (h2load)",
    columns: &[
        ("per_second", "per s"),
        ("errors", "errors"),
        ("proxy_cpu", "proxies CPU s/100k"),
        ("all_cpu", "all CPU s/100k"),
    ],
    against: [Some("all_cpu"), Some("proxy_cpu")],
    targets: &[Target { key: "proxy_cpu", at_most: 2.7, text: "HTTP/2 at most 2.7 CPU s/100k, both proxies" }],
};

const ROUTES: Sheet = Sheet {
    title: "Routes: one is changed among many, while requests pass",
    columns: &[
        ("routes", "routes"),
        ("changes", "changes"),
        ("p50_ms", "in force p50 ms"),
        ("max_ms", "max ms"),
        ("requests", "requests"),
        ("errors", "failed"),
    ],
    against: [None, None],
    targets: &[
        Target { key: "max_ms", at_most: 100.0, text: "a route among 10,000 in force in 100 ms" },
        Target { key: "errors", at_most: 0.0, text: "no request fails meanwhile" },
    ],
};

const POLICY: Sheet = Sheet {
    title: "Policies: one daemon with 100 pods of its own, those of a large cluster, and many policies",
    columns: &[
        ("whole_s", "from nothing s"),
        ("world_mb", "objects MB"),
        ("compiled_mb", "compiled MB"),
        ("change_p50_ms", "change p50 ms"),
        ("change_max_ms", "max ms"),
        ("l4_ns", "L4 p50 ns"),
        ("http_ns", "HTTP p50 ns"),
        ("crowded_ns", "L4 in every tier p50 ns"),
    ],
    against: [None, None],
    targets: &[
        Target { key: "change_max_ms", at_most: 50.0, text: "a change compiled in 50 ms" },
        Target { key: "l4_ns", at_most: 1_000.0, text: "a connection judged in 1 us, p50" },
        Target { key: "http_ns", at_most: 5_000.0, text: "a request judged in 5 us, p50" },
    ],
};

/// What requests cost.
const fn cost(title: &'static str, targets: &'static [Target]) -> Sheet {
    Sheet { title, columns: REQUESTS, against: [Some("all_cpu"), Some("proxy_cpu")], targets }
}

/// How long requests take.
const fn latency(title: &'static str, targets: &'static [Target]) -> Sheet {
    Sheet { title, columns: LATENCIES, against: [Some("p99_ms"), Some("p99_ms")], targets }
}

impl Measure {
    pub(crate) const fn sheet(self) -> Sheet {
        match self {
            Self::Idle => Sheet {
                title: "Idle: resident memory without traffic",
                columns: &[
                    ("rss_each_mb", "MB each"),
                    ("anonymous_each_mb", "of it no file's"),
                    ("rss_all_mb", "MB all"),
                    ("cpu_percent", "CPU %"),
                ],
                against: [None, Some("rss_each_mb")],
                targets: &[Target { key: "rss_each_mb", at_most: 12.0, text: "at most 12 MB for each daemon" }],
            },
            Self::Bulk => Sheet {
                title: "Bulk: one iperf3 stream between nodes",
                columns: &[("gbit", "Gbit/s"), ("proxy_cpu", "proxies CPU s/GB"), ("all_cpu", "all CPU s/GB")],
                against: [Some("all_cpu"), Some("proxy_cpu")],
                targets: &[Target { key: "proxy_cpu", at_most: 1.3, text: "at most 1.3 CPU s/GB, both proxies" }],
            },
            Self::Keepalive => cost(
                "Keepalive: HTTP/1.1 requests over 32 lasting connections (wrk)",
                &[Target { key: "proxy_cpu", at_most: 3.0, text: "at most 3.0 CPU s/100k, both proxies" }],
            ),
            Self::Connections => cost(
                "New connections: one request each, 32 at a time (wrk)",
                &[Target { key: "proxy_cpu", at_most: 15.0, text: "at most 15 CPU s/100k, both proxies" }],
            ),
            Self::Latency => latency(
                "Latency at 2,000 requests per second over 16 connections (open loop)",
                &[Target { key: "p99_added_ms", at_most: 1.2, text: "p99 at most 1.2 ms over direct" }],
            ),
            Self::Http1 => cost(
                "HTTP/1.1 understood and routed: requests over 32 lasting connections (wrk)",
                &[Target { key: "proxy_cpu", at_most: 3.75, text: "HTTP/1.1 at most 3.75 CPU s/100k, both proxies" }],
            ),
            Self::Http2 => HTTP2,
            Self::HttpLatency => latency(
                "Latency of routed requests of HTTP/1.1 at 2,000 per second over 16 connections (open loop)",
                &[Target { key: "p99_ms", at_most: 1.9, text: "routed p99 at most 1.9 ms" }],
            ),
            Self::Routes => ROUTES,
            Self::Held => Sheet {
                title: "Held: memory for each idle connection, both proxies",
                columns: &[
                    ("held", "held"),
                    ("failed", "failed"),
                    ("kb_daemon", "KB in each proxy"),
                    ("kb_each", "KB in both"),
                ],
                against: [None, Some("kb_each")],
                targets: &[Target {
                    key: "kb_each",
                    at_most: 8.0,
                    text: "at most 8 KB for each connection, both proxies",
                }],
            },
            Self::Workloads => Sheet {
                title: "Workloads: memory for each pod of the directory, one daemon",
                columns: &[
                    ("pods", "pods"),
                    ("kb_each", "KB each"),
                    ("rss_mb", "MB after"),
                    ("seconds", "s to take in"),
                    ("cpu_s", "CPU s"),
                ],
                against: [None, None],
                targets: &[],
            },
            Self::Pods => Sheet {
                title: "Pods: many on one node, added one after another, each with an identity of its own",
                columns: &[
                    ("pods", "pods"),
                    ("p50_ms", "ADD p50 ms"),
                    ("p99_ms", "p99 ms"),
                    ("max_ms", "max ms"),
                    ("kb_each", "KB each"),
                    ("rss_mb", "MB after"),
                ],
                against: [None, None],
                targets: &[],
            },
            Self::Scale => SCALE,
            Self::Policy => POLICY,
        }
    }
}
