//! Runs CNI plugins without another program's help.
//!
//! Source: CNI specification 1.0.0, "Section 2: Execution Protocol" and "Section 3: Execution of Network Configurations".

use super::{DEVICE, NETWORK, PATIENCE, Sandbox, cni_path};
use crate::exec::execute;
use crate::node::NodeNet;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Runs ADD of each plugin in turn; gives the last result, and how long the last plugin took. If one fails, what the
/// others did is undone.
pub(super) fn add(plugins: &[Value], node: &NodeNet, sandbox: &Sandbox) -> Result<(String, Duration)> {
    let mut previous = Value::Null;
    let mut took = Duration::ZERO;
    for plugin in plugins {
        let begun = Instant::now();
        let called = call("ADD", plugin, &previous, node, sandbox);
        took = begun.elapsed();
        match called {
            Ok(result) => previous = serde_json::from_str(&result).context("the result of a plugin is no JSON")?,
            Err(error) => {
                // The first failure is the one to tell.
                drop(delete(plugins, node, sandbox));
                return Err(error);
            }
        }
    }
    let result = previous.to_string();
    fs::write(result_file(node, sandbox), &result).context("cannot keep the result of CNI ADD")?;
    Ok((result, took))
}

/// Runs DEL of each plugin, the last first; every plugin gets its turn.
pub(super) fn delete(plugins: &[Value], node: &NodeNet, sandbox: &Sandbox) -> Result<()> {
    let previous = kept_result(node, sandbox);
    let mut failed = Ok(());
    for plugin in plugins.iter().rev() {
        let called = call("DEL", plugin, &previous, node, sandbox);
        failed = failed.and(called.map(drop));
    }
    if failed.is_ok() {
        // ADD may have failed before it kept anything.
        drop(fs::remove_file(result_file(node, sandbox)));
    }
    failed
}

/// Runs CHECK of each plugin in turn.
pub(super) fn check(plugins: &[Value], node: &NodeNet, sandbox: &Sandbox) -> Result<()> {
    let previous = kept_result(node, sandbox);
    plugins.iter().try_for_each(|plugin| call("CHECK", plugin, &previous, node, sandbox).map(drop))
}

fn call(verb: &str, plugin: &Value, previous: &Value, node: &NodeNet, sandbox: &Sandbox) -> Result<String> {
    let mut input = plugin.clone();
    input["cniVersion"] = json!("1.0.0");
    input["name"] = json!(NETWORK);
    if !previous.is_null() {
        input["prevResult"] = previous.clone();
    }
    let kind = plugin["type"].as_str().context("a plugin without `type`")?;
    let path = cni_path()?;
    let program = path
        .split(':')
        .map(|dir| PathBuf::from(dir).join(kind))
        .find(|program| program.is_file())
        .with_context(|| format!("no CNI plugin {kind} in {path}"))?;
    // Plugins read their configuration from standard input, and it is small.
    let input_file = node.dir().join(format!("{}-{kind}.json", sandbox.container_id));
    fs::write(&input_file, input.to_string()).context("cannot write a plugin's input")?;
    let mut command = node.ns().command("sh");
    command
        .args(["-c", "exec \"$0\" < \"$1\""])
        .arg(&program)
        .arg(&input_file)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &sandbox.container_id)
        .env("CNI_NETNS", &sandbox.netns)
        .env("CNI_IFNAME", DEVICE)
        .env("CNI_ARGS", sandbox.arguments())
        .env("CNI_PATH", &path);
    let output = execute(&mut command, PATIENCE)?;
    drop(fs::remove_file(&input_file));
    if !output.status.success() {
        bail!("CNI {verb} of {kind} failed: {}{}", output.stdout.trim(), output.stderr.trim());
    }
    Ok(output.stdout)
}

fn result_file(node: &NodeNet, sandbox: &Sandbox) -> PathBuf {
    node.dir().join(format!("{}.result", sandbox.container_id))
}

fn kept_result(node: &NodeNet, sandbox: &Sandbox) -> Value {
    fs::read_to_string(result_file(node, sandbox))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null)
}
