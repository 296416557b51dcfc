//! `wait`: blocks until the proxy passes a probe, for programs that must start after it.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::{
    health::{ProbeArgs, ProbeRequest},
    local_client,
    output::print,
};
use crate::{config::Inputs, error_chain};

/// The pause between two probes. A startup takes a few hundred milliseconds, mostly for the first token.
const PAUSE: Duration = Duration::from_millis(200);

/// The maximum time for one response, similar to the timeout of a Kubernetes probe.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    probe: ProbeArgs,
    /// Maximum time to wait
    #[arg(long, default_value = "60s", value_parser = local_client::time)]
    timeout: Duration,
}

/// Probes until one passes. A proxy that does not listen yet counts as not ready.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let request = arguments.probe.resolve(&inputs)?;
    drop(inputs); // the environment's copy of the secrets with it
    let end = Instant::now() + arguments.timeout;
    loop {
        let next = Instant::now() + PAUSE;
        let reason = match check(&request, end).await {
            Ok(text) => {
                print(text);
                return Ok(());
            }
            Err(reason) => reason,
        };
        if next >= end {
            let timeout = humantime::format_duration(arguments.timeout);
            bail!("{request} did not pass within {timeout}; last result: {reason}");
        }
        sleep_until(next).await;
    }
}

/// The text of a probe that passes, or the reason why it fails.
async fn check(request: &ProbeRequest, end: Instant) -> Result<String, String> {
    // The last probe gets at least `PAUSE`, so that there is a reason to report.
    let limit = end.saturating_duration_since(Instant::now()).clamp(PAUSE, RESPONSE_TIMEOUT);
    match request.send(limit).await {
        Ok(response) if response.head.status.is_success() => Ok(response.text),
        Ok(response) => Err(format!("{}, {}", response.head.status.as_u16(), response.text)),
        Err(error) => Err(error_chain::one_line(&error)),
    }
}
