//! What others can learn of the process from outside of it.

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

/// A user who is not root, for tests that root runs: what root may read proves nothing.
const NOBODY: u32 = 65532;

fn is_root() -> bool {
    getuid().is_root()
}

fn upstream() -> Upstream {
    Upstream::start(3600, |_| Reply::json("{}"))
}

/// `serve` in front of `upstream`, by another `program`.
fn serve_by(program: impl AsRef<Path>, upstream: &Upstream) -> Command {
    let serve = serve_command(upstream, &[]);
    let mut command = Command::new(program.as_ref());
    command.env_clear().envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null());
    command
}

/// `serve`, by a shell that runs `first`.
fn serve_after(first: &str, upstream: &Upstream) -> Command {
    let mut command = serve_by("/bin/sh", upstream);
    command.args(["-c", &format!("{first}; exec \"$0\" serve"), env!("CARGO_BIN_EXE_finicity-proxy")]);
    command
}

/// `command` as a user who is not root.
fn as_nobody(command: &mut Command) -> &mut Command {
    if is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

/// The program where such a user can run it.
fn program_for_nobody() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("finicity-proxy");
    // Not by this process: another test's child could inherit the open file, and what is open for writing cannot be run.
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

/// What such a user gets when it reads `/proc/PID/file`.
fn read_by_nobody(pid: u32, file: &str) -> Output {
    as_nobody(Command::new("/bin/cat").arg(format!("/proc/{pid}/{file}"))).output().unwrap()
}

/// The line of `/proc/PID/limits` that begins with `name`, without it.
fn limit(pid: u32, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn l05_l06_other_processes_cannot_read_environment_or_memory() {
    let upstream = upstream();
    open_to_all(upstream.ca_file().parent().unwrap());
    let (_dir, program) = program_for_nobody();
    let mut command = serve_by(&program, &upstream);
    as_nobody(command.arg("serve"));
    let process = Process::start(command);
    process.wait_for_log("token minted");
    for file in ["environ", "mem", "maps", "auxv", "io"] {
        let read = read_by_nobody(process.id(), file);
        assert!(!read.status.success() && read.stdout.is_empty(), "{file}: {read:?}");
        assert!(String::from_utf8_lossy(&read.stderr).contains("Permission denied"), "{read:?}");
    }
    assert_eq!(process.logs("the process could not be protected").len(), 0);

    // A process that does not protect itself is read without further ado.
    let mut command = Command::new("/bin/cat");
    as_nobody(command.env("CANARY", "a-value").stdin(Stdio::piped()).stdout(Stdio::null()));
    let mut plain = command.spawn().unwrap();
    let read = read_by_nobody(plain.id(), "environ");
    assert!(String::from_utf8_lossy(&read.stdout).contains("CANARY=a-value"), "{read:?}");
    drop(plain.stdin.take());
    plain.wait().unwrap();
}

#[test]
fn l05_no_signal_leaves_a_core_file() {
    // Not SIGSEGV: the first one only ends the handler that Rust has for a stack overflow. Not SIGQUIT: a shell has what it starts
    // in the background ignore it, and so would this process.
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
    let line = process.wait_for_log("the limit of open files");
    assert_eq!((&line["initial"], &line["limit"]), (&256.into(), &512.into()), "{line}");
    assert_eq!(limit(process.id(), "Max open files"), "512 512");
}

/// A secret of `length` bytes that differ from those of another name. Long, and each token of a length of its own, so that an
/// allocator that reuses freed memory does not happen to wipe what the program has left there.
fn long(name: &str, length: usize) -> String {
    name.chars().cycle().take(length - "-the-end".len()).chain("-the-end".chars()).collect()
}

#[test]
fn l11_replaced_tokens_and_secret_copies_are_overwritten() {
    const LENGTHS: [usize; 3] = [600, 900, 300];
    let token = |version: usize| long(&format!("canarytoken{version}-"), LENGTHS[version - 1]);
    // Two tokens that end soon, and one that does not, so that no call is under way while the memory is read.
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
    process.wait_for_lines(3, |line| line.contains(r#""message":"token minted""#));

    // Only root may look, and not in every container.
    let Some(memory) = memory(process.id()) else { return };
    let places = |text: &str| {
        let end = &text.as_bytes()[text.len() - 200..];
        memory.windows(201).filter(|window| window.starts_with(end)).map(|window| window[200]).collect::<Vec<_>>()
    };
    // In the answer, which libraries have in buffers of theirs, a quotation mark follows.
    let own = |version| places(&token(version)).into_iter().filter(|next| *next != b'"').count();
    // The scrubber has one of what it looks for: the present token, the one before, and the secret.
    assert_eq!([1, 2, 3].map(own), [0, 1, 2], "only the token in use, and what the scrubber looks for");
    assert_eq!(places(&secret).len(), 2, "the secret, and no copy of it but the scrubber's");
}

/// All that the process can write to, its environment included; `None` when this test may not read it.
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
        // What was given back in the meantime is no longer the process's.
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.append(&mut part);
        }
    }
    Some(all)
}
