//! Logs: `tracing` events as JSON lines for machines, or as text for people.
//!
//! Deliberately absent: spans around requests (one access line says it all), and any event that carries header values,
//! bodies, query strings or raw paths.

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

/// How long the shutdown waits for output that makes no progress, because its reader has stopped or the machine is busy. The last lines
/// of an incident are needed most.
const FLUSH_STALL: Duration = Duration::from_secs(5);

/// How long it waits for output that makes progress: the default grace period of a pod, after which it is killed anyway.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

/// How long a command waits until its error message is written. The exit code reports the error as well.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a panic waits for the log, since it may be that of one request.
const PANIC_FLUSH: Duration = Duration::from_millis(200);

/// One for the process, as its outputs are.
static LOG: OnceLock<Log> = OnceLock::new();
static SCRUBBER: LazyLock<Scrubber> = LazyLock::new(Scrubber::default);

#[derive(Debug)]
struct Log {
    writer: LogWriter,
    format: Format,
    level: LogLevel,
}

/// How logs look and which of them are written.
#[derive(Clone, Debug)]
pub struct Config {
    /// The form of a line; `None` for text on a terminal and JSON elsewhere.
    pub format: Option<Format>,
    /// Which of them are written at the start.
    pub level: Levels,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Text for a terminal.
    Human,
}

/// Where logs go.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    /// Standard output, where a container's logs are read.
    Stdout,
    /// Standard error, for commands whose standard output is for people.
    Stderr,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The writing thread cannot be started.
    #[error("the log writer cannot be started")]
    Thread(#[source] io::Error),
    /// Logging was set up before.
    #[error("logging is set up already")]
    AlreadyInitialized(#[source] TryInitError),
}

/// Sets up logging for the whole process. To be called once.
///
/// # Errors
///
/// When the writing thread cannot be started, or logging was set up before.
pub fn init(config: &Config, output: Output) -> Result<(), Error> {
    use io::IsTerminal as _;

    match output {
        Output::Stdout => init_to(config, io::stdout(), io::stdout().is_terminal()),
        Output::Stderr => init_to(config, io::stderr(), io::stderr().is_terminal()),
    }
}

/// The same, to any `output`; `is_terminal` allows colours, and decides where no format is configured.
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

/// The levels of this process's log; of no effect where there is none.
pub fn level() -> LogLevel {
    LOG.get().map_or_else(|| LogLevel::noop(Levels::default()), |log| log.level.clone())
}

/// Waits until all log lines have left the process, as long as their reader takes some.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.writer.flush(FLUSH_STALL, FLUSH_LIMIT);
    }
}

/// Log lines that were dropped because nobody read them.
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.writer.dropped())
}

/// Hands the log and its form to `write`, if there is one.
pub(super) fn with_log(write: impl FnOnce(&LogWriter, Format)) {
    if let Some(log) = LOG.get() {
        write(&log.writer, log.format);
    }
}

/// Text for a person on standard output, without the secrets that are known, and a line break. Nobody reading it is no reason to
/// fail.
pub fn print(text: impl Display) {
    print_to(io::stdout(), &text);
}

/// The same on standard error. Waits at most one second until it is written.
pub fn eprint(text: impl Display) {
    let text = format!("{text}");
    let (done, written) = mpsc::channel::<()>();
    let write = move || {
        print_to(io::stderr(), &text);
        drop(done);
    };
    if thread::Builder::new().spawn(write).is_ok() {
        // The sender is dropped when it is written.
        let _ = written.recv_timeout(STDERR_TIMEOUT);
    }
}

fn print_to(mut output: impl Write, text: &impl Display) {
    let mut text = format!("{text}\n").into_bytes();
    SCRUBBER.scrub(&mut text);
    let _ = output.write_all(&text).and_then(|()| output.flush());
}

/// Reports panics by their location alone, since a message may quote a value: in the log, or on standard error while there is no log.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let thread = thread::current().name().map(str::to_owned);
        // It cannot be used by a thread that has panicked in it.
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

    /// What this test's program prints when `test` is run alone in another process, with `stage` in its environment.
    fn run_alone(test: &str, stage: &str) -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, stage).env("RUST_BACKTRACE", "full");
        let output = command.output().unwrap();
        assert!(!output.status.success(), "it must panic");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    #[test]
    fn a_panic_while_the_log_is_locked_is_reported_and_logging_goes_on() {
        if env::var(CHILD).is_err() {
            let this = "telemetry::logging::tests::a_panic_while_the_log_is_locked_is_reported_and_logging_goes_on";
            let output = run_alone(this, "locked");
            for expected in ["finicity-proxy: panic at src/telemetry/writer.rs:", r#""message":"after it"#] {
                assert!(output.contains(expected), "{output}");
            }
            assert!(!output.contains("canary"), "{output}");
            return;
        }
        // So that it fails and does not hang.
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
    fn l12_a_panic_is_logged_with_its_location_and_without_its_message() {
        let Ok(stage) = env::var(CHILD) else {
            let this = "telemetry::logging::tests::l12_a_panic_is_logged_with_its_location_and_without_its_message";
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
