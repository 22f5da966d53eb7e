//! The steps of the tour of the bank: who may do what is said by Calico's policies alone.

use super::File::Own;
use super::{PATIENCE, Stop, Tour, got, is_denied, wait};
use anyhow::{Context as _, Result, ensure};
use mesh_tests::Node;
use mesh_tests::http::Seen;
use serde_json::Value;

const DATABASE: super::File = Own("database.yaml");
const READS: super::File = Own("database-reads.yaml");
const SUMMARY: super::File = Own("summary.yaml");
const CUSTOMER: super::File = Own("customer.yaml");

/// What the page of the customer says.
const BALANCE: &str = "988.67";
const ACCOUNT: (&str, &str) = ("GET", "/accounts/519");

/// Every step, in order.
pub(super) const ALL: &[Stop] = &[
    Stop { title: "no policies: the page works, and anybody reads the database", files: &[], check: open },
    Stop {
        title: "the database is for pods with summary's label: an impostor has it, too",
        files: &[Own("database-by-label.yaml")],
        check: by_label,
    },
    Stop { title: "the database is for summary, who proves it", files: &[DATABASE], check: by_identity },
    Stop {
        title: "summary is for customer, and tells balances alone",
        files: &[DATABASE, SUMMARY],
        check: summary_for_customer,
    },
    Stop {
        title: "the page may be read, and nothing else",
        files: &[DATABASE, SUMMARY, CUSTOMER],
        check: page_is_read,
    },
    Stop {
        title: "somebody has taken summary over: it may read accounts, and not delete them",
        files: &[READS, SUMMARY, CUSTOMER],
        check: summary_taken_over,
    },
    Stop {
        title: "somebody has taken customer over: it reaches summary, and nothing else from its own node on",
        files: &[READS, SUMMARY, CUSTOMER, Own("customer-leaves.yaml")],
        check: customer_taken_over,
    },
];

fn open(tour: &Tour) -> Result<()> {
    page_works(tour)?;
    for by in ["visitor", "impostor", "customer"] {
        allowed(tour, by, "database", ACCOUNT)?;
    }
    allowed(tour, "visitor", "database", ("DELETE", "/accounts/519"))
}

fn by_label(tour: &Tour) -> Result<()> {
    denied(tour, "visitor", "database", ACCOUNT)?;
    denied(tour, "customer", "database", ACCOUNT)?;
    page_works(tour)?;
    allowed(tour, "impostor", "database", ACCOUNT)
}

fn by_identity(tour: &Tour) -> Result<()> {
    for by in ["impostor", "visitor", "customer"] {
        denied(tour, by, "database", ACCOUNT)?;
    }
    named(tour, (Node::B, "inbound"), "database")?;
    page_works(tour)
}

fn summary_for_customer(tour: &Tour) -> Result<()> {
    for by in ["impostor", "visitor"] {
        denied(tour, by, "summary", ("GET", "/balance"))?;
    }
    denied(tour, "customer", "summary", ("GET", "/balances"))?;
    denied(tour, "customer", "summary", ("POST", "/balance"))?;
    named(tour, (Node::A, "inbound"), "summary")?;
    page_works(tour)
}

fn page_is_read(tour: &Tour) -> Result<()> {
    denied(tour, "visitor", "customer", ("POST", "/"))?;
    denied(tour, "visitor", "customer", ("DELETE", "/"))?;
    named(tour, (Node::B, "inbound"), "customer")?;
    page_works(tour)
}

fn summary_taken_over(tour: &Tour) -> Result<()> {
    denied(tour, "summary", "database", ("DELETE", ACCOUNT.1))?;
    denied(tour, "summary", "database", ("GET", "/keys"))?;
    allowed(tour, "summary", "database", ACCOUNT)?;
    page_works(tour)
}

fn customer_taken_over(tour: &Tour) -> Result<()> {
    // It leaves no more, so that nobody has to refuse it.
    let outbound = || verdicts(tour, (Node::B, "outbound"), "customer-leaves");
    wait::until_true("customer is denied on its own node", PATIENCE, || {
        got(tour, "customer", "database", ACCOUNT)?;
        Ok(outbound()? > 0.0)
    })?;
    let arrived = verdicts(tour, (Node::B, "inbound"), "database")?;
    denied(tour, "customer", "database", ACCOUNT)?;
    ensure!(verdicts(tour, (Node::B, "inbound"), "database")? <= arrived, "it arrived nevertheless");
    page_works(tour)
}

/// The page shows the balance, which customer has of summary, and summary of the database.
fn page_works(tour: &Tour) -> Result<()> {
    let mut last = None;
    let waited = wait::until("the page works", PATIENCE, || {
        let seen = got(tour, "visitor", "customer", ("GET", "/"))?;
        last = Some(seen.clone());
        Ok((seen.status == 200).then_some(seen))
    });
    let page = waited.with_context(|| format!("the page is {last:?}"))?.body;
    let page: Value = serde_json::from_str(&page).with_context(|| format!("the page is {page}"))?;
    ensure!(page["balance"] == BALANCE, "the page is {page}");
    println!("      the page shows the balance, {BALANCE}");
    Ok(())
}

fn allowed(tour: &Tour, by: &str, service: &str, request: (&str, &str)) -> Result<()> {
    asked(tour, (by, service), request, "may", |seen| seen.status == 200)
}

fn denied(tour: &Tour, by: &str, service: &str, request: (&str, &str)) -> Result<()> {
    asked(tour, (by, service), request, "may not", is_denied)
}

fn asked(
    tour: &Tour,
    (by, service): (&str, &str),
    (method, path): (&str, &str),
    verdict: &str,
    is: impl Fn(&Seen) -> bool,
) -> Result<()> {
    let what = format!("{by} {verdict} {method} {path} of {service}");
    let mut last = None;
    let waited = wait::until_true(&what, PATIENCE, || {
        let seen = got(tour, by, service, (method, path))?;
        let met = is(&seen);
        last = Some(seen);
        Ok(met)
    });
    waited.with_context(|| format!("the answer is {last:?}"))?;
    println!("      {what}");
    Ok(())
}

/// A node has counted denials by the policy of this name.
fn named(tour: &Tour, at: (Node, &str), policy: &str) -> Result<()> {
    let count = verdicts(tour, at, policy)?;
    ensure!(count > 0.0, "no denial is counted for the policy {policy}");
    println!("      node {} counts {count} denials by the policy {policy}", at.0.name());
    Ok(())
}

fn verdicts(tour: &Tour, (node, side): (Node, &str), policy: &str) -> Result<f64> {
    let policy = format!("NetworkPolicy.projectcalico.org bank/{policy}");
    let labels = [("side", side), ("verdict", "denied"), ("policy", policy.as_str())];
    tour.stage.mesh.daemon(node)?.metric("mesh_policy_verdicts_total", &labels)
}
