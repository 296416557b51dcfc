//! Runs every subject on the stored inputs: `corpus`, the seeds and what fuzzing added to them, and `crashes`, inputs that made a subject
//! panic once.

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

use crate::SUBJECTS;

/// The entries of a folder of this package. Empty if there is no folder, as for a subject without crashes.
fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn r03_the_invariants_hold_for_every_stored_input() {
    let mut failed = Vec::new();
    for (name, subject) in SUBJECTS {
        let seeds = entries(&format!("corpus/{name}"));
        assert!(seeds.len() >= 10, "{name} has {} seeds", seeds.len());
        for path in seeds.into_iter().chain(entries(&format!("crashes/{name}"))) {
            let input = fs::read(&path).unwrap();
            if panic::catch_unwind(|| subject(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_target_and_input_folder_belongs_to_a_subject() {
    let mut names: Vec<String> = ["corpus", "crashes", "dictionaries", "fuzz_targets"]
        .iter()
        .flat_map(|folder| entries(folder))
        .filter(|path| !path.ends_with("README.md"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names, SUBJECTS.map(|(name, _)| name));
}
