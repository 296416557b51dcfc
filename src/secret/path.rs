//! Shows paths from the configuration in messages.
//!
//! An operator may have put a secret where a path belongs: in `…_FILE`, or the text of a key in `upstream.ca_file`. A path is shown
//! only if the file system confirms it.

use std::{
    fmt, fs,
    path::{Component, Path, PathBuf},
};

use super::is_plain;

/// A path that is safe to print: the absolute path if it or its directory exists, otherwise a text that explains why it is not shown.
///
/// The check is made once, on creation. Neither `Display` nor `Debug` shows a path that failed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownPath(Option<Box<str>>);

impl ShownPath {
    /// Shows `path` if it or its directory exists.
    pub fn new(path: &Path) -> Self {
        Self(is_a_path(path).then(|| absolute(path).display().to_string().into()))
    }
}

impl ShownPath {
    /// Like [`new`](Self::new), but also shows a path that does not exist yet if it [is plain](is_plain).
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
        f.write_str(self.0.as_deref().unwrap_or("a path (not shown, because it does not exist and may be a secret)"))
    }
}

/// The absolute form of `path`, because readers of messages do not know the working directory of this process. Does not resolve links.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether `path` exists, or its parent does. `/`, `.` and `..` do not count as a parent, because they always exist.
fn is_a_path(path: &Path) -> bool {
    let named = |path: &&Path| path.components().any(|part| matches!(part, Component::Normal(_)));
    fs::symlink_metadata(path).is_ok() || path.parent().filter(named).is_some_and(Path::is_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_if_it_or_its_directory_exists() {
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
