//! `shutdown`: shuts down the running proxy, for Jobs: their pod completes only when all its containers have exited.

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
    /// Wait until the proxy has drained and stopped
    #[arg(long)]
    wait: bool,
    /// Maximum time to wait
    #[arg(long, default_value = "60s", value_parser = local_client::time, requires = "wait")]
    timeout: Duration,
}

/// Sends the request to the admin socket if one is configured, otherwise to the admin port.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let response = admin_target(inputs, Access::Act)?.send(Method::POST, "/api/shutdown").await?;
    print(&response.text);
    if arguments.wait {
        wait_until_stopped(&response.target, arguments.timeout).await?;
        print("proxy stopped");
    }
    Ok(())
}

/// Waits until nothing listens on `target`. The admin listener is one of the last to close.
async fn wait_until_stopped(target: &Target, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        if !timeout(TIMEOUT, local_client::is_listening(target)).await.unwrap_or(true) {
            return Ok(());
        }
        if Instant::now() + PAUSE > deadline {
            bail!("the proxy did not stop within {}", humantime::format_duration(limit));
        }
        sleep(PAUSE).await;
    }
}
