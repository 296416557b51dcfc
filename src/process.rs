//! Process hardening and resource limits.
//!
//! Secrets are in the memory of the process and, if they were set as variables, in its environment. [`harden`] protects both from
//! other processes of the same user and from core files. It cannot protect them from root, from a process that read them before
//! `harden`, or from a reader of their source.
//!
//! Deliberately absent: locking memory against swapping (`mlockall` needs a limit that containers rarely grant, and Kubernetes runs
//! without swap), system call filters (the container runtime has them), and wiping the environment block, which safe code cannot
//! write to.

pub mod build_info;
pub mod drain;
pub mod file_watch;
pub mod service_manager;
pub mod shared_state;
pub mod signal;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A protection that could not be enabled.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// Other processes of the same user can read memory and environment.
    #[error("other processes of this user can read the memory and environment of this process")]
    Dumpable(#[source] io::Error),
    /// A crash may write the memory to a file.
    #[error("a crash may write the memory of this process to a core file")]
    CoreFile(#[source] io::Error),
}

/// Makes memory and environment unreadable for all other processes except root's, and disables core files. Call it before the first
/// secret is read. Returns the protections that could not be enabled.
///
/// Both settings are needed: a core limit of 0 does not apply if the kernel pipes the core to a program, and a process that is made
/// dumpable again, for example by root's debugger, must still write no core file.
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

/// The maximum number of open files and connections (`RLIMIT_NOFILE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFileLimit {
    /// The soft limit at process start; `None` if unlimited.
    pub initial: Option<u64>,
    /// The current soft limit; `None` if unlimited.
    pub current: Option<u64>,
}

/// Raises the soft limit of open files (`RLIMIT_NOFILE`) to the hard limit, and returns the result. If the system denies this, the limit
/// is unchanged.
pub fn raise_open_file_limit() -> OpenFileLimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    OpenFileLimit { initial: current, current: if raised { maximum } else { current } }
}
