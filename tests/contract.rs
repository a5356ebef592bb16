//! `docs/SEMANTICS.md` names, for each of its statements, tests that exist; so does
//! `docs/OPTIONS.md` for each option, and `docs/SECURITY.md` for each threat and promise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as expected")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How many statements there are.
const STATEMENTS: usize = 60;

/// The `file::test` names in a text, which stand between backquotes.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::"))
}

#[test]
fn every_statement_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let mut proven = BTreeSet::new();
    for line in text.lines() {
        let number: Option<usize> = line
            .strip_prefix("| ")
            .and_then(|row| row.split_whitespace().next())
            .and_then(|word| word.parse().ok());
        if let Some(number) = number
            && named(line).next().is_some()
        {
            assert!(proven.insert(number), "statement {number} stands there twice");
        }
    }
    let missing: Vec<_> = (1..=STATEMENTS).filter(|number| !proven.contains(number)).collect();
    assert!(missing.is_empty(), "no test is named for {missing:?}");
    assert_tests_exist(root, &text);
}

#[test]
fn options_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_tests_exist(root, &fs::read_to_string(root.join("docs/OPTIONS.md")).unwrap());
}

/// Below "Trust" each row of a table is a threat or a promise, and its last column the tests.
#[test]
fn every_threat_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let begin = text.find("## Layers by a stranger").unwrap();
    let end = text.find("## Checkers").unwrap();
    let mut rows = 0;
    for row in text[begin..end].lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.split(" | ").collect();
        let tests = cells.last().unwrap().trim_end_matches(" |");
        if matches!(tests, "test" | "the same") {
            continue;
        }
        rows += 1;
        for word in tests.split('`').skip(1).step_by(2) {
            let file = word.split("::").next().unwrap();
            assert!(root.join("tests").join(format!("{file}.rs")).is_file(), "{row}");
        }
        assert!(tests.contains('`'), "no test: {row}");
        assert_tests_exist(root, tests);
    }
    assert!(rows > 20, "{rows} rows");
}

fn assert_tests_exist(root: &Path, text: &str) {
    for (file, test) in named(text) {
        let path = root.join("tests").join(format!("{file}.rs"));
        let source =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(&format!("fn {test}()")), "{file} has no test {test}");
    }
}
