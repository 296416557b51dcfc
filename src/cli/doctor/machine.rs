//! The steps that examine this machine: configuration, credentials, state directory. They create and write nothing.

use std::{
    error::Error as _,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use humantime::{format_duration, format_rfc3339_seconds};
use rustix::process::geteuid;
use tokio::time::timeout;

use super::report::{Finding, Report, StepName};
use crate::{
    app,
    config::{self, Config, Inputs, Problem},
    credentials::{
        self, Credentials, SourceConfig,
        lockout::{self, Lockout, OpenError, StateOutlook},
    },
    error_chain,
    secret::ShownPath,
    telemetry::logging::scrubber,
};

/// The maximum time for reading the credentials over a network.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the configuration and the addresses to listen on.
pub(super) fn configuration(inputs: &Inputs) -> (Finding, Option<Config>) {
    let failed = |problems: &[Problem]| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let remedy = "correct these settings; `finicity-proxy config` shows where each key is set";
        (Finding::failed(lines.join("\n"), remedy), None)
    };
    let config = match config::load(inputs) {
        Ok(config) => config,
        Err(invalid) => return failed(&invalid.problems.0),
    };
    let problems = app::listener_problems(&config);
    if !problems.is_empty() {
        return failed(&problems);
    }
    let detail = format!("valid, for {} (this command runs as uid {})", config.token.base, geteuid().as_raw());
    (Finding::ok(detail), Some(config))
}

/// The result of reading the credentials.
pub(super) struct CredentialCheck {
    pub(super) credentials: Option<Credentials>,
    /// The finding about the identity by which a secret store knows this process.
    pub(super) identity: Finding,
}

/// Reads the credentials. If a store denies access to this process's identity, the next step (`store_identity`) fails instead of this one.
pub(super) async fn credential_source(report: &mut Report, config: &Config) -> CredentialCheck {
    let mut source = config.credentials.source.open();
    let description = source.description();
    let mut identity = if source.uses_network() {
        Finding::skipped("unknown: the store could not be read")
    } else {
        Finding::skipped(format!("not needed: {description} uses no network"))
    };
    let uses_network = source.uses_network();
    let identity_of_step = &mut identity;
    let read = async move {
        match timeout(SOURCE_TIMEOUT, credentials::load(source.as_mut(), config.credentials.scheme)).await {
            Ok(Ok(credentials)) => {
                scrubber().register("the credentials", credentials.secrets());
                if uses_network {
                    *identity_of_step = Finding::ok(format!("permitted to read from {description}"));
                }
                (Finding::ok(read_from(&description, config, &credentials)), Some(credentials))
            }
            Ok(Err(problems)) => {
                let (lines, mut remedies): (Vec<_>, Vec<_>) =
                    problems.iter().map(credentials::Problem::in_parts).unzip();
                remedies.dedup();
                let failed = Finding::failed(format!("from {description}: {}", lines.join("\n")), remedies.join("\n"));
                if !problems.iter().any(credentials::Problem::is_identity) {
                    return (failed, None);
                }
                *identity_of_step = failed;
                (Finding::skipped(format!("not read from {description}: see store_identity")), None)
            }
            Err(_) => {
                let limit = format_duration(SOURCE_TIMEOUT);
                let remedy = "check that the store can be reached from here, and its status page";
                (Finding::failed(format!("{description} did not respond within {limit}"), remedy), None)
            }
        }
    };
    let credentials = report.step(StepName::CredentialSource, read).await;
    CredentialCheck { credentials, identity }
}

/// The source of `credentials`, their last change, and their fingerprint.
fn read_from(description: &str, config: &Config, credentials: &Credentials) -> String {
    let mut text = format!("read from {description}, scheme {}", credentials.scheme.as_str());
    if let SourceConfig::Directory(dir) = &config.credentials.source
        && let Some(changed) = last_change(dir)
    {
        text += &format!(", last changed at {}", format_rfc3339_seconds(changed));
    }
    if let Some(fingerprint) = fingerprint(config, credentials) {
        text += &format!(", fingerprint {fingerprint} in this state directory");
    }
    text
}

/// The time of the last change to a file in `dir`.
fn last_change(dir: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(dir).ok()?.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    files.filter(fs::Metadata::is_file).filter_map(|file| file.modified().ok()).max()
}

/// The fingerprint of `credentials` in the records of the state directory. `None` if there is no state; none is created.
fn fingerprint(config: &Config, credentials: &Credentials) -> Option<String> {
    let dir = config.state_dir.as_deref().filter(|dir| has_state(dir))?;
    let lockout = Lockout::open(Some(dir)).ok()?;
    Some(lockout.fingerprint_of(config.token.base.host()?, credentials).to_string())
}

/// Whether `dir` holds a readable state.
pub(super) fn has_state(dir: &Path) -> bool {
    matches!(lockout::inspect(dir), Ok(StateOutlook::Found | StateOutlook::NotWritable))
}

/// Where attempts can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateCheck {
    /// Only in the memory of a process.
    Memory,
    /// In the state directory.
    Directory,
    /// In a state directory that this UID owns. This process is root, and the owner could not read files that it creates.
    OtherUser(u32),
}

/// Checks the state directory `dir`.
pub(super) fn state_directory(dir: &Path) -> (Finding, Option<StateCheck>) {
    let (path, uid) = (ShownPath::of_new(dir), geteuid().as_raw());
    let failed = |error: &OpenError| {
        let reason = error.source().map(error_chain::one_line).unwrap_or_default();
        (Finding::failed(format!("{path}: {reason} (uid {uid})"), error.advice()), None)
    };
    let outlook = match lockout::inspect(dir) {
        Ok(outlook) => outlook,
        Err(error) => return failed(&error),
    };
    let detail = match outlook {
        StateOutlook::Found => format!("{path} can be read and written"),
        StateOutlook::Created => format!("{path} has no lock-out state yet; startup creates it"),
        StateOutlook::NotWritable => {
            let detail = format!(
                "{path} is not writable for uid {uid}: credentials that have not obtained a token are not tried"
            );
            let remedy =
                "make it and its files writable for the user that the proxy runs as (in Kubernetes, set fsGroup)";
            return (Finding::failed(detail, remedy), None);
        }
        StateOutlook::ReadOnly => {
            let detail = format!(
                "{path} is on a read-only file system: a rejection of the credentials is lost at the next restart"
            );
            let remedy = "mount a writable volume there";
            return (Finding::warning(detail, remedy), Some(StateCheck::Memory));
        }
    };
    if let Err(error) = lockout::check_lock(dir) {
        return failed(&error);
    }
    match other_owner(dir).filter(|_| uid == 0) {
        Some(owner) => {
            let detail = format!("{detail}, but it belongs to uid {owner}, and this command runs as root");
            let remedy = format!("run this as uid {owner}, so that the proxy can read what it records");
            (Finding::warning(detail, remedy), Some(StateCheck::OtherUser(owner)))
        }
        None => (Finding::ok(detail), Some(StateCheck::Directory)),
    }
}

/// The UID other than root that owns `dir` or a file in it.
fn other_owner(dir: &Path) -> Option<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let owners = entries.chain([dir.to_owned()]).filter_map(|path| Some(fs::metadata(path).ok()?.uid()));
    owners.into_iter().find(|owner| *owner != 0)
}
