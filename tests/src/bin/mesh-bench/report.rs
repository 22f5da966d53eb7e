//! The figures as tables for people and as JSON.
//!
//! In:  [`Summary`]s, and the samples they come from.
//! Out: text; a file.
//! Invariant: a figure that was not measured is shown as a dash, never as zero.

use crate::figures::{FOREIGN_LIMIT, Sample, Summary, Way};
use anyhow::Context as _;
use mesh_tests::table::aligned;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// The whole report.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) notes: &'a [String],
    pub(crate) summaries: &'a [Summary],
    pub(crate) samples: &'a [Sample],
}

/// Where it was measured.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    pub(crate) haproxy: String,
}

/// Writes the report as JSON.
pub(crate) fn save(report: &Report<'_>, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report).context("a figure is not a number")?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// One measure as a table.
pub(crate) fn table(summary: &Summary) -> String {
    let sheet = summary.measure.sheet();
    let mut head = vec!["way".to_owned()];
    head.extend(sheet.columns.iter().map(|(_, title)| (*title).to_owned()));
    head.extend(["x direct", "x haproxy", "foreign CPU", "rounds"].map(str::to_owned));
    let mut lines = vec![head];
    for row in &summary.rows {
        let mut line = vec![row.way.name().to_owned()];
        line.extend(sheet.columns.iter().map(|(key, _)| figure(row.medians.get(key).copied())));
        line.push(figure(row.against_direct.filter(|_| row.way != Way::Direct)));
        line.push(figure(row.against_haproxy.filter(|_| row.way == Way::Mesh)));
        line.push(format!("{:.0} %", row.foreign * 100.0));
        line.push(if row.disturbed == 0 {
            row.rounds.to_string()
        } else {
            format!("{} ({} disturbed)", row.rounds, row.disturbed)
        });
        lines.push(line);
    }
    let mut text = format!("\n{}\n{}", sheet.title, aligned(&lines, 1));
    for verdict in &summary.verdicts {
        let word = if verdict.reached { "reached" } else { "MISSED" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  target: {}: {word} ({})", verdict.target, figure(Some(verdict.measured)));
    }
    if summary.rows.iter().any(|row| row.disturbed > 0) {
        let _ = writeln!(
            text,
            "  disturbed: other processes used more than {:.0} % of the machine in such rounds; they count only where no other round does",
            FOREIGN_LIMIT * 100.0
        );
    }
    text
}

/// All targets in one table.
pub(crate) fn verdicts(summaries: &[Summary]) -> String {
    let mut lines = vec![["target", "measured", ""].map(str::to_owned).to_vec()];
    if summaries.iter().all(|summary| summary.verdicts.is_empty()) {
        return String::new();
    }
    for verdict in summaries.iter().flat_map(|summary| &summary.verdicts) {
        let word = if verdict.reached { "reached" } else { "MISSED" };
        lines.push(vec![verdict.target.to_owned(), figure(Some(verdict.measured)), word.to_owned()]);
    }
    format!("\nTargets\n{}", aligned(&lines, 1))
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Measure, summarize};

    #[test]
    fn a_table_shows_ratios_and_the_target() {
        let sample = |way, cpu| Sample {
            measure: Measure::Bulk,
            way,
            round: 0,
            foreign: 0.02,
            figures: [("gbit", 10.0), ("proxy_cpu", cpu), ("all_cpu", cpu + 0.5)].into(),
        };
        let samples = [sample(Way::Direct, 0.0), sample(Way::Mesh, 1.5), sample(Way::Haproxy, 3.0)];
        let text = table(&summarize(&samples)[0]);
        assert!(text.contains("MISSED (1.50)"), "{text}");
        let mesh = text.lines().find(|line| line.trim_start().starts_with("mesh")).unwrap();
        assert_eq!(
            mesh.split_whitespace().collect::<Vec<_>>(),
            ["mesh", "10.0", "1.50", "2.00", "4.00", "0.50", "2", "%", "1"]
        );
    }
}
