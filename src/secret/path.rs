//! How an error names a path that an operator gave.
//!
//! A secret may stand where a path belongs: pasted into `…_FILE`, or as the text of a key into `upstream.ca_file`. What the file
//! system confirms is a path; anything else is not shown.

use std::{
    fmt, fs,
    path::{Component, Path, PathBuf},
};

use super::is_plain;

/// A path as it may be printed: itself, absolute, where it exists, or its directory does, and else a text that says why it is
/// missing.
///
/// The decision is made once, when this is made. Neither `Display` nor `Debug` shows what it left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownPath(Option<Box<str>>);

impl ShownPath {
    /// What may be shown of `path`.
    pub fn new(path: &Path) -> Self {
        Self(is_a_path(path).then(|| absolute(path).display().to_string().into()))
    }
}

impl ShownPath {
    /// The same, and also of a path that does not exist yet and [is plain](is_plain).
    pub fn of_new(path: &Path) -> Self {
        let plain = path.to_str().filter(|text| is_plain(text));
        plain.map_or_else(|| Self::new(path), |_| Self(Some(absolute(path).display().to_string().into())))
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

/// `path` from the root, since a reader of a message does not know the working directory of this process. No link is followed.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
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
        for path in [dir.path().to_owned(), dir.path().join("missing"), "/".into()] {
            assert_eq!(ShownPath::new(&path).to_string(), path.display().to_string());
        }
        let working_directory = std::env::current_dir().unwrap();
        for path in ["src/secret.rs", "src/none"] {
            let expected = working_directory.join(path).display().to_string();
            assert_eq!(ShownPath::new(Path::new(path)).to_string(), expected);
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
