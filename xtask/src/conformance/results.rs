//! What a run of the suite says of each test.
//!
//! In:  what the suite prints: its list of tests, and the log of Go's tests.
//! Out: the names of tests; [`Results`] by name.
//! Source: Go, `go doc cmd/test2json` for the lines of a verbose run.

use std::collections::BTreeMap;

/// Whatever is below this is a test of the suite.
const SUITE: &str = "TestConformance/";

/// The results by the test's name.
#[derive(Debug, Default)]
pub(super) struct Results(BTreeMap<String, String>);

impl Results {
    /// Those that a log tells of.
    pub(super) fn of(log: &str) -> Self {
        let line = |line: &str| {
            let (word, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
            let name = rest.split_whitespace().next()?.strip_prefix(SUITE)?;
            // A test's parts count with it.
            (!name.contains('/')).then(|| (name.to_owned(), word.to_owned()))
        };
        Self(log.lines().filter_map(line).collect())
    }

    /// Is nothing told?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Did the test run and succeed?
    pub(super) fn passed(&self, name: &str) -> bool {
        self.word(name) == "PASS"
    }

    /// What came of it, in Go's words.
    pub(super) fn word(&self, name: &str) -> &str {
        self.0.get(name).map_or("MISSING", String::as_str)
    }
}

/// The names in the suite's list of tests.
pub(super) fn tests_of_meshes(list: &str) -> Vec<String> {
    let mut names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_what_its_own_line_says() {
        let log = "=== RUN   TestConformance/MeshBasic\n\
                   --- FAIL: TestConformance (9.80s)\n    \
                       --- PASS: TestConformance/MeshBasic (0.51s)\n    \
                       --- FAIL: TestConformance/MeshPorts (0.10s)\n        \
                           --- PASS: TestConformance/MeshPorts/0_request (0.10s)\n    \
                       --- SKIP: TestConformance/MeshFrontend (0.00s)\n";
        let results = Results::of(log);
        assert!(results.passed("MeshBasic"));
        assert!(!results.passed("MeshPorts") && !results.passed("MeshFrontend") && !results.passed("MeshOther"));
        assert_eq!((results.word("MeshFrontend"), results.word("MeshOther")), ("SKIP", "MISSING"));
        assert!(Results::of("=== RUN   TestConformance\n").is_empty());
    }

    #[test]
    fn the_list_has_a_test_on_each_line() {
        assert_eq!(tests_of_meshes("MeshPorts [Mesh HTTPRoute]\nMeshBasic [Mesh]\n"), ["MeshBasic", "MeshPorts"]);
    }
}
