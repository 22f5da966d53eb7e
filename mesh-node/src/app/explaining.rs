//! `mesh-node why` and `mesh-node lint`.
//!
//! In:  a question, or a tree of objects.
//! Out: the answer, or the issues, on standard output.
//! Invariant: nothing is changed, and no daemon is needed where objects are given.

use super::AppError;
use crate::admin;
use crate::api::apps::Plan;
use crate::compile::{self, Compiler};
use crate::config::{Lint, Names, Why};
use crate::model::Identity;
use crate::source::file;
use crate::translate;
use crate::why::{self, Question, Request};
use crate::world::World;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Answers why.
///
/// **Errors**: the objects cannot be read, the daemon does not answer, or the question is not clear.
pub(super) fn why(why: Why, runtime: &Runtime) -> Result<(), AppError> {
    let Why { source, destination, port, method, path, host, headers, sni, .. } = why;
    let request = method.map(|method| Request { method, path, host, headers });
    let question = Question { source, destination, port, request, sni };
    let answer = match why.objects {
        Some(directory) => {
            let (names, settings) = settings(&why.names);
            let (world, plans) = read(directory)?;
            for fault in world.faults() {
                eprintln!("{fault}");
            }
            why::ask_about_plans((world, &plans), names, settings, &question)?
        }
        None => runtime.block_on(admin::status::why(why.admin_addr, &question))?,
    };
    if why.json {
        let json = serde_json::to_string_pretty(&answer).map_err(AppError::Answer)?;
        println!("{json}");
    } else {
        print!("{}", why::render(&answer));
    }
    Ok(())
}

/// Lists what is wrong with a tree of objects.
///
/// **Errors**: it cannot be read, or something is wrong with it.
pub(super) fn lint(lint: Lint) -> Result<(), AppError> {
    let (names, settings) = settings(&lint.names);
    let (world, _) = read(lint.objects)?;
    let issues = Compiler::of(&world, names, settings).snapshot().issues;
    for issue in issues.iter() {
        println!("{issue}");
    }
    match issues.len() {
        0 => Ok(()),
        issues => Err(AppError::Lint { issues }),
    }
}

/// A tree of objects; `-` is standard input.
fn read(objects: PathBuf) -> Result<(World, Vec<Plan>), AppError> {
    let is_stream = objects.as_os_str() == "-";
    let tree = if is_stream { file::read_stream(std::io::stdin())? } else { file::read_once(objects)? };
    let mut world = World::default();
    for change in tree.changes {
        world.apply(change);
    }
    Ok((world, tree.plans))
}

fn settings(names: &Names) -> (translate::Settings, compile::Settings) {
    let Names { trust_domain, cluster_domain, root_namespace } = names;
    let translate = translate::Settings {
        trust_domain: trust_domain.as_str().into(),
        root_namespace: root_namespace.clone(),
        cluster_domain: cluster_domain.clone(),
        installation: None,
    };
    let (cluster_domain, root_namespace) = (cluster_domain.clone(), root_namespace.clone());
    let presumed = compile::Settings::default();
    let edge = Identity { trust_domain: trust_domain.as_str().into(), ..Identity::clone(&presumed.edge) };
    (translate, compile::Settings { cluster_domain, root_namespace, edge: Arc::new(edge), ..presumed })
}
