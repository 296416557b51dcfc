//! `sandbox`: the fake Finicity alone, for a proxy that runs elsewhere on this machine.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{Sources, output::print};
use crate::{
    process::signal::StopSignals,
    sandbox::{CREDENTIALS, Config, Sandbox},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3443")]
    listen: SocketAddr,
    /// Where to write the certificate authority's certificate
    #[arg(long, value_name = "FILE", default_value = "sandbox-ca.pem")]
    ca_file: PathBuf,
    /// How long a token lives
    #[arg(long, default_value = "2h", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
}

/// Runs until a signal ends it.
pub(super) async fn run(sources: Sources, arguments: Arguments) -> anyhow::Result<()> {
    sources.command_line_only("sandbox", &[])?;
    let mut signals = StopSignals::catch()?;
    let config = Config { listen: arguments.listen, token_lifetime: arguments.token_lifetime };
    let sandbox =
        Sandbox::start(&config).await.with_context(|| format!("--listen: cannot listen on {}", arguments.listen))?;
    let ca_file = arguments.ca_file.display();
    fs::write(&arguments.ca_file, sandbox.ca_pem()).with_context(|| format!("--ca-file: cannot write {ca_file}"))?;
    print(format_args!(
        "the sandbox listens on {}; a proxy uses it with\n\n\
         export FINICITY_CLIENT_ID='{}' FINICITY_CLIENT_SECRET='{}' FINICITY_APP_KEY='{}'\n\
         export FINICITY__UPSTREAM__URL='{}' FINICITY__UPSTREAM__CA_FILE='{ca_file}'\n\
         finicity-proxy serve\n",
        sandbox.address(),
        CREDENTIALS.client_id,
        CREDENTIALS.client_secret,
        CREDENTIALS.app_key,
        sandbox.url(),
    ));
    signals.next().await;
    Ok(())
}
