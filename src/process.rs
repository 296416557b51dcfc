//! What the process may use, and what others may learn of it.
//!
//! Secrets lie in its memory and, where they came as variables, in its environment. [`harden`] keeps both from other processes
//! of the same user, and from core files. It cannot keep them from root, who may read any memory, nor from whoever could read
//! the process before it ran or the place that the secrets came from.
//!
//! Deliberately absent: locking memory against swapping (`mlockall` needs a limit that containers seldom grant, and Kubernetes
//! runs without swap), system call filters (the container runtime has them), and wiping the environment block, which lies
//! outside of everything that safe code can write to.

pub mod build_info;
pub mod drain;
pub mod file_watch;
pub mod service_manager;
pub mod shared_state;
pub mod signal;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A protection that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// Processes of the same user can read memory and environment.
    #[error("other processes of this user can read the memory and the environment of this one")]
    Dumpable(#[source] io::Error),
    /// A crash may write the memory to a file.
    #[error("a crash may write the memory of this process to a core file")]
    CoreFile(#[source] io::Error),
}

/// Makes memory and environment unreadable for other processes but root's, and forbids core files. To be called before the
/// first secret is read. Returns what could not be set up.
///
/// It needs both: a limit of 0 does not keep a core from a program that the kernel pipes it into, and whoever makes the process
/// readable again, a debugger of root's for one, has not asked for core files.
pub fn harden() -> Vec<HardeningError> {
    let zero = Rlimit { current: Some(0), maximum: Some(0) };
    let core_file = setrlimit(Resource::Core, zero).map_err(|error| HardeningError::CoreFile(error.into()));
    [set_not_dumpable(), core_file].into_iter().filter_map(Result::err).collect()
}

#[cfg(target_os = "linux")]
fn set_not_dumpable() -> Result<(), HardeningError> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| HardeningError::Dumpable(error.into()))
}

#[cfg(not(target_os = "linux"))]
fn set_not_dumpable() -> Result<(), HardeningError> {
    Err(HardeningError::Dumpable(io::ErrorKind::Unsupported.into()))
}

/// How many files and connections the process may have open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFileLimit {
    /// The limit that the process was started with; `None` for none.
    pub initial: Option<u64>,
    /// The limit that it has now.
    pub current: Option<u64>,
}

/// Raises the limit of open files to the most that the process may give itself. Returns what it is then; a system that refuses
/// leaves it as it was.
pub fn raise_open_file_limit() -> OpenFileLimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    OpenFileLimit { initial: current, current: if raised { maximum } else { current } }
}
