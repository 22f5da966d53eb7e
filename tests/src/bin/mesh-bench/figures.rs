//! What is measured, against which target, and what the samples say.
//!
//! In:  [`Sample`]s of one run.
//! Out: one [`Summary`] for each measure: medians for each way, ratios, and whether the target is reached.
//! Invariant: pure; the same samples in any order give the same summaries.

mod sheets;

use serde::Serialize;
pub(crate) use sheets::{Sheet, Target};
use std::collections::BTreeMap;

/// A round in which other processes used more of the machine than this is marked, and left out if another is clean.
pub(crate) const FOREIGN_LIMIT: f64 = 0.25;

/// By which way a client reached its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// Nothing in between.
    Direct,
    /// Both pods enrolled.
    Mesh,
    /// haproxy beside both pods, mutual TLS between them.
    Haproxy,
    /// Envoy beside both pods, mutual TLS between them.
    Envoy,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Mesh, Self::Haproxy, Self::Envoy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Mesh => "mesh",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }
}

/// What a run measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Measure {
    /// Resident memory without traffic.
    Idle,
    /// One stream as fast as it goes.
    Bulk,
    /// Requests over connections that stay.
    Keepalive,
    /// A connection for each request.
    Connections,
    /// Latency at a fixed rate.
    Latency,
    /// Requests of HTTP/1.1 that are understood and routed.
    Http1,
    /// The same of HTTP/2.
    Http2,
    /// Latency of requests that are understood and routed, at a fixed rate.
    HttpLatency,
    /// A change of one route among many, under load.
    Routes,
    /// Memory for each connection that is held open.
    Held,
    /// Memory for each pod the daemon knows of.
    Workloads,
    /// Pods of one node: time to enrol and memory.
    Pods,
    /// One daemon in a large cluster: memory, and what following it costs. Only measured when it is asked for.
    Scale,
    /// Policies of a large cluster: changes, memory and decisions. Only measured when it is asked for.
    Policy,
}

impl Measure {
    pub(crate) const ALL: [Self; 14] = [
        Self::Idle,
        Self::Bulk,
        Self::Keepalive,
        Self::Connections,
        Self::Latency,
        Self::Http1,
        Self::Http2,
        Self::HttpLatency,
        Self::Routes,
        Self::Held,
        Self::Workloads,
        Self::Pods,
        Self::Scale,
        Self::Policy,
    ];

    /// What is measured unless something else is asked for.
    pub(crate) fn usual() -> Vec<Self> {
        Self::ALL.into_iter().filter(|measure| measure.is_staged()).collect()
    }

    /// Is it measured between pods of two nodes?
    pub(crate) const fn is_staged(self) -> bool {
        !matches!(self, Self::Scale | Self::Policy)
    }

    /// Are requests understood and routed?
    pub(crate) const fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::HttpLatency | Self::Routes)
    }
}

/// One load by one way, or one reading of memory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) measure: Measure,
    pub(crate) way: Way,
    pub(crate) round: usize,
    /// The share of the machine that processes outside this run used meanwhile.
    pub(crate) foreign: f64,
    pub(crate) figures: BTreeMap<&'static str, f64>,
}

/// What the samples of one measure say.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) measure: Measure,
    pub(crate) rows: Vec<Row>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// The samples of one way.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: Way,
    pub(crate) medians: BTreeMap<&'static str, f64>,
    pub(crate) rounds: usize,
    /// How many rounds other processes disturbed.
    pub(crate) disturbed: usize,
    pub(crate) foreign: f64,
    pub(crate) against_direct: Option<f64>,
    pub(crate) against_haproxy: Option<f64>,
}

/// Is the target reached?
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) target: &'static str,
    pub(crate) at_most: f64,
    pub(crate) measured: f64,
    pub(crate) reached: bool,
}

/// Summaries of every measure that has samples, in the order of [`Measure::ALL`].
pub(crate) fn summarize(samples: &[Sample]) -> Vec<Summary> {
    let samples = [Measure::Latency, Measure::HttpLatency]
        .into_iter()
        .fold(samples.to_vec(), |samples, measure| with_added_latency(measure, samples));
    Measure::ALL.into_iter().filter_map(|measure| summary(measure, &samples)).collect()
}

/// Adds `p99_added_ms`: over the `direct` sample of the same round.
fn with_added_latency(measure: Measure, mut samples: Vec<Sample>) -> Vec<Sample> {
    let direct: BTreeMap<usize, f64> = samples
        .iter()
        .filter(|sample| sample.measure == measure && sample.way == Way::Direct)
        .filter_map(|sample| Some((sample.round, *sample.figures.get("p99_ms")?)))
        .collect();
    for sample in samples.iter_mut().filter(|sample| sample.measure == measure) {
        if let (Some(p99), Some(base)) = (sample.figures.get("p99_ms").copied(), direct.get(&sample.round))
            && sample.way != Way::Direct
        {
            sample.figures.insert("p99_added_ms", p99 - base);
        }
    }
    samples
}

fn summary(measure: Measure, samples: &[Sample]) -> Option<Summary> {
    let sheet = measure.sheet();
    let mut rows: Vec<Row> = Way::ALL
        .into_iter()
        .filter_map(|way| {
            let all: Vec<&Sample> = samples.iter().filter(|s| s.measure == measure && s.way == way).collect();
            (!all.is_empty()).then(|| row(way, &all, &sheet))
        })
        .collect();
    if rows.is_empty() {
        return None;
    }
    let base = |way: Way, key: Option<&str>| rows.iter().find(|row| row.way == way)?.medians.get(key?).copied();
    let (direct, haproxy) = (base(Way::Direct, sheet.against[0]), base(Way::Haproxy, sheet.against[1]));
    for row in &mut rows {
        row.against_direct = ratio(&row.medians, sheet.against[0], direct);
        row.against_haproxy = ratio(&row.medians, sheet.against[1], haproxy);
    }
    let mesh = rows.iter().find(|row| row.way == Way::Mesh);
    let verdict = |target: &Target| {
        let measured = *mesh?.medians.get(target.key)?;
        Some(Verdict { target: target.text, at_most: target.at_most, measured, reached: measured <= target.at_most })
    };
    let verdicts = sheet.targets.iter().filter_map(verdict).collect();
    Some(Summary { measure, rows, verdicts })
}

fn row(way: Way, all: &[&Sample], sheet: &Sheet) -> Row {
    let clean: Vec<&Sample> = all.iter().copied().filter(|sample| sample.foreign <= FOREIGN_LIMIT).collect();
    let disturbed = all.len() - clean.len();
    let used = if clean.is_empty() { all } else { &clean };
    let medians = sheet
        .columns
        .iter()
        .filter_map(|&(key, _)| {
            let values = used.iter().filter_map(|sample| sample.figures.get(key).copied()).collect();
            Some((key, median(values)?))
        })
        .collect();
    let foreign = median(used.iter().map(|sample| sample.foreign).collect()).unwrap_or(0.0);
    Row { way, medians, rounds: all.len(), disturbed, foreign, against_direct: None, against_haproxy: None }
}

fn ratio(medians: &BTreeMap<&'static str, f64>, key: Option<&str>, base: Option<f64>) -> Option<f64> {
    let base = base.filter(|base| *base > 0.0)?;
    Some(medians.get(key?)? / base)
}

/// The middle value; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => values.get(middle).copied(),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The value that so many of a hundred do not exceed, of values in order.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(measure: Measure, way: Way, round: usize, foreign: f64, figures: &[(&'static str, f64)]) -> Sample {
        Sample { measure, way, round, foreign, figures: figures.iter().copied().collect() }
    }

    #[test]
    fn disturbed_rounds_are_left_out_when_a_clean_one_exists() {
        let samples = [
            sample(Measure::Bulk, Way::Mesh, 0, 0.1, &[("proxy_cpu", 1.0)]),
            sample(Measure::Bulk, Way::Mesh, 1, 0.9, &[("proxy_cpu", 9.0)]),
            sample(Measure::Bulk, Way::Haproxy, 0, 0.9, &[("proxy_cpu", 2.0)]),
        ];
        let summary = &summarize(&samples)[0];
        assert_eq!((summary.rows[0].medians["proxy_cpu"], summary.rows[0].disturbed), (1.0, 1));
        assert_eq!((summary.rows[1].medians["proxy_cpu"], summary.rows[1].disturbed), (2.0, 1));
        assert_eq!(summary.rows[0].against_haproxy, Some(0.5));
        assert!(summary.verdicts[0].reached);
    }

    #[test]
    fn added_latency_is_paired_by_round() {
        let mut samples = Vec::new();
        for (round, direct, mesh) in [(0, 1.0, 1.5), (1, 5.0, 5.6), (2, 2.0, 9.0)] {
            samples.push(sample(Measure::Latency, Way::Direct, round, 0.0, &[("p99_ms", direct)]));
            samples.push(sample(Measure::Latency, Way::Mesh, round, 0.0, &[("p99_ms", mesh)]));
        }
        let forward = summarize(&samples);
        samples.reverse();
        let verdict = summarize(&samples)[0].verdicts.first().map(|verdict| (verdict.measured * 10.0).round());
        assert_eq!(verdict, Some(6.0));
        assert_eq!(format!("{forward:?}"), format!("{:?}", summarize(&samples)));
    }

    #[test]
    fn the_median_of_nothing_is_nothing() {
        assert_eq!(median(Vec::new()), None);
        assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!([0, 50, 99, 100].map(|percent| percentile(&[1.0, 2.0, 3.0], percent)), [1.0, 2.0, 3.0, 3.0]);
    }
}
