//! An answer for people.
//!
//! Invariant: names of objects are those that Kubernetes allows; what else was given is quoted, so that no text commands a terminal.

use super::{Answer, Step, What};
use std::fmt::Write as _;

/// The answer in lines.
#[must_use]
pub fn render(answer: &Answer) -> String {
    let mut page = String::new();
    // Memory takes every character.
    let _ = page_of(answer, &mut page);
    page
}

fn page_of(answer: &Answer, page: &mut String) -> std::fmt::Result {
    writeln!(page, "{} -> {}", answer.source, answer.destination)?;
    if let Some(entered) = &answer.entered {
        writeln!(page, "  enters by {}", entered.by.join(", "))?;
        steps_of(&entered.steps, page)?;
    }
    if let Some(rule) = &answer.route.rule {
        writeln!(page, "  routed by {rule}")?;
    }
    for note in &answer.route.notes {
        writeln!(page, "  {note}")?;
    }
    if let Some(answered) = &answer.route.answered {
        return writeln!(page, "NOT SENT: {answered}");
    }
    for way in &answer.ways {
        let share = way.share.as_ref().map_or_else(String::new, |share| format!("{share} "));
        writeln!(page, "  {share}to {}", way.to.join(", "))?;
        steps_of(&way.steps, page)?;
    }
    let allowed = answer.ways.iter().filter(|way| way.is_allowed()).count();
    match (allowed, answer.ways.len()) {
        (0, _) => writeln!(page, "DENIED"),
        (allowed, all) if allowed == all => writeln!(page, "ALLOWED"),
        (_, _) => writeln!(page, "ALLOWED to some, DENIED to others"),
    }
}

fn steps_of(steps: &[Step], page: &mut String) -> std::fmt::Result {
    for step in steps {
        let what = match step.what {
            What::Entering => "entering",
            What::Egress => "leaving",
            What::Protection => "protected",
            What::Ingress => "arriving",
        };
        let verdict = match (step.what, step.is_allowed) {
            (What::Protection, true) => "by",
            (_, true) => "allowed by",
            (_, false) => "DENIED by",
        };
        writeln!(page, "    {what:<9} {verdict} {}", step.by)?;
        for told in &step.told {
            writeln!(page, "              {told}")?;
        }
    }
    Ok(())
}
