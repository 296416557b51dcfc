//! Hardening: what other processes can learn about this one.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::{
        fs::{FileExt as _, PermissionsExt as _},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::process::{Signal, getuid};
use tempfile::TempDir;

use crate::support::{
    process::{Process, serve_command},
    upstream::{Reply, Upstream},
};

/// An unprivileged user, for tests that run as root: root can read everything.
const UNPRIVILEGED_UID: u32 = 65532;

fn is_root() -> bool {
    getuid().is_root()
}

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// `serve` in front of `upstream`, run by `program`.
fn serve_by(program: impl AsRef<Path>, upstream: &Upstream) -> Command {
    let serve = serve_command(upstream, &[]);
    let mut command = Command::new(program.as_ref());
    command.env_clear().envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null());
    command
}

/// `serve`, run by a shell after the commands `first`.
fn serve_after(first: &str, upstream: &Upstream) -> Command {
    let mut command = serve_by("/bin/sh", upstream);
    command.args(["-c", &format!("{first}; exec \"$0\" serve"), env!("CARGO_BIN_EXE_finicity-proxy")]);
    command
}

/// Runs `command` as an unprivileged user.
fn as_unprivileged(command: &mut Command) -> &mut Command {
    if is_root() { command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID) } else { command }
}

/// A copy of the program that an unprivileged user can run.
fn unprivileged_program() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("finicity-proxy");
    // Copied by another process: a child process of another test could inherit the open file, and a file open for writing cannot be run.
    let copied = Command::new("/bin/cp").arg(env!("CARGO_BIN_EXE_finicity-proxy")).arg(&path).status().unwrap();
    assert!(copied.success());
    for path in [dir.path(), &path] {
        open_to_all(path);
    }
    (dir, path)
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Reads `/proc/PID/file` as an unprivileged user.
fn read_unprivileged(pid: u32, file: &str) -> Output {
    as_unprivileged(Command::new("/bin/cat").arg(format!("/proc/{pid}/{file}"))).output().unwrap()
}

/// The soft and hard limit `name` in `/proc/PID/limits`.
fn limit(pid: u32, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn l05_l06_other_processes_cannot_read_environment_or_memory() {
    let upstream = upstream();
    open_to_all(upstream.ca_file().parent().unwrap());
    let (_dir, program) = unprivileged_program();
    let mut command = serve_by(&program, &upstream);
    as_unprivileged(command.arg("serve"));
    let process = Process::start(command);
    process.wait_for_log("token obtained");
    for file in ["environ", "mem", "maps", "auxv", "io"] {
        let read = read_unprivileged(process.id(), file);
        assert!(!read.status.success() && read.stdout.is_empty(), "{file}: {read:?}");
        assert!(String::from_utf8_lossy(&read.stderr).contains("Permission denied"), "{read:?}");
    }
    assert_eq!(process.logs("cannot harden the process").len(), 0);

    // A process without hardening can be read.
    let mut command = Command::new("/bin/cat");
    as_unprivileged(command.env("CANARY", "a-value").stdin(Stdio::piped()).stdout(Stdio::null()));
    let mut plain = command.spawn().unwrap();
    let read = read_unprivileged(plain.id(), "environ");
    assert!(String::from_utf8_lossy(&read.stdout).contains("CANARY=a-value"), "{read:?}");
    drop(plain.stdin.take());
    plain.wait().unwrap();
}

#[test]
fn l05_no_signal_leaves_a_core_file() {
    // Not SIGSEGV: the first one only removes the stack overflow handler of Rust. Not SIGQUIT: shells make background processes ignore
    // it, and this process would inherit that.
    for signal in [Signal::TRAP, Signal::ABORT] {
        let (upstream, dir) = (upstream(), tempfile::tempdir().unwrap());
        let mut command = serve_after("ulimit -S -c $(ulimit -H -c)", &upstream);
        command.current_dir(dir.path());
        let mut process = Process::start(command);
        process.wait_for_log("listening");
        assert_eq!(limit(process.id(), "Max core file size"), "0 0");
        process.signal(signal);
        let status = process.wait();
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal.as_raw()), false));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn rlimit_nofile_is_raised() {
    let upstream = upstream();
    let process = Process::start(serve_after("ulimit -S -n 256; ulimit -H -n 512", &upstream));
    let line = process.wait_for_log("open file limit");
    assert_eq!((&line["initial"], &line["limit"]), (&256.into(), &512.into()), "{line}");
    assert_eq!(limit(process.id(), "Max open files"), "512 512");
}

/// A secret of `length` bytes derived from `name`. Secrets are long and of different lengths, so that an allocator that reuses freed
/// memory does not overwrite them by chance.
fn long(name: &str, length: usize) -> String {
    name.chars().cycle().take(length - "-the-end".len()).chain("-the-end".chars()).collect()
}

#[test]
fn l11_replaced_tokens_and_secret_copies_are_overwritten() {
    const LENGTHS: [usize; 3] = [600, 900, 300];
    let token = |version: usize| long(&format!("canarytoken{version}-"), LENGTHS[version - 1]);
    // Two short-lived tokens and a long-lived one, so that no token request is in flight while the memory is read.
    let versions = AtomicUsize::new(0);
    let upstream = Upstream::start_raw(move |_| {
        let version = versions.fetch_add(1, Ordering::SeqCst) + 1;
        let (token, lifetime) = (token(version), if version < 3 { 4 } else { 3600 });
        Reply::json(&format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{lifetime}}}"#))
    });
    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("secret"), long("canarysecret-", 500));
    fs::write(&path, format!("{secret}\n")).unwrap();
    let mut command = serve_command(&upstream, &[]);
    command.env_remove("FINICITY_CLIENT_SECRET").env("FINICITY_CLIENT_SECRET_FILE", &path);
    let process = Process::start(command);
    process.wait_for_lines(3, |line| line.contains(r#""message":"token obtained""#));

    // Only root can read the memory, and not in every container.
    let Some(memory) = memory(process.id()) else { return };
    let places = |text: &str| {
        let end = &text.as_bytes()[text.len() - 200..];
        memory.windows(201).filter(|window| window.starts_with(end)).map(|window| window[200]).collect::<Vec<_>>()
    };
    // In the response, which is in buffers of libraries, a quotation mark follows.
    let own = |version| places(&token(version)).into_iter().filter(|next| *next != b'"').count();
    // The scrubber has a copy of each secret that it searches for: the current token, the previous one, and the client secret.
    assert_eq!([1, 2, 3].map(own), [0, 1, 2], "only the token in use, and the copies of the scrubber");
    assert_eq!(places(&secret).len(), 2, "the secret, and the copy of the scrubber");
}

/// All writable memory of the process, including its environment. `None` if this test cannot read it.
fn memory(pid: u32) -> Option<Vec<u8>> {
    let open = |file: &str| match File::open(format!("/proc/{pid}/{file}")) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        opened => Some(opened.unwrap()),
    };
    let (maps, memory) = (std::io::read_to_string(open("maps")?).unwrap(), open("mem")?);
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        // The region can have been unmapped in the meantime.
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.append(&mut part);
        }
    }
    Some(all)
}
