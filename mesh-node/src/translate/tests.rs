use super::{Settings, translate};
use crate::model::{Issue, Model, Name};
use crate::world::fixture::world;
use crate::world::{Attachment, Change};
use expect_test::{Expect, expect};
use std::fmt::Write;

mod istio;
mod kube;
mod policies;
mod routes;

fn model(yaml: &str) -> (Model, Vec<Issue>) {
    translate(&world(yaml), &Settings::default())
}

fn lines(issues: &[Issue]) -> String {
    issues.iter().fold(String::new(), |text, issue| text + &issue.to_string() + "\n")
}
