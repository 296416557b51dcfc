//! The program as a child process.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{APP_KEY, CLIENT_ID, CLIENT_SECRET, TIMEOUT, canary, client::Client, upstream::Upstream};

/// The program, not started yet, with an empty environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finicity-proxy"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A running program and its output. Dropping it kills it.
pub struct Process {
    child: Child,
    output: Arc<Output>,
    allow_scrubbing: bool,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// How many of stdout and stderr are closed.
    closed: usize,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Output::default());
        collect_lines(Arc::clone(&output), child.stdout.take().unwrap());
        collect_lines(Arc::clone(&output), child.stderr.take().unwrap());
        Self { child, output, allow_scrubbing: false }
    }

    /// Permits scrubbed secrets in the output, for a test that logs them on purpose. In all other tests they are a bug.
    pub fn allow_scrubbing(&mut self) {
        self.allow_scrubbing = true;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Everything printed so far on stdout and stderr.
    pub fn output(&self) -> String {
        self.output.lines.lock().unwrap().lines.join("\n")
    }

    /// Waits for a line that `matches`. Lines that were already printed count.
    #[track_caller]
    pub fn wait_for_line(&self, matches: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + TIMEOUT;
        let mut lines = self.output.lines.lock().unwrap();
        let mut scanned = 0;
        loop {
            if let Some(line) = lines.lines[scanned..].iter().find(|line| matches(line)) {
                return line.clone();
            }
            scanned = lines.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && lines.closed < 2, "no such line in\n{}", lines.lines.join("\n"));
            lines = self.output.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for `count` lines that match.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize, matches: impl Fn(&str) -> bool) {
        let matched = std::cell::Cell::new(0);
        self.wait_for_line(|line| {
            matched.set(matched.get() + usize::from(matches(line)));
            matched.get() == count
        });
    }

    /// Waits for a JSON log line with the message `message`.
    #[track_caller]
    pub fn wait_for_log(&self, message: &str) -> Value {
        let line = self
            .wait_for_line(|line| serde_json::from_str::<Value>(line).is_ok_and(|value| value["message"] == message));
        serde_json::from_str(&line).unwrap()
    }

    /// The JSON log lines so far with the message `message`.
    pub fn logs(&self, message: &str) -> Vec<Value> {
        let lines = self.output.lines.lock().unwrap();
        let parsed = lines.lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|value| value["message"] == message).collect()
    }

    /// Waits until the process has exited and all of its output has been read.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + TIMEOUT;
        let mut lines = self.output.lines.lock().unwrap();
        while lines.closed < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the program does not exit; its output so far:\n{}", lines.lines.join("\n"));
            lines = self.output.changed.wait_timeout(lines, left).unwrap().0;
        }
        drop(lines);
        self.child.wait().unwrap()
    }

    /// The value of `field` in `/proc/PID/status`, in KiB.
    pub fn status_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    /// Kills the process, and scans its output for secrets in every test.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            let output = self.output();
            canary::scan("the output of the program", &output);
            assert!(self.allow_scrubbing || !output.contains("[scrubbed]"), "a secret was scrubbed:\n{output}");
        }
    }
}

/// Pages that need no authorization. The flag is true for pages of the ops listener, false for those of the admin listener.
const PAGES: [(bool, &str); 6] = [
    (true, "/metrics"),
    (true, "/readyz?verbose"),
    (true, "/nothing"),
    (false, "/api/status"),
    (false, "/api/log-level"),
    (false, "/nothing"),
];

/// The timeout of a page in the final scan. A process that is stopped, at its limits or shutting down can fail to respond.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);

fn collect_lines(output: Arc<Output>, from: impl Read + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            output.lines.lock().unwrap().lines.push(String::from_utf8_lossy(&line).into_owned());
            output.changed.notify_all();
        }
        output.lines.lock().unwrap().closed += 1;
        output.changed.notify_all();
    });
}

/// The proxy in front of an [`Upstream`], on free ports.
pub struct Proxy {
    pub process: Process,
    pub proxy: Vec<SocketAddr>,
    /// The Unix sockets in `listen.proxy`.
    pub sockets: Vec<PathBuf>,
    pub ops: SocketAddr,
    /// The webhook listener, if there is one.
    pub webhook: Option<SocketAddr>,
    pub admin: SocketAddr,
}

impl Drop for Proxy {
    /// Scans the pages of the running proxy for secrets in every test.
    fn drop(&mut self) {
        if thread::panicking() || !matches!(self.process.child.try_wait(), Ok(None)) {
            return;
        }
        for (ops, page) in PAGES {
            let address = if ops { self.ops } else { self.admin };
            let Ok(mut client) = Client::connect_within(address, PAGE_TIMEOUT) else { return };
            let request = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let Ok(()) = client.writer().write_all(request.as_bytes()) else { return };
            let Ok(response) = client.read_response(false) else { return };
            canary::scan(page, &format!("{:?} {}", response.headers, response.text()));
        }
    }
}

impl Proxy {
    /// Starts the proxy, and waits until it listens and has a token.
    pub fn start(upstream: &Upstream) -> Self {
        Self::start_with(upstream, &[])
    }

    /// Like [`start`](Self::start), with additional variables.
    pub fn start_with(upstream: &Upstream, variables: &[(&str, &str)]) -> Self {
        let proxy = Self::launch(upstream, variables);
        proxy.process.wait_for_log("token obtained");
        proxy
    }

    /// Starts the proxy, and waits until it listens.
    pub fn launch(upstream: &Upstream, variables: &[(&str, &str)]) -> Self {
        Self::run(serve_command(upstream, variables))
    }

    /// Runs `command`, and waits until it listens and has a token.
    pub fn run_with_token(command: Command) -> Self {
        let proxy = Self::run(command);
        proxy.process.wait_for_log("token obtained");
        proxy
    }

    /// Runs `command`, and waits until it listens.
    pub fn run(command: Command) -> Self {
        let process = Process::start(command);
        let listening = process.wait_for_log("listening");
        let listed = |name: &str| listening[name].as_str().unwrap().split(", ").map(str::to_owned).collect::<Vec<_>>();
        let (sockets, proxy): (Vec<_>, Vec<_>) =
            listed("proxy").into_iter().partition(|address| address.starts_with("unix:"));
        Self {
            process,
            proxy: proxy.iter().map(|address| address.parse().unwrap()).collect(),
            sockets: sockets.iter().map(|socket| socket.strip_prefix("unix:").unwrap().into()).collect(),
            ops: listed("ops")[0].parse().unwrap(),
            webhook: listening["webhook"].as_str().map(|webhook| webhook.split(", ").next().unwrap().parse().unwrap()),
            admin: listed("admin")[0].parse().unwrap(),
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.proxy[0])
    }

    pub fn connect_socket(&self) -> Client<UnixStream> {
        Client::connect_socket(&self.sockets[0])
    }

    /// A connection for one request, because the ops listener closes it after the response.
    pub fn ops(&self) -> Client {
        Client::connect(self.ops)
    }

    /// Waits until the metric `name` (without the prefix, with labels) has the value `expected`.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, expected: u64) {
        let line = format!("finicity_proxy_{name} {expected}");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let text = self.ops().get("/metrics").text();
            if text.lines().any(|shown| shown == line) {
                return;
            }
            assert!(Instant::now() < deadline, "{line} is not in\n{text}");
            thread::yield_now();
        }
    }
}

/// `serve` in front of `upstream`, on free ports.
pub fn serve_command(upstream: &Upstream, variables: &[(&str, &str)]) -> Command {
    let mut command = program();
    command
        .arg("serve")
        .env("FINICITY_CLIENT_ID", CLIENT_ID)
        .env("FINICITY_CLIENT_SECRET", CLIENT_SECRET)
        .env("FINICITY_APP_KEY", APP_KEY)
        .env("FINICITY__UPSTREAM__URL", upstream.url())
        .env("FINICITY__UPSTREAM__CA_FILE", upstream.ca_file())
        .env("FINICITY__LISTEN__PROXY", "127.0.0.1:0,[::1]:0")
        .env("FINICITY__LISTEN__OPS", "127.0.0.1:0")
        .env("FINICITY__LISTEN__ADMIN", "127.0.0.1:0")
        // All logs of all crates, so that the scan for secrets is meaningful.
        .env("FINICITY__LOG__LEVEL", "trace")
        .envs(variables.iter().copied());
    command
}

/// Like [`serve_command`], with partner credentials only.
pub fn partner_command(upstream: &Upstream, variables: &[(&str, &str)]) -> Command {
    let mut command = serve_command(upstream, &[]);
    command.env_remove("FINICITY_CLIENT_ID").env_remove("FINICITY_CLIENT_SECRET");
    command.env("FINICITY_PARTNER_ID", CLIENT_ID).env("FINICITY_PARTNER_SECRET", CLIENT_SECRET);
    command.envs(variables.iter().copied());
    command
}
