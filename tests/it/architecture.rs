//! Module layers: a module uses only modules below it, in the order of `src/lib.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules, top layer first.
fn layers() -> Vec<String> {
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

/// The modules of this crate that `code` refers to: the name after `crate::`, or the first name in each part of `crate::{…}`.
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
fn a_module_uses_only_lower_layers() {
    let layers = layers();
    assert!(layers.len() > 10, "{layers:?}");
    for (layer, name) in layers.iter().enumerate() {
        for file in files(name) {
            for other in used(&fs::read_to_string(&file).unwrap()) {
                let position = layers.iter().position(|name| *name == other);
                assert!(
                    position.is_some_and(|position| position >= layer),
                    "{} uses {other}, which is not below {name}",
                    file.display()
                );
            }
        }
    }
}

/// Every file of `src/` except tests, with its module path: `proxy::request_target` for `src/proxy/request_target.rs`.
fn modules() -> Vec<(Vec<String>, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(source()).unwrap().with_extension("");
            let parts: Vec<String> =
                relative.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
            if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path, &parts) {
                found.push((parts, path));
            }
        }
    }
    found
}

/// Whether a file is compiled only for tests: it or a parent module is declared under `#[cfg(test)]`.
fn is_test(path: &Path, parts: &[String]) -> bool {
    (1..=parts.len()).any(|depth| {
        let (name, above) = (&parts[depth - 1], &parts[..depth - 1]);
        let parent = if above.is_empty() {
            source().join("lib.rs")
        } else {
            source().join(above.join("/")).with_extension("rs")
        };
        path != parent
            && fs::read_to_string(parent).is_ok_and(|text| text.contains(&format!("#[cfg(test)]\nmod {name};")))
    })
}

/// The segments of each path in the `use` declarations of `code`, without test modules.
fn imports(code: &str) -> Vec<Vec<String>> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for declaration in lines.split("\nuse ").skip(1) {
        expand(&[], declaration.split(';').next().unwrap(), &mut paths);
    }
    paths
}

/// Adds the paths of the use tree `tree` below `prefix` to `paths`.
fn expand(prefix: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let segments = tree.split(" as ").next().unwrap().split("::").map(|part| part.trim().to_owned());
        paths.push(prefix.iter().cloned().chain(segments.filter(|part| !part.is_empty())).collect());
        return;
    };
    let below: Vec<String> = prefix
        .iter()
        .cloned()
        .chain(head.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()))
        .collect();
    let (mut depth, mut part) = (0, String::new());
    for character in group.chars() {
        match character {
            '}' if depth == 0 => break,
            ',' if depth == 0 => expand(&below, &std::mem::take(&mut part), paths),
            _ => {
                depth += i32::from(character == '{') - i32::from(character == '}');
                part.push(character);
            }
        }
    }
    if !part.trim().is_empty() {
        expand(&below, &part, paths);
    }
}

/// The file that `import` in the module `from` refers to: the longest prefix of the path that is a file.
fn target(from: &[String], import: &[String], modules: &BTreeMap<Vec<String>, PathBuf>) -> Option<Vec<String>> {
    let mut path = match import.first()?.as_str() {
        "crate" => Vec::new(),
        "self" => from.to_vec(),
        "super" => from[..from.len() - 1].to_vec(),
        _ => [from, &import[..1]].concat(),
    };
    for segment in &import[1..] {
        if segment == "super" {
            path.pop();
        } else {
            path.push(segment.clone());
        }
    }
    while !path.is_empty() && !modules.contains_key(&path) {
        path.pop();
    }
    (!path.is_empty() && path != from).then_some(path)
}

/// The files that each file imports from. Imports between a module and its own submodules are not counted: a module re-exports them
/// with `pub use`, and a submodule uses items of its parent.
fn imported() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules: BTreeMap<_, _> = modules().into_iter().collect();
    let files_of = |from: &Vec<String>, path: &PathBuf| {
        imports(&fs::read_to_string(path).unwrap())
            .iter()
            .filter_map(|import| target(from, import, &modules))
            .filter(|to| !to.starts_with(from) && !from.starts_with(to))
            .collect()
    };
    modules.iter().map(|(from, path)| (from.clone(), files_of(from, path))).collect()
}

#[test]
fn there_are_no_import_cycles() {
    let imported = imported();
    assert!(imported.len() > 150 && imported.values().map(BTreeSet::len).sum::<usize>() > 300);
    // Repeatedly removes the files that import no remaining file.
    let mut left = imported;
    loop {
        let leaves: Vec<_> = left.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| from.clone()).collect();
        if leaves.is_empty() {
            break;
        }
        left.retain(|from, _| !leaves.contains(from));
        for to in left.values_mut() {
            to.retain(|file| !leaves.contains(file));
        }
    }
    // The remaining files are in a cycle or import one that is.
    let cycles: Vec<_> = left
        .iter()
        .map(|(from, to)| (from.join("::"), to.iter().map(|file| file.join("::")).collect::<Vec<_>>()))
        .collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn proxy_layers_do_not_import_from_the_stack_file() {
    let modules: BTreeMap<_, _> = modules().into_iter().collect();
    for (from, path) in modules.iter().filter(|(from, _)| from[0] == "proxy" && from.len() > 1) {
        for import in imports(&fs::read_to_string(path).unwrap()) {
            let is_glob = import.last().is_some_and(|last| last == "*");
            assert!(
                is_glob || target(from, &import, &modules).is_none_or(|to| to != ["proxy"]),
                "{} imports {} from src/proxy.rs",
                path.display(),
                import.join("::")
            );
        }
    }
}

#[test]
fn file_lengths_and_module_count_are_within_limits() {
    for (_, path) in modules() {
        let lines =
            fs::read_to_string(&path).unwrap().split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        assert!(lines <= 450, "{} has {lines} lines", path.display());
    }
    assert!(layers().len() <= 22, "with lib.rs and main.rs, src/ has at most 24 entries");
}

#[test]
fn every_module_is_in_architecture_md() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    for name in layers() {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not mention `{name}`");
        assert!(source().join(format!("{name}.rs")).is_file());
    }
}

#[test]
fn module_names_are_extracted_from_code() {
    let code = "use crate::{\n    a::{b, c},\n    d, // crate::no\n    e::f as g,\n};\nlet x = crate::h::i();";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>(), ["a", "d", "e", "h"]);
}
