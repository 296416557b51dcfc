//! `wait`: until the proxy is there, for programs that must not start before it.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::{
    health::{Asked, Question},
    local_client, say,
};
use crate::{config::Inputs, error_chain};

/// How often to ask. A start takes some hundred milliseconds, most of them for the first token.
const PAUSE: Duration = Duration::from_millis(200);

/// The most time for one answer, as for a probe of Kubernetes.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: Asked,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = local_client::time)]
    timeout: Duration,
}

/// Asks again and again until the probe passes. A proxy that is not there yet counts as one that is not ready.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let question = arguments.asked.question(&inputs)?;
    drop(inputs); // the environment's copy of the secrets with it
    let end = Instant::now() + arguments.timeout;
    loop {
        let next = Instant::now() + PAUSE;
        let reason = match ask(&question, end).await {
            Ok(text) => {
                say(text);
                return Ok(());
            }
            Err(reason) => reason,
        };
        if next >= end {
            let timeout = humantime::format_duration(arguments.timeout);
            bail!("{question} did not pass within {timeout}; the last time: {reason}");
        }
        sleep_until(next).await;
    }
}

/// What the probe says when it passes, or else why it does not.
async fn ask(question: &Question, end: Instant) -> Result<String, String> {
    // The last answer gets some time too, so that there is a reason to tell.
    let limit = end.saturating_duration_since(Instant::now()).clamp(PAUSE, ANSWER);
    match question.ask(limit).await {
        Ok(answer) if answer.head.status.is_success() => Ok(answer.text),
        Ok(answer) => Err(format!("{}, {}", answer.head.status.as_u16(), answer.text)),
        Err(error) => Err(error_chain::one_line(&error)),
    }
}
