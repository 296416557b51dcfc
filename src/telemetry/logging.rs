//! Logs: `tracing` events as JSON lines for machines, or as text for people.
//!
//! Deliberately absent: spans around requests (one access line says it all), and any event that carries header values,
//! bodies, query strings or raw paths.

use std::{
    io::{self, Write as _},
    panic,
    sync::OnceLock,
    thread,
};

use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _, util::TryInitError,
};

use super::writer::LogWriter;

static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// How logs look and which of them are written.
#[derive(Clone, Debug)]
pub struct Config {
    /// The form of a line.
    pub format: Format,
    /// Levels by target: `info`, or `info,finicity_proxy::token=debug`.
    pub level: Targets,
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
    Twice(#[source] TryInitError),
}

/// Sets up logging for the whole process. To be called once.
///
/// # Errors
///
/// When the writing thread cannot be started, or logging was set up before.
pub fn init(config: &Config, output: Output) -> Result<(), Error> {
    use io::IsTerminal as _;

    let (writer, terminal) = match output {
        Output::Stdout => (LogWriter::spawn(io::stdout()), io::stdout().is_terminal()),
        Output::Stderr => (LogWriter::spawn(io::stderr()), io::stderr().is_terminal()),
    };
    let writer = writer.map_err(Error::Thread)?;
    let registry = tracing_subscriber::registry().with(config.level.clone());
    let lines = fmt::layer().with_writer(writer.clone());
    match config.format {
        Format::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
        Format::Human => registry.with(lines.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())).try_init(),
    }
    .map_err(Error::Twice)?;
    let _ = WRITER.set(writer);
    Ok(())
}

/// Waits, briefly, until all log lines have left the process.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

/// Log lines that were dropped because nobody read them.
pub fn dropped_lines() -> u64 {
    WRITER.get().map_or(0, LogWriter::dropped)
}

/// From now on, a panic is told by its place alone: its message may quote a value. It is told in the log, so as to be a line
/// like all others, or on standard error as long as there is no log.
pub fn hook_panics() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let thread = thread::current().name().map(str::to_owned);
        if WRITER.get().is_none() {
            let location = location.unwrap_or_default();
            let _ = writeln!(io::stderr(), "finicity-proxy: panic at {location}: this is a bug, please report it");
            return;
        }
        tracing::error!(location, thread, "panic: this is a bug in finicity-proxy, please report it with this line");
        flush();
    }));
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    const CHILD: &str = "FINICITY_TEST_PANIC";

    /// What this test's program prints when `test` is run alone in another process, where `stage` is told to it.
    fn run_alone(test: &str, stage: &str) -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(CHILD, stage).env("RUST_BACKTRACE", "full");
        let output = command.output().unwrap();
        assert!(!output.status.success(), "it must panic");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    #[test]
    fn l12_a_panic_is_told_by_its_place_and_never_by_its_message() {
        let Ok(stage) = env::var(CHILD) else {
            let this = "telemetry::logging::tests::l12_a_panic_is_told_by_its_place_and_never_by_its_message";
            for (stage, told) in
                [("log", r#""message":"panic: this is a bug"#), ("no log", "finicity-proxy: panic at ")]
            {
                let output = run_alone(this, stage);
                assert!(output.contains(told) && output.contains("src/telemetry/logging.rs:"), "{output}");
                assert!(!output.contains("canary") && !output.contains("rust_begin_unwind"), "{output}");
            }
            return;
        };
        hook_panics();
        if stage == "log" {
            let level = Targets::new().with_default(tracing::Level::TRACE);
            init(&Config { format: Format::Json, level }, Output::Stdout).unwrap();
        }
        panic!("canary");
    }
}
