//! `sandbox`: the fake Finicity alone, for a proxy that runs elsewhere on this machine.

use std::{
    fs,
    net::SocketAddr,
    path::{self, Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use super::{Sources, output::print};
use crate::{
    process::signal::StopSignals,
    sandbox::{CREDENTIALS, Config, Credentials, Sandbox},
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
    let ca_file = &arguments.ca_file;
    let absolute = path::absolute(ca_file).with_context(|| format!("--ca-file: {} is no path", ca_file.display()))?;
    fs::write(&absolute, sandbox.ca_pem())
        .with_context(|| format!("--ca-file: cannot write {}", absolute.display()))?;
    print(introduction(&sandbox, &absolute));
    signals.next().await;
    Ok(())
}

/// How a proxy that is started anywhere on this machine uses `sandbox`, whose CA is in `ca_file`, by either scheme. The lines that begin with
/// `export` are for a shell; the last scheme is in use when all of them are run.
fn introduction(sandbox: &Sandbox, ca_file: &Path) -> String {
    let Credentials { client_id, client_secret, app_key } = CREDENTIALS;
    let export = |variables: &[(&str, &str)]| {
        let assignments: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect();
        format!("export {}", assignments.join(" "))
    };
    format!(
        "the sandbox listens on {}; a proxy uses it with\n\n{}\n{}\n\nand, for OAuth 2.0,\n\n{}\n\nor, for partner authentication,\n\n\
         {}\n\nand then\n\nfinicity-proxy serve\n",
        sandbox.address(),
        export(&[("FINICITY__UPSTREAM__URL", &sandbox.url()), ("FINICITY_APP_KEY", app_key)]),
        export(&[("FINICITY__UPSTREAM__CA_FILE", &ca_file.display().to_string())]),
        export(&[
            ("FINICITY__AUTH__SCHEME", "oauth2"),
            ("FINICITY_CLIENT_ID", client_id),
            ("FINICITY_CLIENT_SECRET", client_secret),
        ]),
        export(&[
            ("FINICITY__AUTH__SCHEME", "partner"),
            ("FINICITY_PARTNER_ID", client_id),
            ("FINICITY_PARTNER_SECRET", client_secret),
        ]),
    )
}

/// `text` as one word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
