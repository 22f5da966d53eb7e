use super::{Contents, Seen};
use crate::world::{Change, World};
use std::collections::BTreeMap;
use std::path::PathBuf;

const READ_ERROR: Seen = Seen::Unreadable { problem: String::new(), cure: "mend it" };

fn pods(names: &[&str]) -> Seen {
    let documents =
        names.iter().map(|name| format!("---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}}}\n"));
    Seen::Bytes(documents.collect::<String>().into_bytes())
}

fn labelled(name: &str, label: &str) -> Seen {
    Seen::Bytes(
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{l: {label}}}}}}}").into_bytes(),
    )
}

fn text(text: &str) -> Seen {
    Seen::Bytes(text.as_bytes().to_vec())
}

fn see(contents: &mut Contents, files: impl IntoIterator<Item = (&'static str, Seen)>) -> Vec<String> {
    let seen: BTreeMap<_, _> = files.into_iter().map(|(path, seen)| (PathBuf::from(path), seen)).collect();
    let told = contents.update(seen).into_iter().map(|change| match change {
        Change::Upsert(object) => {
            let label = object.metadata().labels.get("l").map_or_else(String::new, |label| format!(" {label}"));
            format!("+{}{label}", object.metadata().name)
        }
        Change::Delete(_, name) => format!("-{}", name.name),
        Change::Faults { origin, issues } => {
            let fields: Vec<_> = issues.iter().map(|issue| format!("{}", issue.object)).collect();
            format!("{origin}: {}", fields.join(", "))
        }
        Change::Only(..) | Change::Attach(_) | Change::Detach { .. } | Change::Synced(_) | Change::Recalled(_) => {
            panic!("files tell of no such thing")
        }
    });
    told.collect()
}

#[test]
fn only_what_changes_is_told() {
    let mut contents = Contents::default();
    assert_eq!(see(&mut contents, [("a", pods(&["x", "y"])), ("b", pods(&["z"]))]), ["+x", "+y", "+z"]);
    assert!(see(&mut contents, [("a", pods(&["x", "y"])), ("b", Seen::Unchanged)]).is_empty());
    assert_eq!(see(&mut contents, [("a", pods(&["y", "w"])), ("b", Seen::Unchanged)]), ["-x", "+w"]);
    assert_eq!(see(&mut contents, [("a", labelled("y", "new")), ("b", Seen::Unchanged)]), ["-w", "+y new"]);
    assert_eq!(see(&mut contents, [("a", Seen::Unchanged)]), ["-z"]);
}

#[test]
fn a_renamed_file_changes_nothing() {
    let mut contents = Contents::default();
    see(&mut contents, [("a", pods(&["x"]))]);
    assert!(see(&mut contents, [("b", pods(&["x"]))]).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_keeps_what_it_held() {
    let mut contents = Contents::default();
    see(&mut contents, [("a", pods(&["x"]))]);
    assert_eq!(see(&mut contents, [("a", text("kind: ["))]), ["a: File a"]);
    assert!(see(&mut contents, [("a", text("kind: ["))]).is_empty());
    assert!(see(&mut contents, [("a", Seen::Unchanged)]).is_empty());
    assert_eq!(see(&mut contents, [("a", READ_ERROR)]), ["a: File a"]);
    assert_eq!(see(&mut contents, [("a", pods(&["x", "y"]))]), ["+y", "a: "]);
    assert_eq!(see(&mut contents, [("a", text("kind: ["))]), ["a: File a"]);
    assert_eq!(see(&mut contents, []), ["-x", "-y", "a: "]);
}

#[test]
fn of_an_object_in_two_files_the_first_holds() {
    let mut contents = Contents::default();
    assert_eq!(see(&mut contents, [("b", labelled("x", "b"))]), ["+x b"]);
    assert_eq!(see(&mut contents, [("a", labelled("x", "a")), ("b", Seen::Unchanged)]), ["+x a", "b: Pod default/x"]);
    assert_eq!(see(&mut contents, [("b", Seen::Unchanged)]), ["+x b", "b: "]);
    assert_eq!(see(&mut contents, [("b", pods(&["x", "x"]))]), ["+x", "b: Pod default/x"]);
}

#[test]
fn what_is_in_force_depends_on_the_files_alone() {
    let versions: [fn() -> Seen; 6] = [
        || pods(&["x", "y"]),
        || pods(&["y", "z"]),
        || labelled("x", "one"),
        || labelled("z", "two"),
        || text(""),
        || text("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np}}"),
    ];
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut contents, mut world) = (Contents::default(), World::default());
        let mut last = BTreeMap::new();
        for _ in 0..8 {
            last.clear();
            for path in ["a", "b", "c"] {
                if rng.u8(..4) > 0 {
                    last.insert(PathBuf::from(path), versions[rng.usize(..versions.len())]());
                }
            }
            for change in contents.update(last.clone()) {
                assert!(world.apply(change.clone()), "seed {seed}: {change:?} is not new");
            }
        }
        let mut fresh = World::default();
        for change in Contents::default().update(last) {
            fresh.apply(change);
        }
        assert_eq!(world, fresh, "seed {seed}");
    }
}
