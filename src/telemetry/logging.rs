//! Logs: `tracing` events as JSON lines, or as text for a terminal.
//!
//! Deliberately absent: spans around requests (the access line contains everything), and events with header values, bodies, query strings
//! or raw paths.

use std::{
    fmt::Display,
    io::{self, Write},
    panic,
    sync::{LazyLock, OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing_subscriber::{fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _, util::TryInitError};

use super::{Levels, LogLevel, Scrubber, text_format, writer::LogWriter};

/// How long the shutdown waits for output that makes no progress, because the reader has stopped or the machine is busy. It waits because
/// the last lines are the most important ones for an incident.
const FLUSH_STALL: Duration = Duration::from_secs(5);

/// How long the shutdown waits for output that makes progress: the default grace period of a pod, after which the pod is killed anyway.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// How long a command waits for its error message to be written. If that fails, the exit code still reports the error.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a panic waits for the log to be flushed. Short, because the panic may be that of a single request, and blocks its worker.
const PANIC_FLUSH: Duration = Duration::from_millis(200);

/// Global, because the outputs of the process are.
static LOG: OnceLock<Log> = OnceLock::new();
static SCRUBBER: LazyLock<Scrubber> = LazyLock::new(Scrubber::default);

#[derive(Debug)]
struct Log {
    writer: LogWriter,
    format: Format,
    level: LogLevel,
}

/// Log format and levels.
#[derive(Clone, Debug)]
pub struct Config {
    /// The format of a line. `None`: text on a terminal, JSON otherwise.
    pub format: Option<Format>,
    /// The levels at startup.
    pub level: Levels,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// Text for a terminal.
    Human,
}

/// Where logs are written.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// Standard output, where a container's logs are read.
    Stdout,
    /// Standard error, for commands that print results on standard output.
    Stderr,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The writer thread cannot be started.
    #[error("cannot start the log writer")]
    Thread(#[source] io::Error),
    /// Logging was set up before.
    #[error("logging is already set up")]
    AlreadyInitialized(#[source] TryInitError),
}

/// Sets up logging for the whole process. Call this once.
///
/// # Errors
///
/// The writer thread cannot be started, or logging was set up before.
pub fn init(config: &Config, output: Output) -> Result<(), Error> {
    use io::IsTerminal as _;

    match output {
        Output::Stdout => init_to(config, io::stdout(), io::stdout().is_terminal()),
        Output::Stderr => init_to(config, io::stderr(), io::stderr().is_terminal()),
    }
}

/// Like [`init`], with any `output`. `is_terminal` permits colours, and selects the format if none is configured.
///
/// # Errors
///
/// As for [`init`].
pub fn init_to(config: &Config, output: impl Write + Send + 'static, is_terminal: bool) -> Result<(), Error> {
    let writer = LogWriter::spawn(output, scrubber()).map_err(Error::Thread)?;
    let (filter, level) = LogLevel::layer(config.level.clone());
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(writer.clone());
    let automatic = if is_terminal { Format::Human } else { Format::Json };
    let format = config.format.unwrap_or(automatic);
    match format {
        Format::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
        Format::Human => {
            #[expect(
                clippy::disallowed_methods,
                reason = "NO_COLOR is a property of the terminal, not of the configuration"
            )]
            let colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
            let lines = lines.with_ansi(colours).with_timer(text_format::TimeOfDay);
            registry.with(lines.fmt_fields(text_format::fields())).try_init()
        }
    }
    .map_err(Error::AlreadyInitialized)?;
    let _ = LOG.set(Log { writer, format, level });
    Ok(())
}

/// Removes secrets from all output of this process. Code that creates a secret registers it here.
pub fn scrubber() -> Scrubber {
    SCRUBBER.clone()
}

/// The log levels of this process. The handle has no effect if logging is not set up.
pub fn level() -> LogLevel {
    LOG.get().map_or_else(|| LogLevel::noop(Levels::default()), |log| log.level.clone())
}

/// Waits until all log lines are written. Gives up after `FLUSH_STALL` without progress, or after `FLUSH_LIMIT`.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.writer.flush(FLUSH_STALL, FLUSH_LIMIT);
    }
}

/// The number of log lines dropped because the output was not read in time.
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.writer.dropped())
}

/// Calls `write` with the log and its format, if logging is set up.
pub(super) fn with_log(write: impl FnOnce(&LogWriter, Format)) {
    if let Some(log) = LOG.get() {
        write(&log.writer, log.format);
    }
}

/// Prints `text` and a line break on standard output, with registered secrets scrubbed. Ignores write errors, such as a closed pipe.
pub fn print(text: impl Display) {
    print_to(io::stdout(), &text);
}

/// Like [`print()`], on standard error. Waits at most `STDERR_TIMEOUT` for the text to be written.
pub fn eprint(text: impl Display) {
    let text = format!("{text}");
    let (done, written) = mpsc::channel::<()>();
    let write = move || {
        print_to(io::stderr(), &text);
        drop(done);
    };
    if thread::Builder::new().spawn(write).is_ok() {
        // The sender is dropped once the text is written.
        let _ = written.recv_timeout(STDERR_TIMEOUT);
    }
}

fn print_to(mut output: impl Write, text: &impl Display) {
    let mut text = format!("{text}\n").into_bytes();
    SCRUBBER.scrub(&mut text);
    let _ = output.write_all(&text).and_then(|()| output.flush());
}

/// Reports panics in the log, or on standard error before logging is set up. Only the location is reported, because the message may quote
/// a value.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let thread = thread::current().name().map(str::to_owned);
        // A thread that panicked while it held the log's lock cannot use the log.
        let Some(log) = LOG.get().filter(|log| log.writer.is_available()) else {
            let location = location.unwrap_or_default();
            return eprint(format_args!("finicity-proxy: panic at {location}: this is a bug, please report it"));
        };
        tracing::error!(location, thread, "panic: this is a bug in finicity-proxy, please report it with this line");
        log.writer.flush(PANIC_FLUSH, PANIC_FLUSH);
    }));
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    const CHILD: &str = "FINICITY_TEST_PANIC";

    /// The output of `test`, run alone in another process with `stage` in its environment.
    fn run_alone(test: &str, stage: &str) -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, stage).env("RUST_BACKTRACE", "full");
        let output = command.output().unwrap();
        assert!(!output.status.success(), "it must panic");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    #[test]
    fn a_panic_while_the_log_is_locked_is_reported() {
        if env::var(CHILD).is_err() {
            let this = "telemetry::logging::tests::a_panic_while_the_log_is_locked_is_reported";
            let output = run_alone(this, "locked");
            for expected in ["finicity-proxy: panic at src/telemetry/writer.rs:", r#""message":"after it"#] {
                assert!(output.contains(expected), "{output}");
            }
            assert!(!output.contains("canary"), "{output}");
            return;
        }
        // Makes the test fail instead of hang.
        thread::spawn(|| {
            thread::park_timeout(Duration::from_secs(30));
            std::process::exit(3);
        });
        install_panic_hook();
        init(&Config { format: Some(Format::Json), level: "info".parse().unwrap() }, Output::Stdout).unwrap();
        let panicked = thread::spawn(|| LOG.get().unwrap().writer.panic_while_locked()).join();
        assert!(panicked.is_err());
        tracing::info!("after it");
        flush();
        std::process::exit(1);
    }

    #[test]
    fn l12_a_panic_is_logged_with_location_but_without_message() {
        let Ok(stage) = env::var(CHILD) else {
            let this = "telemetry::logging::tests::l12_a_panic_is_logged_with_location_but_without_message";
            for (stage, expected) in
                [("log", r#""message":"panic: this is a bug"#), ("no log", "finicity-proxy: panic at ")]
            {
                let output = run_alone(this, stage);
                assert!(output.contains(expected) && output.contains("src/telemetry/logging.rs:"), "{output}");
                assert!(!output.contains("canary") && !output.contains("rust_begin_unwind"), "{output}");
            }
            return;
        };
        install_panic_hook();
        if stage == "log" {
            let level = "trace".parse().unwrap();
            init(&Config { format: Some(Format::Json), level }, Output::Stdout).unwrap();
        }
        panic!("canary");
    }
}
