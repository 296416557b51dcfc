//! `doctor`: diagnoses why the proxy has no token, step by step, from the configuration to a token request.
//!
//! It runs with or without a running proxy of the same configuration, and calls the same functions as the proxy. Its only changes are
//! the lock-out records of the token request, which are the same as those of `credentials test`.
//!
//! Deliberately absent: everything that could spend an attempt on credentials that the lock-out guard forbids.

mod clock;
mod machine;
mod network;
mod report;
mod running_proxy;
mod token_request;

use std::{fmt, time::Duration};

use anyhow::bail;
use clap::Args;
use tokio::select;

use self::{
    machine::{CredentialCheck, StateCheck},
    network::Network,
    report::{Finding, Report, StepName},
};
use super::output::print;
use crate::{config::Inputs, process::signal::StopSignals};

/// The maximum time of a step that connects to a server. A shorter configured time limit takes precedence.
const STEP_TIMEOUT: Duration = Duration::from_secs(8);

/// The maximum time of a run: just under the minute that people and jobs usually wait.
const RUN_TIMEOUT: Duration = Duration::from_secs(58);

/// The end of the text of `--help`. `docs/doctor.md` has the same table.
const EXIT_CODES: &str = "\
Exit codes: 0 no step failed, 1 interrupted, 2 usage error; otherwise the code of the first failed step:
  78 configuration      13 dns             17 clock
  10 credential_source  14 egress_proxy    18 token_request
  11 store_identity     15 tcp             19 running_proxy
  12 state_directory    16 tls";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Make no token request
    #[arg(long)]
    no_token_request: bool,
}

/// A step failed; the report says which. Holds the exit code of the step.
#[derive(Debug)]
pub(super) struct Failed(pub(super) u8);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step failed")
    }
}

impl std::error::Error for Failed {}

/// Runs the steps and prints their findings. A step is skipped when one that it depends on did not pass.
///
/// # Errors
///
/// [`Failed`] when a step failed.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let mut signals = StopSignals::catch()?;
    let mut report = Report::new(!arguments.json);
    let interrupted = select! {
        biased;
        signal = signals.next() => Some(signal),
        () = examine(inputs, !arguments.no_token_request, &mut report) => None,
    };
    if let Some(signal) = interrupted {
        let attempt = if report.is_in(StepName::TokenRequest) {
            "; if the token request was sent, the attempt remains recorded and counts as a rejection until its outcome is known"
        } else {
            ""
        };
        bail!("stopped by {signal}{attempt}");
    }
    if arguments.json {
        print(report.to_json());
    } else {
        print(report.conclusion());
    }
    report.exit_code().map_or(Ok(()), |code| Err(Failed(code).into()))
}

/// Runs the steps in the order in which a token request depends on them.
async fn examine(inputs: Inputs, may_request_token: bool, report: &mut Report) {
    let Some(config) = report.step(StepName::Configuration, async { machine::configuration(&inputs) }).await else {
        return report.skip_rest("requires a valid configuration");
    };
    let CredentialCheck { credentials, identity } = machine::credential_source(report, &config).await;
    report.add(StepName::StoreIdentity, identity);
    let state = match &config.state_dir {
        Some(dir) => report.step(StepName::StateDirectory, async { machine::state_directory(dir) }).await,
        None => {
            let detail = "auth.state_dir is not set: rejections are remembered only until the proxy stops, and are not shared with other processes";
            report.add(StepName::StateDirectory, Finding::skipped(detail));
            Some(StateCheck::Memory)
        }
    };
    let network = Network::new(&config);
    let responded = network.examine(report, credentials.as_ref().map(|credentials| credentials.scheme)).await;
    let (proxy, took) = running_proxy::query(&inputs).await;
    drop(inputs); // the environment's copy of the secrets with it
    let needs = token_request::Needs { credentials, state, responded, proxy: &proxy };
    token_request::examine(report, config, needs, may_request_token).await;
    report.add_timed(StepName::RunningProxy, proxy.finding, took);
}
