//! `docs/compliance.md` names files and tests that exist.

use std::{collections::BTreeSet, fs, path::Path};

use crate::faults::functions_of_all_tests;

/// The third cell of each table row, with its line.
fn evidence(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.contains("| shown by |"));
    rows.map(|line| (line, line.split(" | ").nth(2).unwrap_or_else(|| panic!("{line}")))).collect()
}

#[test]
fn every_file_and_test_in_compliance_md_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/compliance.md")).unwrap();
    let tests: BTreeSet<String> = functions_of_all_tests().into_iter().collect();
    let evidence = evidence(&page);
    assert!(evidence.len() > 25, "{evidence:?}");
    for (line, cell) in evidence {
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no evidence: {line}");
        for name in names {
            let is_file = root.join(name).is_file();
            assert!(is_file || tests.contains(name), "docs/compliance.md names {name}, which does not exist");
        }
    }
}
