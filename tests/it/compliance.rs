//! The files, tests and modules that pages give as evidence exist: `docs/compliance.md`, `docs/security.md` and the invariants of
//! `ARCHITECTURE.md`.

use std::{collections::BTreeSet, fs, path::Path};

use crate::faults::functions_of_all_tests;

/// The rows of the tables in `page`, without their heads, each with the names in backticks of the cell at `index`.
fn evidence(page: &str, index: usize) -> Vec<(&str, Vec<&str>)> {
    let is_head = |line: &str| ["| shown by", "| held by"].iter().any(|head| line.contains(head));
    let rows = page.lines().filter(|line| line.starts_with("| ") && !is_head(line));
    rows.map(|line| {
        let cell = line.split(" | ").nth(index).unwrap_or_else(|| panic!("{line}"));
        (line, cell.split('`').skip(1).step_by(2).collect())
    })
    .collect()
}

/// The part of `page` from the heading `## title` to the next one.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let text = page.split_once(&format!("\n## {title}\n")).unwrap().1;
    text.split("\n## ").next().unwrap()
}

#[test]
fn every_file_and_test_in_compliance_md_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/compliance.md")).unwrap();
    let tests: BTreeSet<String> = functions_of_all_tests().into_iter().collect();
    let evidence = evidence(&page, 2);
    assert!(evidence.len() > 25, "{evidence:?}");
    for (line, names) in evidence {
        assert!(!names.is_empty(), "no evidence: {line}");
        for name in names {
            let is_file = root.join(name).is_file();
            assert!(is_file || tests.contains(name), "docs/compliance.md names {name}, which does not exist");
        }
    }
}

#[test]
fn every_invariant_names_a_file_that_holds_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let evidence = evidence(section(&page, "Invariants"), 2);
    assert!(evidence.len() > 20, "{evidence:?}");
    for (line, names) in evidence {
        assert!(!names.is_empty(), "no evidence: {line}");
        for name in names {
            assert!(root.join(name).is_file(), "ARCHITECTURE.md names {name}, which does not exist");
        }
    }
}

#[test]
fn every_threat_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let evidence = evidence(section(&page, "Threats"), 3);
    assert!(evidence.len() > 20, "{evidence:?}");
    for (line, names) in evidence {
        assert!(!names.is_empty(), "no evidence: {line}");
        for name in names {
            // A group or file in tests/it, a module of the program, or a fuzz target.
            let module = name.replace("::", "/");
            let exists = root.join("tests/it").join(name.trim_end_matches("/*")).is_dir()
                || [format!("tests/it/{name}.rs"), format!("src/{module}.rs"), format!("fuzz/fuzz_targets/{name}.rs")]
                    .iter()
                    .any(|file| root.join(file).is_file());
            assert!(exists, "docs/security.md names {name}, which does not exist");
        }
    }
}
