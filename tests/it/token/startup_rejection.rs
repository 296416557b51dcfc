//! Startup with credentials that the token endpoint rejects: the startup probe, the cost of restarts, and the recovery.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    APP_KEY, CLIENT_ID, CLIENT_SECRET, TIMEOUT,
    process::{Process, Proxy, program, serve_command},
    upstream::{Reply, Upstream},
};

const IGNORED: &str = "startup.fail_on_rejection is ignored";

/// A directory that is not on an overlay file system. In a container, the default temporary directory can be on one.
fn volume() -> TempDir {
    const OVERLAYFS: i64 = 0x794c_7630;
    let dir = tempfile::tempdir().unwrap();
    if rustix::fs::statfs(dir.path()).unwrap().f_type as i64 != OVERLAYFS {
        return dir;
    }
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// A mounted Secret, as the kubelet writes it.
struct Mount(TempDir);

impl Mount {
    fn new(secret: &str) -> Self {
        let mount = Self(tempfile::tempdir().unwrap());
        for name in ["client_id", "client_secret", "app_key"] {
            symlink(Path::new("..data").join(name), mount.0.path().join(name)).unwrap();
        }
        mount.write(1, secret);
        mount
    }

    fn write(&self, generation: u32, secret: &str) {
        let dir = self.0.path().join(format!("..{generation}"));
        fs::create_dir(&dir).unwrap();
        for (name, value) in [("client_id", CLIENT_ID), ("client_secret", secret), ("app_key", APP_KEY)] {
            fs::write(dir.join(name), value).unwrap();
        }
        let (new, current) = (self.0.path().join("..new"), self.0.path().join("..data"));
        symlink(format!("..{generation}"), &new).unwrap();
        fs::rename(new, current).unwrap();
    }
}

/// The files of one pod.
struct Pod {
    mount: Mount,
    state: TempDir,
    message: PathBuf,
}

impl Pod {
    fn new() -> Self {
        let (mount, state) = (Mount::new("wrong-secret-1"), volume());
        let message = mount.0.path().join("termination-log");
        fs::write(&message, "").unwrap();
        Self { mount, state, message }
    }

    fn launch(&self, upstream: &Upstream, more: &[(&str, &str)]) -> Proxy {
        let text = |path: &Path| path.display().to_string();
        let (dir, state, message) = (text(self.mount.0.path()), text(self.state.path()), text(&self.message));
        let own = [
            ("FINICITY__CREDENTIALS__SOURCE", "dir"),
            ("FINICITY__CREDENTIALS__DIR", &dir),
            ("FINICITY__AUTH__STATE_DIR", &state),
            ("FINICITY__STARTUP__TERMINATION_MESSAGE", &message),
            ("FINICITY__STARTUP__FAIL_ON_REJECTION", "true"),
        ];
        Proxy::launch(upstream, &[&own, more].concat())
    }
}

/// Waits until `/startupz` responds with `status` and `text`, and returns the body.
#[track_caller]
fn wait_for_startup(proxy: &Proxy, status: u16, text: &str) -> String {
    let end = Instant::now() + TIMEOUT;
    loop {
        let response = proxy.ops().get("/startupz");
        if response.status == status && response.text().contains(text) {
            return response.text();
        }
        assert!(Instant::now() < end, "{} {}", response.status, response.text());
        std::thread::yield_now();
    }
}

#[track_caller]
fn wait_for_message(pod: &Pod, matches: impl Fn(&str) -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !matches(&fs::read_to_string(&pod.message).unwrap()) {
        assert!(Instant::now() < end, "{}", fs::read_to_string(&pod.message).unwrap());
        std::thread::yield_now();
    }
}

#[test]
fn ten_restarts_with_a_wrong_secret_make_one_token_request() {
    let (upstream, pod) = (Upstream::start_checking_secret(), Pod::new());
    for restart in 0..10 {
        let mut proxy = pod.launch(&upstream, &[]);
        let text = wait_for_startup(&proxy, 503, "rejected");
        for part in ["not ok: the credentials were rejected", "correct the Secret", "`finicity-proxy lockout reset`"] {
            assert!(text.contains(part), "{text}");
        }
        wait_for_message(&pod, |message| format!("not ok: {message}") == text);
        assert_eq!((proxy.ops().get("/livez").status, proxy.ops().get("/readyz").status), (200, 503));
        proxy.connect().get("/x").assert_problem(503, "credentials_rejected");
        assert!(!proxy.process.output().contains(IGNORED));
        proxy.process.signal(if restart % 2 == 0 { Signal::TERM } else { Signal::KILL });
        proxy.process.wait();
        assert!(
            fs::read_to_string(&pod.message).unwrap().contains("rejected"),
            "the kubelet reads the message after the exit"
        );
    }
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_corrected_secret_passes_startup_without_a_restart() {
    let (upstream, pod) = (Upstream::start_checking_secret(), Pod::new());
    let proxy = pod.launch(&upstream, &[]);
    wait_for_startup(&proxy, 503, "rejected");
    pod.mount.write(2, CLIENT_SECRET);
    assert_eq!(wait_for_startup(&proxy, 200, "ok"), "ok\n");
    wait_for_message(&pod, str::is_empty);
    assert_eq!(proxy.connect().get("/x").status, 200);
    assert_eq!(upstream.received().iter().filter(|request| request.target() == "/oauth/token").count(), 2);
}

#[test]
fn a_second_wrong_secret_keeps_startup_failing() {
    let (upstream, pod) = (Upstream::start_checking_secret(), Pod::new());
    let proxy = pod.launch(&upstream, &[]);
    wait_for_startup(&proxy, 503, "rejected");
    pod.mount.write(2, "wrong-secret-2");
    while upstream.received().len() < 2 {
        assert_eq!(proxy.ops().get("/startupz").status, 503);
    }
    proxy.process.wait_for_log(
        "new credentials rejected; they are not tried again, and the old ones stay in use: correct the new credentials",
    );
    assert_eq!(proxy.ops().get("/startupz").status, 503);
}

#[test]
fn a_rejection_without_persistent_state_passes_startup() {
    let upstream = Upstream::start_checking_secret();
    let variables = [("FINICITY_CLIENT_SECRET", "wrong-secret-1"), ("FINICITY__STARTUP__FAIL_ON_REJECTION", "true")];
    let proxy = Proxy::launch(&upstream, &variables);
    let warning = proxy.process.wait_for_line(|line| line.contains(IGNORED));
    assert!(warning.contains(r#""level":"WARN""#) && warning.contains("in memory only"), "{warning}");
    proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
    assert_eq!(wait_for_startup(&proxy, 200, "ok"), "ok\n");
}

#[test]
fn a_rejection_by_default_and_any_outage_pass_startup() {
    let (rejecting, pod) = (Upstream::start_checking_secret(), Pod::new());
    let proxy = pod.launch(&rejecting, &[("FINICITY__STARTUP__FAIL_ON_REJECTION", "false")]);
    proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
    wait_for_startup(&proxy, 200, "ok");
    wait_for_message(&pod, |message| message.contains("rejected"));

    let down = Upstream::start_raw(|_| Reply::status(503, "Service Unavailable", "{}"));
    let pod = Pod::new();
    let proxy = pod.launch(&down, &[]);
    proxy.process.wait_for_log("token refresh failed");
    wait_for_startup(&proxy, 200, "ok");
    assert_eq!(fs::read_to_string(&pod.message).unwrap(), "");
}

#[test]
fn require_token_reports_the_rejection() {
    let (upstream, pod) = (Upstream::start_checking_secret(), Pod::new());
    let variables = [("FINICITY__STARTUP__FAIL_ON_REJECTION", "false"), ("FINICITY__STARTUP__REQUIRE_TOKEN", "true")];
    let proxy = pod.launch(&upstream, &variables);
    wait_for_startup(&proxy, 503, "not ok: the credentials were rejected");
}

#[test]
fn lockout_reset_passes_startup_only_with_a_token() {
    let (upstream, pod) = (Upstream::start_checking_secret(), Pod::new());
    let socket = pod.mount.0.path().join("admin.sock").display().to_string();
    let proxy = pod.launch(&upstream, &[("FINICITY__ADMIN__SOCKET", &socket)]);
    wait_for_startup(&proxy, 503, "rejected");
    let mut command = program();
    command.args(["lockout", "reset", "--set", &format!("admin.socket={socket}")]);
    let mut reset = Process::start(command);
    while upstream.received().len() < 2 {
        assert_eq!(proxy.ops().get("/startupz").status, 503);
    }
    assert_eq!(reset.wait().code(), Some(0), "{}", reset.output());
    proxy.process.wait_for_lines(2, |line| line.contains("credentials rejected"));
    assert_eq!(proxy.ops().get("/startupz").status, 503);
}

#[test]
fn an_unusable_termination_message_file_is_tolerated() {
    let upstream = Upstream::start_checking_secret();
    let dir = tempfile::tempdir().unwrap();
    let (missing, fifo) = (dir.path().join("missing"), dir.path().join("fifo"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    for (path, warns) in [(&missing, false), (&fifo, true)] {
        let path = path.display().to_string();
        let variables =
            [("FINICITY_CLIENT_SECRET", "wrong-secret-1"), ("FINICITY__STARTUP__TERMINATION_MESSAGE", path.as_str())];
        let mut proxy = Proxy::run(serve_command(&upstream, &variables));
        proxy.process.wait_for_line(|line| line.contains("credentials rejected"));
        proxy.process.signal(Signal::TERM);
        assert_eq!(proxy.process.wait().code(), Some(0));
        assert_eq!(!proxy.process.logs("cannot write startup.termination_message").is_empty(), warns);
        assert!(!missing.exists());
    }
}
