//! Runs the program as processes: the sandbox, and the proxy in front of it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Result,
    tool::{Count, Tool},
};

/// A temporary folder, removed on drop.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates the folder.
    pub(super) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("finicity-proxy-budget-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// The path of `name` in the folder.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running sandbox.
pub(super) struct Sandbox {
    _child: ChildGuard,
    /// The environment variables for a proxy in front of it.
    variables: Vec<(String, String)>,
}

impl Sandbox {
    /// Starts the sandbox of `program`.
    pub(super) fn start(program: &Path, folder: &Folder) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(folder.join("ca.pem"));
        let mut starting = Starting::spawn(command)?;
        let printed = starting.wait_for("finicity-proxy serve")?;
        let exports = printed.lines().filter_map(|line| line.trim_start().strip_prefix("export "));
        let assignments = exports.flat_map(|line| line.split(' ')).filter_map(|word| word.split_once('='));
        let variables =
            assignments.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect();
        Ok(Self { variables, _child: starting.discard_output() })
    }
}

/// A running proxy. It has one worker, so that the figures do not depend on the number of cores.
pub(super) struct Proxy {
    child: ChildGuard,
    program: PathBuf,
    socket: PathBuf,
    /// The address for requests.
    pub(super) address: SocketAddr,
    /// The time from the start until it listened.
    pub(super) started_in: Duration,
}

impl Proxy {
    /// Starts `program` without a tool, and waits until it has a token.
    pub(super) fn start(program: &Path, sandbox: &Sandbox, folder: &Folder) -> Result<Self> {
        Self::spawn(Command::new(program), program, sandbox, folder)
    }

    fn spawn(mut command: Command, program: &Path, sandbox: &Sandbox, folder: &Folder) -> Result<Self> {
        let socket = folder.join("admin.sock");
        let set = [
            "listen.proxy=127.0.0.1:0",
            "listen.ops=127.0.0.1:0",
            "listen.admin=127.0.0.1:0",
            "runtime.worker_threads=1",
            // No load balancer needs time to notice the shutdown.
            "shutdown.drain_delay=0s",
            &format!("admin.socket={}", socket.display()),
        ];
        command.arg("serve").args(set.iter().flat_map(|set| ["--set", set]));
        let search = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", search).envs(sandbox.variables.iter().map(|(name, value)| (name, value)));
        let started = Instant::now();
        let mut starting = Starting::spawn(command)?;
        let log = starting.wait_for("\"listening\"")?;
        let started_in = started.elapsed();
        let address = log.split(r#""proxy":""#).nth(1).and_then(|rest| rest.split('"').next());
        let address = address.ok_or("the log names no address")?.parse()?;
        starting.wait_for("token minted")?;
        Ok(Self { child: starting.discard_output(), program: program.to_owned(), socket, address, started_in })
    }

    /// Shuts the proxy down and waits for its end.
    ///
    /// # Errors
    ///
    /// If the shutdown command or the proxy fails.
    pub(super) fn end(mut self) -> Result<()> {
        let mut shutdown = Command::new(&self.program);
        shutdown.env_clear().args(["shutdown", "--set", &format!("admin.socket={}", self.socket.display())]);
        let output = shutdown.stdin(Stdio::null()).output()?;
        let status = self.child.0.wait()?;
        if output.status.success() && status.success() {
            return Ok(());
        }
        Err(format!("the proxy ended with {status}; shutdown printed: {}", String::from_utf8_lossy(&output.stderr))
            .into())
    }

    /// The resident memory, in KiB.
    pub(super) fn resident_kib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("the kernel reports no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("VmRSS is a number")?.parse()?)
    }
}

/// The count of `tool` for a complete run of the proxy that includes `work`.
///
/// # Errors
///
/// If the proxy, the tool or `work` fails.
pub(super) fn count(
    tool: Tool,
    program: &Path,
    sandbox: &Sandbox,
    folder: &Folder,
    work: impl FnOnce(&Proxy) -> Result<()>,
) -> Result<Count> {
    let report = folder.join("report");
    let proxy = Proxy::spawn(tool.command(program, &report), program, sandbox, folder);
    let proxy = proxy.map_err(|error| match fs::read_to_string(&report) {
        Ok(report) => format!("{error}\n{report}").into(),
        Err(_) => error,
    })?;
    work(&proxy)?;
    proxy.end()?;
    tool.read(&fs::read_to_string(report)?)
}

/// A child process, killed on drop if it is still running.
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A starting process, with its output.
struct Starting {
    child: ChildGuard,
    output: BufReader<ChildStdout>,
}

impl Starting {
    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the output is piped")?;
        Ok(Self { child: ChildGuard(child), output: BufReader::new(output) })
    }

    /// Waits for a line that contains `word`. Returns the output since the previous call.
    fn wait_for(&mut self, word: &str) -> Result<String> {
        let mut printed = String::new();
        while !printed.lines().last().is_some_and(|line| line.contains(word)) {
            if self.output.read_line(&mut printed)? == 0 {
                return Err(format!("a process ended before it printed {word:?}: {printed}").into());
            }
        }
        Ok(printed)
    }

    /// Stops looking at the output: it is read and discarded as fast as it arrives.
    fn discard_output(self) -> ChildGuard {
        let Self { child, mut output } = self;
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        child
    }
}
