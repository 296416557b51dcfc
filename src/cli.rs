//! The command line: one file a subcommand. The exit codes are defined here.

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

/// The configuration cannot be used (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// A local proxy that adds Finicity credentials to requests, so that services need none.
///
/// Without a command, it serves.
#[derive(Debug, Parser)]
#[command(name = "finicity-proxy", version, disable_version_flag = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.")]
struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Print the version
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version: also the revision and the date of the source, the target and the features
    #[arg(short, long, requires = "version")]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Arguments {
    /// Whether the command uses nothing of the operator's, so that not even the variables with secrets are looked at.
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

/// Where configuration comes from, besides the environment.
#[derive(Clone, Debug, Args)]
struct Sources {
    /// A TOML file with the keys that differ from the defaults [env: FINICITY_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, such as upstream.url=https://…; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl Sources {
    /// All places, for the commands that use the operator's configuration.
    fn inputs(self) -> Inputs {
        Inputs { file: self.config, environment: Environment::from_process(), flags: self.set }
    }

    /// The command line alone, for `command`, which takes keys of `sections`.
    ///
    /// # Errors
    ///
    /// Every key of another section.
    #[cfg(feature = "sandbox")]
    fn command_line_only(self, command: &str, sections: &[&str]) -> Result<Inputs, Problems> {
        let inputs = crate::config::command_line_only(command, self.set, sections)?;
        if self.config.is_some() {
            eprint(format_args!("--config is not read: `{command}` uses nothing of your configuration"));
        }
        Ok(inputs)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy (the default)
    Serve,
    /// Check the configuration and the credentials' presence, without any network
    Check,
    /// Show the configuration in effect, and where each key was set
    Config(config::Arguments),
    /// Try new credentials once, under the lock-out guard, before they are rolled out
    Credentials(credentials::Arguments),
    /// Find out why the proxy has no token: configuration, credentials, network, TLS, clock, one token request
    ///
    /// The token request is made under the lock-out guard, as `credentials test` makes it.
    Doctor(doctor::Arguments),
    /// Show the vendor's operations, and which of them the configuration lets callers call
    Routes,
    /// Ask the running proxy for a probe: 0 when it passes, 1 when it does not
    Health(health::Arguments),
    /// Wait until a probe of the proxy passes
    Wait(wait::Arguments),
    /// Show the state of the running proxy: token, lock-out guard, credentials
    Status(status::Arguments),
    /// Act on the lock-out guard of the running proxy
    Lockout(lockout::Arguments),
    /// Replace the token of the running proxy
    Token(token::Arguments),
    /// Stop using the credentials, or resume it
    Quarantine(quarantine::Arguments),
    /// Show or change the log level of the running proxy
    LogLevel(log_level::Arguments),
    /// Have the running proxy finish what it is doing and end, as SIGTERM does
    Shutdown(shutdown::Arguments),
    /// Run the proxy in front of a fake Finicity: needs no account and no network
    ///
    /// Reads no environment variable and no configuration file. --set takes keys of the sections guard, limits, listen, log, policy,
    /// runtime and shutdown.
    #[cfg(feature = "sandbox")]
    Demo(demo::Arguments),
    /// Run the fake Finicity alone
    ///
    /// Reads no environment variable and no configuration file.
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Arguments),
    /// Print the completions of a shell
    #[cfg(feature = "cli-docs")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write it and those of the commands to a directory
    #[cfg(feature = "cli-docs")]
    Man {
        /// The directory, which must exist
        directory: Option<PathBuf>,
    },
}

/// Parses the command line of this process, runs it, and says how it went.
pub fn main() -> ExitCode {
    logging::install_panic_hook();
    // Before anything is read that may hold a secret.
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

/// `error` without the value that it is about: a secret may stand there by mistake, and its argument is named all the same.
fn without_value(mut error: clap::Error) -> clap::Error {
    if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("(not shown)".to_owned()));
    }
    error
}

/// The version; with `is_verbose`, also what the program was built from.
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
    // Whatever still runs is not waited for: what had to end in order has.
    runtime.shutdown_background();
    outcome
}

fn key_and_value(argument: &str) -> Result<(String, String), String> {
    let pair = argument.split_once('=').map(|(key, value)| (key.trim(), value));
    // What has other characters is no key, and may be a secret with an equals sign in it: it is not repeated.
    let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    let (key, value) = pair.filter(|(key, _)| is_key(key)).ok_or("expected KEY=VALUE, such as log.level=debug")?;
    Ok((key.to_owned(), value.to_owned()))
}
