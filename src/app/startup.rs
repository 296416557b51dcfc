//! Startup with rejected credentials: whether it may fail, and the termination message with the reason for `kubectl describe pod`.
//! Also notifies a service manager.

use std::{
    fs::OpenOptions,
    future::pending,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use tokio::{select, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    ops::OpsState,
    process::service_manager::ServiceManager,
    token::{Phase, Refusal, Status, TokenReader},
};

/// How long the lock-out state survives, by its location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// In memory: lost when the process ends.
    Memory,
    /// On an overlay file system, such as a container's root: lost when the container ends.
    Overlay,
    /// In a directory that outlives the container.
    Directory,
}

impl Durability {
    /// The durability of a state in `dir`, which exists; `None` for a state in memory.
    pub(super) fn of(dir: Option<&Path>) -> Self {
        match dir {
            None => Self::Memory,
            Some(dir) if is_overlay(dir) => Self::Overlay,
            Some(_) => Self::Directory,
        }
    }

    /// The name in the status.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Overlay => "overlay",
            Self::Directory => "directory",
        }
    }

    /// Whether a rejection may fail startup, given `fail_on_rejection`. A failed startup is retried, and if the state does not
    /// survive, each retry costs an authentication attempt. In that case, warns and returns `false`.
    pub(super) fn permits_failure(self, fail_on_rejection: bool) -> bool {
        let location = match self {
            _ if !fail_on_rejection => return false,
            Self::Directory => return true,
            Self::Memory => "in memory only",
            Self::Overlay => "on an overlay file system, which ends with the container",
        };
        warn!(
            "startup.fail_on_rejection is ignored: the lock-out state is {location}, so each restart would cost one more failed \
             authentication; mount a volume and set auth.state_dir to it"
        );
        false
    }
}

/// Whether `dir` is on an overlay file system. If that is unknown, returns `true`, which only ignores `fail_on_rejection`.
#[cfg(target_os = "linux")]
fn is_overlay(dir: &Path) -> bool {
    /// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    // The type of the field differs between architectures.
    rustix::fs::statfs(dir).map_or(true, |found| found.f_type as u64 == OVERLAYFS)
}

/// Always `false`: only Linux has overlayfs.
#[cfg(not(target_os = "linux"))]
fn is_overlay(_dir: &Path) -> bool {
    false
}

/// Reports the progress of startup until `stop` is cancelled. Keeps `refusal_writer` at the refusal that blocks startup, and the file
/// `message` at the reason and remedy of that refusal, or at the reason why the credentials have not been read yet. Logs `ready` with
/// `proxy_addresses` once there is a token.
///
/// The kubelet reads the file when the container ends. After a refused startup a signal ends it, so the file is written beforehand.
pub(super) async fn follow(
    mut token: TokenReader,
    refusal_writer: watch::Sender<Option<Refusal>>,
    message: Option<PathBuf>,
    proxy_addresses: String,
    stop: CancellationToken,
) {
    let mut written = String::new();
    if let Some(path) = &message {
        // The file may contain the message of an earlier process.
        replace_message(path, &written);
    }
    let mut is_ready = false;
    loop {
        if !is_ready && token.version() > 0 {
            is_ready = true;
            info!(proxy = proxy_addresses, "ready");
        }
        let before = *refusal_writer.borrow();
        let status = token.status();
        let now = Refusal::of_start(before, &status);
        if now != before {
            refusal_writer.send_replace(now);
        }
        let text = termination_message(now, &status);
        if text != written {
            written = text;
            if let Some(path) = &message {
                replace_message(path, &written);
            }
        }
        select! {
            () = stop.cancelled() => return,
            () = token.changed() => {}
        }
    }
}

/// Notifies the service manager of what startup waits for, of its success (as for `/startupz`), and of the shutdown.
pub(super) async fn notify(
    manager: ServiceManager,
    state: OpsState,
    (draining, stop): (CancellationToken, CancellationToken),
) {
    let mut token = state.token.clone();
    let starting = async {
        let mut last = None;
        while let Err(reason) = state.startup() {
            if last.as_ref() != Some(&reason) {
                manager.notify(&format!("STATUS={reason}"));
                last = Some(reason);
            }
            token.changed().await;
        }
        manager.notify("READY=1\nSTATUS=serving");
        pending::<()>().await;
    };
    select! {
        () = draining.cancelled() => manager.notify("STOPPING=1\nSTATUS=draining"),
        () = starting => {}
    }
    stop.cancelled().await;
}

/// Why startup does not succeed; empty if no reason is known.
fn termination_message(refusal: Option<Refusal>, status: &Status) -> String {
    match (refusal, &status.last_error) {
        (Some(refusal), _) => format!("{}; {}\n", refusal.reason(), refusal.remedy()),
        (None, Some(error)) if status.phase == Phase::AwaitingCredentials => format!("{}\n", error.message),
        _ => String::new(),
    }
}

/// Replaces the content of the file at `path`, if it exists. Logs a failure.
fn replace_message(path: &Path, text: &str) {
    match write(path, text.as_bytes()) {
        // Kubernetes creates the file for each container; elsewhere it does not exist.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(path = %path.display(), %error, "cannot write startup.termination_message"),
        Ok(()) => {}
    }
}

/// Replaces the content of an existing file. A file that would block, such as a pipe without a reader, is an error.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options.open(path)?.write_all(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::token::{Clock, LockoutStatus, Phase, channel};

    #[test]
    fn a_rejection_fails_startup_only_with_durable_state() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Durability::of(None), Durability::Memory);
        assert!(matches!(Durability::of(Some(dir.path())), Durability::Directory | Durability::Overlay));
        assert_eq!(Durability::of(Some(&dir.path().join("missing"))), Durability::Overlay);
        for (durability, permits) in
            [(Durability::Memory, false), (Durability::Overlay, false), (Durability::Directory, true)]
        {
            assert_eq!(durability.permits_failure(true), permits);
            assert!(!durability.permits_failure(false));
        }
    }

    #[test]
    fn a_termination_message_is_replaced_and_creates_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        replace_message(&path, "text");
        assert!(!path.exists());
        fs::write(&path, "x".repeat(5000)).unwrap();
        let (_writer, token) = channel(Clock::Boot, Duration::from_secs(2));
        replace_message(&path, &termination_message(Some(Refusal::BudgetSpent), &token.status()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("too many") && text.contains("--override-budget") && text.len() < 4096, "{text}");
        replace_message(&path, "");
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[tokio::test]
    async fn the_message_is_present_while_startup_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (mut writer, token) = channel(Clock::Boot, Duration::from_secs(2));
        let (sender, mut refused) = watch::channel(None);
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow(token, sender, Some(file.path().to_owned()), String::new(), stop.clone()));
        let latched = LockoutStatus { latched: true, ..LockoutStatus::default() };
        writer.set_status(Phase::Rejected, None, latched);
        refused.wait_for(Option::is_some).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        assert!(fs::read_to_string(file.path()).unwrap().starts_with("the credentials were rejected"));
    }
}
