//! `credentials test`: tries new credentials exactly once, under the lock-out guard, before they are put into a Secret.
//!
//! Deliberately absent: retries, revocation, and any use of the token.

use anyhow::bail;
use clap::{Args, Subcommand};
use tokio::select;

use super::{output::print, token_attempt::TokenAttempt};
use crate::{
    app::{self, Loaded},
    config::Inputs,
    credentials::lockout::Lockout,
    dns::Resolver,
    process::signal::StopSignals,
    tls,
    token::TokenEndpoint,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make one token request and report whether the credentials are safe to roll out
    ///
    /// Sends nothing while the lock-out guard forbids it. Exit codes: 0 accepted; 1 rejected, not tried or no response; 78
    /// configuration error or missing credentials.
    Test {
        /// Read the credentials from the files in this directory, named as for credentials.source = "dir"
        #[arg(long, value_name = "DIR")]
        dir: Option<String>,
    },
}

/// Tries the credentials once. Success means that they are safe to roll out; every other outcome is an error.
pub(super) async fn run(mut inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let Action::Test { dir } = arguments.action;
    let mut signals = StopSignals::catch()?;
    if let Some(dir) = dir {
        let keys = [("credentials.source", "dir".to_owned()), ("credentials.dir", dir)];
        inputs.flags.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    }
    let mut loaded = app::load(&inputs).await?;
    drop(inputs); // the environment's copy of the secrets with it
    let credentials = select! {
        biased;
        credentials = loaded.read_credentials() => credentials?,
        signal = signals.next() => bail!("stopped by {signal}; the credentials were not tried"),
    };
    let Loaded { config, source, .. } = loaded;
    let (_trust_store_writer, trust_store) = tls::trust_store(config.tls)?;
    let endpoint = TokenEndpoint::new(config.token, Resolver::new(), trust_store)?;
    let lockout = Lockout::open(config.state_dir.as_deref())?;
    print(format_args!("credentials from {}, scheme {}", source.description(), credentials.scheme.as_str()));
    let mut attempt = TokenAttempt::new(endpoint, lockout, credentials);

    let permit = select! {
        biased;
        permit = attempt.clearance() => permit?,
        signal = signals.next() => bail!("stopped by {signal}; the credentials were not tried"),
    };
    let interrupted = select! {
        biased;
        outcome = attempt.send(permit) => {
            outcome?;
            print(format_args!("accepted: {} issued a token, which is not used", attempt.host()));
            print("safe to roll out");
            return Ok(());
        }
        signal = signals.next() => signal,
    };
    // The dropped permit leaves the attempt on record.
    bail!(
        "stopped by {interrupted} before the outcome was known; the attempt remains recorded and counts as a rejection. {}",
        attempt.attempts_left()
    )
}
