//! A bounded load test on loopback: the real program in front of the sandbox, each as a process.
//!
//! ```console
//! $ cargo bench --bench load -- --connections 32 --seconds 5
//! ```
//!
//! Prints requests per second, the proxy's CPU time per request (user and system, from `/proc`), latencies and resident memory. Exit code 1
//! if any response was not 200. CPU time per request is almost independent of the machine's load; requests per second are not.

#![expect(clippy::print_stdout, reason = "a benchmark talks to a terminal")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "threads without a runtime are measured in real time"
)]

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The unit of times in `/proc/PID/stat` (`USER_HZ`), the same on every Linux that Rust supports.
const TICKS_A_SECOND: f64 = 100.0;

const REQUEST: &[u8] =
    b"GET /aggregation/v1/customers?limit=5 HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let seconds = argument("--seconds").unwrap_or(3);
    let connections: Vec<u64> = argument("--connections").map_or_else(|| vec![1, 32, 256], |one| vec![one]);
    match run(&connections, Duration::from_secs(seconds.min(60))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(connections: &[u64], time: Duration) -> Result<()> {
    let folder = env::temp_dir().join(format!("finicity-proxy-load-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let outcome = with_processes(&folder.join("ca.pem"), connections, time);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn with_processes(ca_file: &std::path::Path, connections: &[u64], time: Duration) -> Result<()> {
    let mut sandbox = program();
    sandbox.args(["sandbox", "--listen", "127.0.0.1:0", "--ca-file"]).arg(ca_file);
    let (_sandbox, exports) = Running::start(sandbox, "finicity-proxy serve")?;

    let mut serve = program();
    serve.args(["serve", "--set", "listen.proxy=127.0.0.1:0", "--set", "listen.ops=127.0.0.1:0"]);
    serve.args(["--set", "listen.admin=127.0.0.1:0"]);
    for word in exports.lines().filter_map(|line| line.strip_prefix("export ")).flat_map(|line| line.split(' ')) {
        let (name, value) = word.split_once('=').ok_or("the sandbox prints assignments")?;
        serve.env(name, value.trim_matches('\''));
    }
    let (proxy, log) = Running::start(serve, "token minted")?;
    let address =
        log.split(r#""proxy":""#).nth(1).and_then(|rest| rest.split('"').next()).ok_or("no address is logged")?;
    let address: SocketAddr = address.parse()?;

    println!("connections  requests/s  CPU us/request (user + system)  p50 ms  p99 ms  RSS MiB");
    for &connections in connections {
        load(address, connections, Duration::from_millis(500))?; // warm-up, not counted
        let (user, system) = proxy.cpu()?;
        let started = Instant::now();
        let mut latencies = load(address, connections, time)?;
        let elapsed = started.elapsed().as_secs_f64();
        let (user, system) = (proxy.cpu()?.0 - user, proxy.cpu()?.1 - system);
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        let at = |part: f64| latencies[((count * part) as usize).min(latencies.len() - 1)].as_secs_f64() * 1e3;
        println!(
            "{connections:>11}  {:>10.0}  {:>14.1} ({:>5.1} + {:>5.1})  {:>6.2}  {:>6.2}  {:>7.1}",
            count / elapsed,
            (user + system) / count * 1e6,
            user / count * 1e6,
            system / count * 1e6,
            at(0.5),
            at(0.99),
            proxy.resident_mib()?,
        );
    }
    Ok(())
}

/// Sends requests on `connections` connections for `time`. Returns the latency of each.
fn load(address: SocketAddr, connections: u64, time: Duration) -> Result<Vec<Duration>> {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(|| call_until(address, end))).collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

fn call_until(address: SocketAddr, end: Instant) -> Result<Vec<Duration>> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    stream.get_ref().set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut body = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        stream.get_mut().write_all(REQUEST)?;
        let mut length = 0;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(format!("a response was not 200: {line}").into());
        }
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

/// A child process. Dropping this kills it.
struct Running(Child);

impl Running {
    /// Starts `command` and waits for a line that contains `ready`. Returns the output so far.
    fn start(mut command: Command, ready: &str) -> Result<(Self, String)> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("the output is piped")?);
        let running = Self(child);
        let mut printed = String::new();
        while !printed.lines().last().is_some_and(|line| line.contains(ready)) {
            if output.read_line(&mut printed)? == 0 {
                return Err(format!("a process ended early: {printed}").into());
            }
        }
        // Read and discard the log as fast as it arrives.
        thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Ok((running, printed))
    }

    /// User and system time so far, in seconds.
    fn cpu(&self) -> Result<(f64, f64)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().ok_or("a stat line")?.split_whitespace().collect();
        Ok((fields[11].parse::<f64>()? / TICKS_A_SECOND, fields[12].parse::<f64>()? / TICKS_A_SECOND))
    }

    fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("a status line")?;
        Ok(line.split_whitespace().nth(1).ok_or("a number")?.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finicity-proxy"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}
