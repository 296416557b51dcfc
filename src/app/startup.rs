//! A start whose credentials are refused: whether it may fail for that, and where the reason is left for `kubectl describe pod`. And what
//! a service manager is notified of.

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

/// Where the lock-out state is kept, as far as it matters what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// In memory: it ends with the process.
    Memory,
    /// On an overlay file system: a container's own root, which ends with the container.
    Overlay,
    /// In a directory that outlives both.
    Directory,
}

impl Durability {
    /// That of a state in `dir`, which exists; `None` for one in memory.
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

    /// Whether a rejection may fail the start, where that is `wanted`. A start that fails is repeated, and where the state does not
    /// outlive it, each repetition costs an authentication attempt.
    pub(super) fn permits_failure(self, wanted: bool) -> bool {
        let location = match self {
            _ if !wanted => return false,
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

/// Whether `dir` is on an overlay file system. Where the system does not say, it counts as one: that only ignores a wish.
#[cfg(target_os = "linux")]
fn is_overlay(dir: &Path) -> bool {
    /// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    // The type of the field differs between architectures.
    rustix::fs::statfs(dir).map_or(true, |found| found.f_type as u64 == OVERLAYFS)
}

/// No other system has it.
#[cfg(not(target_os = "linux"))]
fn is_overlay(_dir: &Path) -> bool {
    false
}

/// Keeps `refused` at the refusal that keeps the start from succeeding, and the file `message` at the reason and remedy of that, or at
/// why the credentials have not been read yet, until `stop` is cancelled. Logs `ready` once there is the first token, with the addresses for `callers`. The kubelet reads that file when the container ends, and after a refused start that is by a signal.
pub(super) async fn follow(
    mut token: TokenReader,
    refused: watch::Sender<Option<Refusal>>,
    message: Option<PathBuf>,
    callers: String,
    stop: CancellationToken,
) {
    // One of an earlier process, where the file outlives them.
    let mut left = String::new();
    if let Some(path) = &message {
        leave(path, &left);
    }
    let mut is_ready = false;
    loop {
        if !is_ready && token.version() > 0 {
            is_ready = true;
            info!(proxy = callers, "ready");
        }
        let before = *refused.borrow();
        let status = token.status();
        let now = Refusal::of_start(before, &status);
        if now != before {
            refused.send_replace(now);
        }
        let text = termination_message(now, &status);
        if text != left {
            left = text;
            if let Some(path) = &message {
                leave(path, &left);
            }
        }
        select! {
            () = stop.cancelled() => return,
            () = token.changed() => {}
        }
    }
}

/// Notifies the service manager: of what the start waits for, of its success, which is that of `/startupz`, and of the shutdown.
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

/// Why the start does not succeed; empty when nothing is known to keep it from that.
fn termination_message(refusal: Option<Refusal>, status: &Status) -> String {
    match (refusal, &status.last_error) {
        (Some(refusal), _) => format!("{}; {}\n", refusal.reason(), refusal.remedy()),
        (None, Some(error)) if status.phase == Phase::AwaitingCredentials => format!("{}\n", error.message),
        _ => String::new(),
    }
}

/// Replaces the content of the file at `path`.
fn leave(path: &Path, text: &str) {
    match write(path, text.as_bytes()) {
        // Kubernetes makes it for each container; elsewhere there is none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(path = %path.display(), %error, "cannot write startup.termination_message"),
        Ok(()) => {}
    }
}

/// Replaces the content of an existing file. One that would block, such as a pipe without a reader, is an error.
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
    fn a_rejection_fails_the_start_only_where_it_is_remembered() {
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
    fn a_termination_message_replaces_the_one_before_and_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        leave(&path, "text");
        assert!(!path.exists());
        fs::write(&path, "x".repeat(5000)).unwrap();
        let (_writer, token) = channel(Clock::Boot, Duration::from_secs(2));
        leave(&path, &termination_message(Some(Refusal::BudgetSpent), &token.status()));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("too many") && text.contains("--override-budget") && text.len() < 4096, "{text}");
        leave(&path, "");
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[tokio::test]
    async fn the_message_is_there_while_the_start_is_refused() {
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
