//! Records what a build was made from, for `--version --verbose` and the metric `build_info`.
//!
//! - `SOURCE_REVISION` is the revision. Without it, a release build in a checkout asks git; any other build, including one from a source
//!   archive, has the revision `unknown`.
//! - `SOURCE_DATE_EPOCH` is the date. Without it, the date is that of the commit if the revision comes from git, else `unknown`. It is
//!   never the time of the build, so that builds are reproducible.
//!
//! Only release builds ask git, because otherwise each commit would recompile the crate.

#![expect(clippy::disallowed_methods, reason = "cargo passes all inputs of a build script in the environment")]

use std::{
    env,
    path::Path,
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

const UNKNOWN: &str = "unknown";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_REVISION");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let uses_git = env::var("PROFILE").is_ok_and(|profile| profile == "release") && Path::new(".git").exists();
    if uses_git {
        watch_head();
    }
    let asked = |arguments: &[&str]| if uses_git { git(arguments) } else { None };

    let named = env::var("SOURCE_REVISION").ok().filter(|revision| is_word(revision));
    let (revision, commit_time) = match named {
        Some(revision) => (Some(revision), None),
        None => (asked(&["rev-parse", "--short=12", "HEAD"]), asked(&["log", "-1", "--format=%ct"])),
    };
    // The image build sets 0 if no date was given.
    let seconds =
        env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds > 0);
    let seconds: Option<u64> = seconds.or_else(|| commit_time?.parse().ok());
    let date = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let date = date.map(|date| humantime::format_rfc3339_seconds(date).to_string());

    set("REVISION", &revision.unwrap_or_else(|| UNKNOWN.to_owned()));
    set("DATE", &date.unwrap_or_else(|| UNKNOWN.to_owned()));
    set("TARGET", &env::var("TARGET").unwrap_or_else(|_| UNKNOWN.to_owned()));
    set("FEATURES", &features());
}

fn set(name: &str, value: &str) {
    println!("cargo::rustc-env=FINICITY_PROXY_BUILD_{name}={value}");
}

/// The features of this build, in alphabetical order, or `none`.
fn features() -> String {
    let names = env::vars_os().filter_map(|(name, _)| Some(name.to_str()?.strip_prefix("CARGO_FEATURE_")?.to_owned()));
    let mut features: Vec<String> =
        names.filter(|name| name != "DEFAULT").map(|name| name.to_ascii_lowercase().replace('_', "-")).collect();
    features.sort();
    if features.is_empty() { "none".to_owned() } else { features.join(",") }
}

/// Whether `text` is a single word that is safe in a metric label.
fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'/');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_plain)
}

/// The output of git, or `None` if git is missing or fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    is_word(&text).then_some(text)
}

/// Makes cargo run this script again when another commit is checked out.
fn watch_head() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in [Some("HEAD"), branch.as_deref(), Some("packed-refs")].into_iter().flatten() {
        // A missing file would count as changed each time.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).is_file()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}
