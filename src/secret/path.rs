//! How an error names a path that an operator gave.
//!
//! A secret may stand where a path belongs: pasted into `…_FILE`, or as the text of a key into `upstream.ca_file`. What the file
//! system confirms is a path; anything else is not shown.

use std::{
    fmt, fs,
    path::{Component, Path},
};

/// A path as it may be printed: itself where it exists, or its directory does, and else a text that says why it is missing.
///
/// The decision is made once, when this is made. Neither `Display` nor `Debug` shows what it left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownPath(Option<Box<str>>);

impl ShownPath {
    /// What may be shown of `path`.
    pub fn new(path: &Path) -> Self {
        Self(is_a_path(path).then(|| path.display().to_string().into()))
    }
}

impl From<&Path> for ShownPath {
    fn from(path: &Path) -> Self {
        Self::new(path)
    }
}

impl fmt::Display for ShownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("a path (not shown, since it leads nowhere and may be a secret)"))
    }
}

/// Whether something is there, or could be: the directory exists, and is not one that every path has by accident.
fn is_a_path(path: &Path) -> bool {
    let named = |path: &&Path| path.components().any(|part| matches!(part, Component::Normal(_)));
    fs::symlink_metadata(path).is_ok() || path.parent().filter(named).is_some_and(Path::is_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_when_it_or_its_directory_exists() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            [dir.path().to_owned(), dir.path().join("missing"), "/".into(), "src/secret.rs".into(), "src/none".into()]
        {
            assert_eq!(ShownPath::new(&path).to_string(), path.display().to_string());
        }
        let long = "canary/".repeat(100_000);
        for secret in
            ["canary", "canary/Secret+9b=", "/canary", "/canary/Secret", "./canary", "../canary", "can\0ary", "", &long]
        {
            let shown = ShownPath::new(Path::new(secret));
            assert!(!format!("{shown} {shown:?}").contains("canary"), "{shown}");
            assert!(shown.to_string().contains("not shown"), "{shown}");
        }
    }
}
