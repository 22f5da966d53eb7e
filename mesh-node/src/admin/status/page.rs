//! Writes the status page.
//!
//! In:  a [`Status`].
//! Out: aligned text.
//! Invariant: pure; control characters are replaced.

use super::Status;
use crate::admin::view::{Issue, Learnt, Pod, Readiness};
use std::collections::{BTreeMap, BTreeSet};

/// `status` as a page for people.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut page = String::new();
    write_head(&mut page, status);
    write_watched(&mut page, status);
    write_pods(&mut page, &status.snapshot.pods);
    write_connections(&mut page, &status.connections);
    write_refused(&mut page, &status.refused);
    write_learnt(&mut page, &status.snapshot.learnt);
    write_issues(&mut page, &status.snapshot.issues);
    page
}

fn write_head(page: &mut String, status: &Status) {
    let version = status.version.as_ref().map(|version| format!(" {}", clean(version))).unwrap_or_default();
    let Readiness { ready, missing } = &status.readiness;
    let state = if *ready { "ready" } else { "NOT READY" };
    page.push_str(&format!("mesh-node{version} at {}: {state}\n", status.address));
    for missing in missing {
        page.push_str(&format!("  missing: {}\n", clean(missing)));
    }
    if let Some(chain) = &status.chain {
        page.push_str(&format!("  plugin in the runtime's chain: {}\n", clean(chain)));
    }
}

fn write_watched(page: &mut String, status: &Status) {
    if status.watched.is_empty() {
        return;
    }
    let stale = if status.stale { ": NOT HEARD YET, objects of an earlier run are in force" } else { "" };
    page.push_str(&format!("\nKubernetes API{stale}\n"));
    let rows = status.watched.iter().map(|(kind, watched)| {
        let connected = if watched.connected { "yes" } else { "NO" };
        [clean(kind), watched.objects.to_string(), connected.to_owned()]
    });
    write_table(page, ["KIND", "OBJECTS", "CONNECTED"].map(str::to_owned), rows);
}

fn write_pods(page: &mut String, pods: &[Pod]) {
    page.push_str(&format!("\nPods ({})\n", pods.len()));
    if pods.is_empty() {
        return page.push_str("  none of this node is in the mesh\n");
    }
    let head = ["POD", "ADDRESSES", "STEERED", "CERTIFICATE UNTIL", "OPEN", "TO POD", "FROM POD", "IDENTITY"];
    let rows = pods.iter().map(|pod| {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        [
            clean(&pod.name),
            addresses.join(","),
            if pod.enrolled { "yes".into() } else { "NO".into() },
            pod.certificate_expires.as_deref().map_or_else(|| "NONE YET".into(), clean),
            pod.connections.to_string(),
            bytes(pod.bytes_sent),
            bytes(pod.bytes_received),
            clean(&pod.identity),
        ]
    });
    write_table(page, head.map(str::to_owned), rows);
}

fn write_connections(page: &mut String, connections: &BTreeMap<(String, String), u64>) {
    page.push_str("\nConnections so far\n");
    let count = |side: &str, security: &str| {
        connections.get(&(side.to_owned(), security.to_owned())).copied().unwrap_or_default().to_string()
    };
    let rows = ["outbound", "inbound"].map(|side| [side.to_owned(), count(side, "mutual_tls"), count(side, "none")]);
    write_table(page, ["SIDE", "MUTUAL TLS", "PLAIN TEXT"].map(str::to_owned), rows.into_iter());
}

fn write_refused(page: &mut String, refused: &BTreeMap<(String, String), u64>) {
    let total: u64 = refused.values().sum();
    page.push_str(&format!("\nRefused so far ({total})\n"));
    let reasons: BTreeSet<&String> = refused.iter().filter(|(_, count)| **count > 0).map(|((_, by), _)| by).collect();
    if reasons.is_empty() {
        return page.push_str("  none\n");
    }
    let count = |side: &str, reason: &String| {
        refused.get(&(side.to_owned(), reason.clone())).copied().unwrap_or_default().to_string()
    };
    let rows = reasons.into_iter().map(|reason| [clean(reason), count("outbound", reason), count("inbound", reason)]);
    write_table(page, ["REASON", "OUTBOUND", "INBOUND"].map(str::to_owned), rows);
}

/// What connections to ports are treated as that do not say what they speak: each as it begins, and who says nothing as the last did.
fn write_learnt(page: &mut String, learnt: &[Learnt]) {
    if learnt.is_empty() {
        return;
    }
    page.push_str(&format!("\nSeen on ports that do not say what they speak ({})\n", learnt.len()));
    let time = |time: &Option<String>| time.as_deref().map_or_else(|| "-".to_owned(), clean);
    let rows = learnt.iter().map(|seen| {
        let service = if seen.service.is_empty() { "-".to_owned() } else { clean(&seen.service) };
        [seen.address.to_string(), service, time(&seen.http), time(&seen.other)]
    });
    write_table(page, ["ADDRESS", "SERVICE", "HTTP SINCE", "OTHER BYTES SINCE"].map(str::to_owned), rows);
}

fn write_issues(page: &mut String, issues: &[Issue]) {
    page.push_str(&format!("\nIssues ({})\n", issues.len()));
    if issues.is_empty() {
        page.push_str("  none\n");
    }
    for issue in issues {
        let field = if issue.field.is_empty() { String::new() } else { format!(", {}", clean(&issue.field)) };
        page.push_str(&format!("  {}{field}\n", clean(&issue.object)));
        page.push_str(&format!("    {}\n    cure: {}\n", clean(&issue.problem), clean(&issue.cure)));
    }
}

/// Columns as wide as their widest cell, two spaces apart.
fn write_table<const N: usize>(page: &mut String, head: [String; N], rows: impl Iterator<Item = [String; N]>) {
    let table: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &table {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        page.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
}

/// A number of bytes, in the largest unit that leaves it above one.
fn bytes(count: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in units {
        if count >= size {
            let tenths = u128::from(count) * 10 / u128::from(size);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// Text of unknown origin, harmless to a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
