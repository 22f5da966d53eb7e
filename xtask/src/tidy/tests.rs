use super::source::Source;
use super::{File, check, layers, shape, tree, words};
use expect_test::{Expect, expect};

/// A module's head that satisfies every rule, on one line.
const HEAD: &str = "//! In: it. Out: it.\n";

fn source(path: &str, text: &str, expected: Expect) {
    let mut findings = check(&Source::parse(path, &format!("{HEAD}{text}")));
    findings.sort();
    let text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    expected.assert_eq(&text);
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), bytes: text.len() as u64, text: Some(text.to_owned()) }
}

#[test]
fn an_import_from_a_higher_layer_is_found_however_it_is_written() {
    let expected = expect![[r"
        mesh-node/src/route.rs:2: layers: `route` may not import `proxy`, only model: pass what it needs in, or move it to a lower layer
        mesh-node/src/route.rs:4: layers: `route` may not import `control`, only model: pass what it needs in, or move it to a lower layer
        mesh-node/src/route.rs:4: layers: `route` may not import `steer`, only model: pass what it needs in, or move it to a lower layer
        mesh-node/src/route.rs:7: layers: `route` may not import `proxy`, only model: pass what it needs in, or move it to a lower layer
        mesh-node/src/route.rs:8: layers: `route` may not import `compile`, only model: pass what it needs in, or move it to a lower layer
    "]];
    let text = "use crate::proxy::Worker;
use crate::model::Name;
use crate::{control, model::{Name as N, Identity}, steer::{self as kernel}};
// crate::proxy in a comment
const TEXT: &str = \"crate::proxy\"; const RAW: &str = r#\"use \"crate::proxy\"\"#; const C: char = '\"';
fn f<'a>(x: &'a str) -> crate::proxy::Worker<'a> { /* crate::steer /* nested */ */ todo(x) }
use super::compile::Compiler;
";
    source("mesh-node/src/route.rs", text, expected);
}

#[test]
fn super_counts_modules_on_disk_and_in_line() {
    let text = "use super::route::Own;\nuse super::super::proxy;\nmod inner { use super::super::proxy; use super::super::super::proxy; }\n";
    let expected = expect![[r"
        mesh-node/src/steer/rule.rs:3: layers: `steer` may not import `proxy`, only snapshot, model, sys, telemetry: pass what it needs in, or move it to a lower layer
        mesh-node/src/steer/rule.rs:4: layers: `steer` may not import `proxy`, only snapshot, model, sys, telemetry: pass what it needs in, or move it to a lower layer
    "]];
    source("mesh-node/src/steer/rule.rs", text, expected);
}

#[test]
fn importing_everything_hides_what_is_imported() {
    let expected = expect![[r"
        mesh-node/src/steer.rs:2: layers: name what you import, so that it is seen whether it may be
    "]];
    source("mesh-node/src/steer.rs", "use crate::*;\n", expected);
}

#[test]
fn a_module_without_a_layer_is_found() {
    let expected = expect![[r"
        mesh-node/src/extra.rs:1: layers: `extra` has no layer: give it one in xtask/src/tidy/layers.rs
    "]];
    source("mesh-node/src/extra.rs", "", expected);
}

#[test]
fn test_code_may_import_what_it_tests_with() {
    let text = "#[cfg(test)]\nmod tests { use crate::app::App; fn f() { std::fs::read(\"x\"); } }\n#[cfg(test)]\nuse crate::app;\n";
    source("mesh-node/src/model.rs", text, expect![[""]]);
    source("mesh-node/src/model/tests.rs", "use crate::app::App;\n", expect![[""]]);
    let after = "#[cfg(test)]\nmod tests { }\nuse crate::app::App;\n";
    let expected = expect![[r"
        mesh-node/src/model.rs:4: layers: `model` may not import `app`, only nothing of this crate: pass what it needs in, or move it to a lower layer
    "]];
    source("mesh-node/src/model.rs", after, expected);
}

#[test]
fn the_table_has_no_cycle() {
    let mut settled: Vec<&str> = Vec::new();
    loop {
        let before = settled.len();
        for (module, allowed) in layers::table() {
            if !settled.contains(&module) && allowed.iter().all(|allowed| settled.contains(allowed)) {
                settled.push(module);
            }
        }
        if settled.len() == before {
            break;
        }
    }
    assert_eq!(settled.len(), layers::table().count(), "only these are free of cycles: {settled:?}");
}

#[test]
fn the_pure_middle_does_not_look_at_the_world() {
    let text = "use std::{fs, collections::BTreeMap};
use tokio::sync::watch;
pub async fn f() { tracing::info!(\"x\"); let now = std::time::SystemTime::now(); }
fn g(at: std::time::SystemTime) -> u64 { fastrand::u64(..) }
";
    let expected = expect![[r"
        mesh-node/src/compile/x.rs:2: purity: `std::fs` in `compile`, which only decides: take what the file says as an argument
        mesh-node/src/compile/x.rs:3: purity: `tokio::sync::watch` in `compile`, which only decides: deciding does not wait
        mesh-node/src/compile/x.rs:4: purity: `async` in `compile`, which only decides: deciding does not wait
        mesh-node/src/compile/x.rs:4: purity: `std::time::SystemTime::now` in `compile`, which only decides: take the time as an argument
        mesh-node/src/compile/x.rs:4: purity: `tracing::info` in `compile`, which only decides: return an Issue
        mesh-node/src/compile/x.rs:5: purity: `fastrand::u64` in `compile`, which only decides: leave choices to whoever acts
    "]];
    source("mesh-node/src/compile/x.rs", text, expected);
    source("mesh-node/src/proxy.rs", text, expect![[""]]);
}

#[test]
fn unsafe_code_has_few_homes() {
    let text = "#![deny(unsafe_code)]\n// unsafe\nfn f() { unsafe { g() } }\n";
    let expected = expect![[r"
        mesh-cni/src/add.rs:4: unsafe: unsafe code lives in mesh-node/src/sys.rs, mesh-node/src/sys/, mesh-common/src/pod.rs, mesh-ebpf/ only
    "]];
    source("mesh-cni/src/add.rs", text, expected);
    source("mesh-node/src/sys/socket.rs", text, expect![[""]]);
}

#[test]
fn names_say_what_a_thing_does() {
    let text = "struct PodManager; fn get_pod() {}\nmod util {}\nstruct Handlers; fn get() {}\n";
    let expected = expect![[r"
        mesh-cni/src/add.rs:2: names: `PodManager` says nothing of what it does: name it by that
        mesh-cni/src/add.rs:2: names: `get_pod` says nothing of what it does: name it by that
        mesh-cni/src/add.rs:3: names: `util` says nothing of what it does: name it by that
    "]];
    source("mesh-cni/src/add.rs", text, expected);
}

#[test]
fn tests_do_not_pause_and_do_run() {
    let text =
        "#[test]\n#[ignore = \"slow\"]\nfn f() { std::thread::sleep(D); command(\"sleep\"); }\nfn g() { sleep(D); }\n";
    let expected = expect![[r"
        mesh-cni/src/add.rs:3: ignore: a test that does not run proves nothing: make it run, or take it out
        mesh-cni/src/add.rs:4: sleep: wait for a condition, with a deadline
    "]];
    source("mesh-cni/src/add.rs", text, expected);
}

#[test]
fn a_module_says_what_it_takes_and_gives() {
    let findings = |path, text| shape::findings(&Source::parse(path, text)).len();
    assert_eq!(findings("mesh-node/src/steer.rs", "fn f() {}\n"), 1);
    assert_eq!(findings("mesh-node/src/steer.rs", "//! Steers.\n"), 1);
    assert_eq!(findings("mesh-node/src/steer.rs", "//! Steers.\n//!\n//! Invariant: it does.\n"), 0);
    assert_eq!(findings("mesh-node/src/steer/rule.rs", "//! A rule.\n"), 0);
    assert_eq!(findings("mesh-node/src/steer/mod.rs", "//! A rule.\n"), 1);
}

#[test]
fn long_files_are_found_and_tests_do_not_count() {
    let long = format!("{HEAD}{}", "fn f() {}\n".repeat(600));
    assert_eq!(check(&Source::parse("mesh-cni/src/add.rs", &long)).len(), 1);
    let tests = format!("{HEAD}#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(600));
    assert_eq!(check(&Source::parse("mesh-cni/src/add.rs", &tests)).len(), 0);
    let main = format!("{HEAD}{}", "fn f() {}\n".repeat(60));
    assert_eq!(check(&Source::parse("mesh-node/src/main.rs", &main)).len(), 1);
}

#[test]
fn the_first_level_is_fixed_and_complete() {
    let mut files: Vec<_> = ["README.md", "CONTRIBUTING.md", "Cargo.lock", "rust-toolchain.toml", ".ci/run"]
        .map(|path| file(path, ""))
        .into();
    files.push(file("LICENSE", "MIT"));
    files.push(file("scripts/run.sh", ""));
    files.push(file("mesh-cni/Cargo.toml", "[package]\n[dependencies]\naya = \"0.16\"\n"));
    files.push(File { path: "tests/big".to_owned(), bytes: 2 << 20, text: None });
    let found: Vec<_> = tree::findings(&files).into_iter().map(|finding| (finding.path, finding.rule)).collect();
    let expected = [
        ("scripts/run.sh", "tree"),
        ("mesh-cni/Cargo.toml", "licence"),
        ("mesh-cni/Cargo.toml", "dependencies"),
        ("tests/big", "size"),
        ("LICENSE", "licence"),
    ];
    assert_eq!(found, expected.map(|(path, rule)| (path.to_owned(), rule)));
    assert_eq!(tree::findings(&[]).len(), 6);
}

#[test]
fn words_are_found_as_words() {
    let files = [file("README.md", "TODO\nmktemp x.XXXXXX\nunder /home/here\nTODOS\n")];
    let found: Vec<_> = words::findings(&files).into_iter().map(|finding| finding.line).collect();
    assert_eq!(found, [1, 3]);
}
