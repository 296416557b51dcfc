//! The floors of the house: a module uses only those below it, in the order in which `src/lib.rs` lists them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules, top floor first.
fn floors() -> Vec<String> {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// Every file of the module `name`.
fn files(name: &str) -> Vec<PathBuf> {
    let mut found = vec![source().join(format!("{name}.rs"))];
    let mut folders = vec![source().join(name)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The modules of this crate that `code` names: what follows `crate::`, or stands first in each part of `crate::{…}`.
fn used(code: &str) -> BTreeSet<String> {
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            names.insert(identifier(after));
            continue;
        };
        let mut depth = 0;
        let mut part = String::new();
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.extend([identifier(&std::mem::take(&mut part))]),
                _ if depth == 0 => part.push(character),
                _ => {}
            }
        }
        names.insert(identifier(&part));
    }
    names.remove("");
    names
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_module_uses_only_lower_floors() {
    let floors = floors();
    assert!(floors.len() > 10, "{floors:?}");
    for (floor, name) in floors.iter().enumerate() {
        for file in files(name) {
            for other in used(&fs::read_to_string(&file).unwrap()) {
                let below = floors.iter().position(|name| *name == other);
                assert!(
                    below.is_some_and(|below| below >= floor),
                    "{} uses {other}, which is not below {name}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_module_is_on_the_map() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    for name in floors() {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not mention `{name}`");
        assert!(source().join(format!("{name}.rs")).is_file());
    }
}

#[test]
fn the_reader_of_names_reads_them() {
    let code = "use crate::{\n    a::{b, c},\n    d, // crate::no\n    e::f as g,\n};\nlet x = crate::h::i();";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>(), ["a", "d", "e", "h"]);
}
