//! `docs/faults.md` matches the test names. To update it after renaming tests: `UPDATE=1 cargo test --test it faults`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

/// The start of the last cell of a row with a code that is in no test name.
const NO_TEST: &str = "no test: ";

/// A row of the table.
#[derive(Debug, PartialEq)]
struct Row {
    code: String,
    /// The fault, and the expected outcome.
    cells: [String; 2],
    /// Test names, or the reason for having none.
    shown_by: String,
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md")
}

/// The names of all functions of `code`.
fn functions(code: &str) -> impl Iterator<Item = String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    code.split("fn ").skip(1).map(name)
}

/// The codes at the start of a test name in the spelling of the table: `A09` and `A11` for `a09_a11_…`.
fn codes(name: &str) -> impl Iterator<Item = String> {
    let is_code = |part: &&str| matches!(part.as_bytes(), [letter, tens, ones] if letter.is_ascii_lowercase() && tens.is_ascii_digit() && ones.is_ascii_digit());
    name.split('_').take_while(is_code).map(str::to_uppercase)
}

/// The names of all functions in all files with tests, except this file, which contains examples.
pub fn functions_of_all_tests() -> Vec<String> {
    let mut names = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "tests", "fuzz/src"].map(|folder| root.join(folder)).into();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!()) {
                names.extend(functions(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    names
}

/// The test names with each code.
fn tests_by_code() -> BTreeMap<String, BTreeSet<String>> {
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in functions_of_all_tests() {
        for code in codes(&name) {
            tests.entry(code).or_default().insert(name.clone());
        }
    }
    tests
}

/// `line` as a row, if its first cell is a code.
fn row(line: &str) -> Option<Row> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::to_owned);
    let code = cells.next().filter(|code| codes(&format!("{}_", code.to_lowercase())).next().as_ref() == Some(code))?;
    let row = Row { code, cells: [cells.next()?, cells.next()?], shown_by: cells.next()? };
    assert_eq!(cells.next(), None, "{line}");
    Some(row)
}

/// `line` with the current test names.
fn updated(line: &str, tests: &BTreeMap<String, BTreeSet<String>>) -> String {
    let Some(Row { code, cells: [case, outcome], shown_by }) = row(line) else { return line.to_owned() };
    let named =
        tests.get(&code).map(|names| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
    format!("| {code} | {case} | {outcome} | {} |", named.unwrap_or(shown_by))
}

#[test]
fn every_code_has_a_row_and_every_row_has_its_tests() {
    let tests = tests_by_code();
    assert!(tests.len() > 150);
    let mut text = fs::read_to_string(page()).unwrap();
    let current = text.lines().map(|line| updated(line, &tests) + "\n").collect::<String>();
    if env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(page(), &current).unwrap();
        text.clone_from(&current);
    }
    let rows: Vec<Row> = text.lines().filter_map(row).collect();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row.code.as_str()).collect();
    assert_eq!(listed.len(), rows.len(), "a code has two rows");
    let missing: Vec<_> = tests.keys().filter(|code| !listed.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "docs/faults.md has no row for {missing:?}");
    for row in &rows {
        let why = row.shown_by.strip_prefix(NO_TEST);
        assert!(
            tests.contains_key(&row.code) || why.is_some_and(|why| why.len() > 10),
            "{}: no test name has the code; give the reason after {NO_TEST:?}",
            row.code
        );
        assert!(row.cells.iter().all(|cell| cell.len() > 2), "{row:?}");
    }
    let stale: Vec<_> = text.lines().zip(current.lines()).filter(|(old, new)| old != new).map(|(old, _)| old).collect();
    assert!(stale.is_empty(), "outdated test names: run UPDATE=1 cargo test --test it faults\n{stale:#?}");
}

#[test]
fn every_file_named_instead_of_a_test_exists() {
    let text = fs::read_to_string(page()).unwrap();
    for row in text.lines().filter_map(row).filter(|row| row.shown_by.starts_with(NO_TEST)) {
        for path in row.shown_by.split('`').skip(1).step_by(2) {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file(), "{}: {path} does not exist", row.code);
        }
    }
}

#[test]
fn codes_and_rows_are_parsed() {
    assert_eq!(codes("a09_a11_only_chunked").collect::<Vec<_>>(), ["A09", "A11"]);
    assert_eq!(codes("only_a09_is_first").count() + codes("http_1_0").count(), 0);
    assert_eq!(functions("fn a01_x() {} async fn b(c: D)").collect::<Vec<_>>(), ["a01_x", "b"]);
    let tests = BTreeMap::from([("A01".to_owned(), BTreeSet::from(["a01_x".to_owned()]))]);
    assert_eq!(updated("| A01 | case | outcome | old |", &tests), "| A01 | case | outcome | `a01_x` |");
    assert_eq!(updated("| A02 | case | outcome | no test: why |", &tests), "| A02 | case | outcome | no test: why |");
    assert_eq!(row("| code | what happens | outcome | shown by |"), None);
}
