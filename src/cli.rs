//! The command line: one file for each subcommand. The exit codes are defined here.

mod admin;
mod check;
mod config;
mod credentials;
#[cfg(feature = "cli-docs")]
mod cli_docs;
#[cfg(feature = "sandbox")]
mod demo;
mod doctor;
mod health;
mod local_client;
mod lockout;
mod log_level;
mod output;
mod quarantine;
mod routes;
#[cfg(feature = "sandbox")]
mod sandbox;
mod serve;
mod shutdown;
mod status;
mod token;
mod token_attempt;
mod wait;

use std::{path::PathBuf, process::ExitCode};

#[cfg(feature = "cli-docs")]
use clap::CommandFactory as _;
use clap::{
    Args, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use tokio::runtime;

use self::output::eprint;
use crate::{
    app::StartError,
    config::{Environment, Inputs, Problems},
    credentials::{Problem, secret_variables},
    error_chain,
    process::{self, HardeningError, build_info},
    telemetry::logging,
};

/// Invalid configuration (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Add Finicity credentials to the requests of local services
///
/// Runs `serve` if no command is given.
#[derive(Debug, Parser)]
#[command(name = "finicity-proxy", version, disable_version_flag = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 success, 1 failure, 2 usage error, 78 configuration error")]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version, also print the source revision and date, the build target and the features
    #[arg(short, long, requires = "version")]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Arguments {
    /// Whether the command ignores the operator's environment and files. Then not even the variables with secrets are read.
    fn is_isolated(&self) -> bool {
        match &self.command {
            #[cfg(feature = "sandbox")]
            Some(Command::Demo(_) | Command::Sandbox(_)) => true,
            #[cfg(feature = "cli-docs")]
            Some(Command::Completions { .. } | Command::Man { .. }) => true,
            _ => false,
        }
    }
}

/// The configuration sources on the command line.
#[derive(Clone, Debug, Args)]
struct Sources {
    /// Read configuration from this TOML file; unset keys keep their defaults [env: FINICITY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one configuration key, such as upstream.url=https://…; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl Sources {
    /// All sources, for the commands that use the operator's configuration.
    fn inputs(self) -> Inputs {
        Inputs { file: self.config, environment: Environment::from_process(), flags: self.set }
    }

    /// Only the command line, for `command`, which accepts keys of `sections`.
    ///
    /// # Errors
    ///
    /// Lists every key of another section.
    #[cfg(feature = "sandbox")]
    fn command_line_only(self, command: &str, sections: &[&str]) -> Result<Inputs, Problems> {
        let inputs = crate::config::command_line_only(command, self.set, sections)?;
        if self.config.is_some() {
            eprint(format_args!("--config is ignored: `{command}` does not use your configuration"));
        }
        Ok(inputs)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy (default)
    Serve,
    /// Validate the configuration and local credentials, without network access
    Check,
    /// Show the effective configuration and where each key is set
    Config(config::Arguments),
    /// Test new credentials once, under the lock-out guard, before rolling them out
    Credentials(credentials::Arguments),
    /// Diagnose why the proxy has no token: configuration, credentials, network, TLS, clock, one token request
    ///
    /// Like `credentials test`, makes the token request under the lock-out guard.
    Doctor(doctor::Arguments),
    /// List the vendor's operations and what the policy decides for each
    Routes,
    /// Query a health endpoint of the running proxy (exit 0: healthy, 1: not)
    Health(health::Arguments),
    /// Wait until the proxy passes a probe
    Wait(wait::Arguments),
    /// Show the state of the running proxy: token, lock-out guard, credentials
    Status(status::Arguments),
    /// Reset the lock-out guard of the running proxy
    Lockout(lockout::Arguments),
    /// Replace the token of the running proxy
    Token(token::Arguments),
    /// Stop or resume the use of the credentials by the running proxy
    Quarantine(quarantine::Arguments),
    /// Show or change the log level of the running proxy
    LogLevel(log_level::Arguments),
    /// Gracefully shut down the running proxy, as SIGTERM does
    Shutdown(shutdown::Arguments),
    /// Run the proxy in front of a sandbox of the Finicity API; needs no account and no network
    ///
    /// Reads no environment variables and no configuration file, and ignores --config. --set accepts keys of these sections: guard,
    /// limits, listen, log, policy, runtime and shutdown.
    #[cfg(feature = "sandbox")]
    Demo(demo::Arguments),
    /// Run only the sandbox of the Finicity API
    ///
    /// Reads no environment variables and no configuration file, ignores --config, and rejects --set.
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Arguments),
    /// Print the completion script for a shell
    #[cfg(feature = "cli-docs")]
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write the pages of all commands to a directory
    #[cfg(feature = "cli-docs")]
    Man {
        /// Existing directory to write to
        directory: Option<PathBuf>,
    },
}

/// Parses this process's command line, runs the command, and returns the exit code.
pub fn main() -> ExitCode {
    logging::install_panic_hook();
    // Before reading anything that may hold a secret.
    let unprotected = process::harden();
    let parsed = Arguments::try_parse();
    if !parsed.as_ref().is_ok_and(Arguments::is_isolated) {
        let secrets = secret_variables(Environment::from_process().variables());
        logging::scrubber().register("the environment", secrets);
    }
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = without_value(error);
            let text = error.render().to_string();
            if error.use_stderr() {
                logging::eprint(text.trim_end());
            } else {
                logging::print(text.trim_end());
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX));
        }
    };
    let outcome = run(arguments, unprotected);
    logging::flush();
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if let Some(Problems(problems)) = error.downcast_ref() {
        let lines: Vec<String> = problems.iter().map(|problem| format!("finicity-proxy: {problem}")).collect();
        logging::eprint(lines.join("\n"));
        return ExitCode::from(EXIT_CONFIG);
    }
    if let Some(doctor::Failed(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    eprint(error_chain::one_line(error.as_ref()));
    let is_configuration = error.is::<Problem>() || error.downcast_ref().is_some_and(StartError::is_configuration);
    if is_configuration { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
}

/// `error` without the invalid value, which may be a secret passed by mistake. The message still names the argument.
fn without_value(mut error: clap::Error) -> clap::Error {
    if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("(not shown)".to_owned()));
    }
    error
}

/// The version; with `is_verbose`, also the build information.
fn version(is_verbose: bool) -> String {
    use build_info::{DATE, FEATURES, REVISION, TARGET, VERSION};
    let version = format!("finicity-proxy {VERSION}");
    if is_verbose {
        format!("{version}\nrevision  {REVISION}\ndate      {DATE}\ntarget    {TARGET}\nfeatures  {FEATURES}")
    } else {
        version
    }
}

fn run(arguments: Arguments, unprotected: Vec<HardeningError>) -> anyhow::Result<()> {
    if arguments.version {
        output::print(version(arguments.verbose));
        return Ok(());
    }
    let sources = arguments.sources;
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => block_on(serve::run(sources.inputs(), unprotected)),
        Command::Check => block_on(async { check::run(&sources.inputs()).await }),
        Command::Config(arguments) => config::run(&sources.inputs(), arguments),
        Command::Credentials(arguments) => block_on(credentials::run(sources.inputs(), arguments)),
        Command::Doctor(arguments) => block_on(doctor::run(sources.inputs(), arguments)),
        Command::Routes => routes::run(&sources.inputs()),
        Command::Health(arguments) => block_on(health::run(sources.inputs(), arguments)),
        Command::Wait(arguments) => block_on(wait::run(sources.inputs(), arguments)),
        Command::Status(arguments) => block_on(status::run(sources.inputs(), arguments)),
        Command::Lockout(arguments) => block_on(lockout::run(sources.inputs(), arguments)),
        Command::Token(arguments) => block_on(token::run(sources.inputs(), arguments)),
        Command::Quarantine(arguments) => block_on(quarantine::run(sources.inputs(), arguments)),
        Command::LogLevel(arguments) => block_on(log_level::run(sources.inputs(), arguments)),
        Command::Shutdown(arguments) => block_on(shutdown::run(sources.inputs(), arguments)),
        #[cfg(feature = "sandbox")]
        Command::Demo(arguments) => block_on(demo::run(sources, arguments)),
        #[cfg(feature = "sandbox")]
        Command::Sandbox(arguments) => block_on(sandbox::run(sources, arguments)),
        #[cfg(feature = "cli-docs")]
        Command::Completions { shell } => cli_docs::completions(shell, Arguments::command()),
        #[cfg(feature = "cli-docs")]
        Command::Man { directory } => cli_docs::man(directory.as_deref(), Arguments::command()),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // Tasks that need an orderly shutdown have ended; the others are dropped.
    runtime.shutdown_background();
    outcome
}

fn key_and_value(argument: &str) -> Result<(String, String), String> {
    let pair = argument.split_once('=').map(|(key, value)| (key.trim(), value));
    // Text with other characters is not a key. It may be a secret that contains `=`, so the error does not repeat it.
    let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    let (key, value) = pair.filter(|(key, _)| is_key(key)).ok_or("expected KEY=VALUE, such as log.level=debug")?;
    Ok((key.to_owned(), value.to_owned()))
}
