//! `shutdown`: has the running proxy end, for Jobs whose pod is done only when all its containers are.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;
use tokio::time::{Instant, sleep, timeout};

use super::{
    admin::{Access, TIMEOUT, admin_target},
    local_client::{self, Target},
    output::print,
};
use crate::config::Inputs;

/// The pause between two connection attempts.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Wait until the proxy has served its requests and ended
    #[arg(long)]
    wait: bool,
    /// How long to wait for that
    #[arg(long, default_value = "60s", value_parser = local_client::time, requires = "wait")]
    timeout: Duration,
}

/// Sends the request: over the socket, where one is configured, or else to the admin port.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let response = admin_target(inputs, Access::Act)?.send(Method::POST, "/api/shutdown").await?;
    print(&response.text);
    if arguments.wait {
        wait_until_stopped(&response.target, arguments.timeout).await?;
        print("it has ended");
    }
    Ok(())
}

/// Waits until nothing listens at `target` any more. The admin listener is one of the last that end.
async fn wait_until_stopped(target: &Target, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        if !timeout(TIMEOUT, local_client::is_listening(target)).await.unwrap_or(true) {
            return Ok(());
        }
        if Instant::now() + PAUSE > deadline {
            bail!("the proxy has not ended within {}", humantime::format_duration(limit));
        }
        sleep(PAUSE).await;
    }
}
